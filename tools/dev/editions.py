"""Keep demo.zh-CN.ipynb the same as demo.ipynb in all but the language of its text.

    python tools/dev/editions.py                   bring the Chinese edition up to date
    python tools/dev/editions.py --check           only say what is not up to date
    python tools/dev/editions.py --take FILE ...   put the Chinese texts of these files in
    python tools/dev/editions.py --agree ID ...    the Chinese of these cells is right as it stands

Order, ids, code, outputs and metadata come from demo.ipynb; the Chinese text of each markdown cell
stays, found by its id. Each one remembers, as a hash in its metadata, which English text it
translates, so that a cell whose English has changed since is named. A file for --take holds, for
each cell, a line `%% markdown id` and the text below it; code cells in it are passed over.

In both editions each cell with a heading ends in a link to the same cell of the other. JupyterLab
finds a cell by its id (`#cell-id=`), whatever its heading is. The links are made here, and are no
part of the hash.
"""

import argparse
import copy
import hashlib
import re
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.helpers import ROOT, write  # noqa: E402
from tools.run_notebook import as_text, without_link  # noqa: E402

ENGLISH, CHINESE = "demo.ipynb", "demo.zh-CN.ipynb"
DROPPED = Path("out") / "dropped.zh.txt"  # Chinese texts whose English cell is gone
HASH = "translates"


class EditionsError(Exception):
    """Nothing was written; the message says what is wrong and what to do."""


def link(cell, text, word, notebook):
    """Give a cell this text, and below it the link to the other edition if it has a heading."""
    if re.search(r"(?m)^#{1,6}\s", re.sub(r"(?ms)^```.*?^```", "", text)):
        text = f"{text}\n\n[{word}]({notebook}#cell-id={cell.id})"
    cell.source = text


def digest(text):
    """Eight hexadecimal digits that tell one English text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def is_chinese(text):
    """Whether there is any Chinese character in it."""
    return bool(re.search(r"[\u4e00-\u9fff]", text))


def markdown_cells(nb):
    """The markdown cells by their ids."""
    return {cell.id: cell for cell in nb.cells if cell.cell_type == "markdown"}


def synced(english, chinese):
    """Put the English edition's links right, and make the Chinese one of it.

    Returns
    -------
    nb : NotebookNode
        The English edition, with the Chinese text in each markdown cell that has one.
    dropped : dict of str
        By id, the Chinese texts for which the English edition has no cell.
    """
    for cell in markdown_cells(english).values():
        link(cell, without_link(cell.source), "中文", CHINESE)
    nb, old = copy.deepcopy(english), markdown_cells(chinese)
    for id, cell in markdown_cells(nb).items():
        known = old.pop(id, cell)
        known = known if is_chinese(without_link(known.source)) else cell
        link(cell, without_link(known.source), "English", ENGLISH)
        if HASH in known.metadata:
            cell.metadata[HASH] = known.metadata[HASH]
    return nb, {
        id: without_link(cell.source) for id, cell in old.items() if is_chinese(cell.source)
    }


def to_translate(english, chinese):
    """Ids of the cells without Chinese text, and of those made for another English text."""
    sources, missing, stale = markdown_cells(english), [], []
    for id, cell in markdown_cells(chinese).items():
        if not is_chinese(without_link(cell.source)):
            missing.append(id)
        elif cell.metadata.get(HASH) != digest(without_link(sources[id].source)):
            stale.append(id)
    return missing, stale


def read_texts(path):
    """The markdown texts of a file for --take, by id."""
    try:
        start, *parts = re.split(r"(?m)^%% *(.*)$", Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise EditionsError(f"{path} can't be read as a UTF-8 text file: {error}.") from None
    if start.strip():
        raise EditionsError(f"{path} has text above its first line `%% markdown id`.")
    texts = {}
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        kind, id, *_ = [*mark.split(), "", ""]
        if kind == "code":
            continue
        if kind != "markdown" or not id or id in texts:
            raise EditionsError(f"{path}: `%% {mark}` is not `%% markdown` and an id of its own.")
        texts[id] = text.strip()
    return texts


def take(texts, english, chinese):
    """Put Chinese texts, all or none, into the (synced) Chinese edition, for today's English."""
    sources, cells = markdown_cells(english), markdown_cells(chinese)
    if unknown := [id for id in texts if id not in cells]:
        raise EditionsError(f"{ENGLISH} has no markdown cell with the id {', '.join(unknown)}.")
    if foreign := [id for id, text in texts.items() if not is_chinese(without_link(text))]:
        raise EditionsError(f"There is no Chinese in the text for {', '.join(foreign)}.")
    for id, text in texts.items():
        link(cells[id], without_link(text), "English", ENGLISH)
        cells[id].metadata[HASH] = digest(without_link(sources[id].source))


def keep(dropped, path):
    """Append texts to a file from which --take can read them, once their ids are put right."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"%% markdown {id}\n{text}\n\n" for id, text in dropped.items())


def update(args, root):
    """Do what the command line says, and return what is left for a person to do, in sentences."""
    paths, problems = [root / ENGLISH, root / CHINESE], []
    if not paths[0].is_file():
        raise EditionsError(f"there is no {paths[0]}.")
    before = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in paths]
    english, chinese = (
        nbformat.reads(text, as_version=4) if text else nbformat.v4.new_notebook()
        for text in before
    )
    chinese, dropped = synced(english, chinese)
    for path in args.take:
        take(read_texts(path), english, chinese)
    known = {id: without_link(cell.source) for id, cell in markdown_cells(chinese).items()}
    take({id: known.get(id, "") for id in args.agree}, english, chinese)
    if dropped and not args.check:
        keep(dropped, root / DROPPED)
        ids = ", ".join(dropped)
        problems.append(f"No English cell has the id {ids} now: the Chinese text is in {DROPPED}.")
    for path, old, new in zip(paths, before, map(as_text, (english, chinese)), strict=True):
        if new != old and args.check:
            problems.append(f"{path.name} is not as `python tools/dev/editions.py` writes it.")
        elif new != old:
            write(path, new)
    missing, stale = to_translate(english, chinese)
    if missing:
        problems.append(f"No Chinese text yet: {', '.join(missing)}.")
    if stale:
        problems.append(f"The English is no longer what was translated: {', '.join(stale)}.")
    return problems


def main(argv=None, root=ROOT):
    """Do what the command line says; the exit status is 0 if nothing is left for a person to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    parser.add_argument("--take", nargs="+", default=[], metavar="FILE", help="texts to put in")
    parser.add_argument("--agree", nargs="+", default=[], metavar="ID", help="still right as it is")
    try:
        problems = update(parser.parse_args(argv), root)
    except (EditionsError, nbformat.reader.NotJSONError) as error:
        problems = [f"Nothing was changed: {error}"]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
