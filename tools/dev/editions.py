"""Keep demo.zh-CN.ipynb the same as demo.ipynb in all but the language of its text.

    python tools/editions.py                   bring the Chinese edition up to date
    python tools/editions.py --check           only say what is not up to date
    python tools/editions.py --take FILE ...   put the Chinese texts of these files in
    python tools/editions.py --agree ID ...    the Chinese of these cells is right as it stands

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

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # as a script, this file's own folder stands there instead
    sys.path.insert(0, str(ROOT))

from tools.run_notebook import as_text, without_link, write  # noqa: E402

ENGLISH, CHINESE = "demo.ipynb", "demo.zh-CN.ipynb"
DROPPED = Path("out") / "dropped.zh.txt"  # Chinese texts whose English cell is gone
HASH = "translates"


class EditionsError(Exception):
    """Nothing was written; the message says what is wrong and what to do."""


def text_of(cell):
    """The source of a markdown cell without the link to the other edition."""
    return without_link(cell.source)


def has_heading(text):
    """Whether a heading stands in this markdown, outside blocks of code."""
    return bool(re.search(r"(?m)^#{1,6}\s", re.sub(r"(?ms)^```.*?^```", "", text)))


def with_link(text, id, word, notebook):
    """The text, and below it the link to the same cell of the other edition if it has a heading."""
    return f"{text}\n\n[{word}]({notebook}#cell-id={id})" if has_heading(text) else text


def digest(text):
    """Eight hexadecimal digits that tell one English text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def is_chinese(text):
    """Whether there is any Chinese character in it."""
    return bool(re.search(r"[\u4e00-\u9fff]", text))


def markdown_cells(nb):
    """The markdown cells by their ids."""
    return {cell.id: cell for cell in nb.cells if cell.cell_type == "markdown"}


def linked(english):
    """A copy of the English edition whose links are right."""
    nb = copy.deepcopy(english)
    for cell in markdown_cells(nb).values():
        cell.source = with_link(text_of(cell), cell.id, "中文", CHINESE)
    return nb


def synced(english, chinese):
    """The Chinese edition as it should be.

    Parameters
    ----------
    english, chinese : NotebookNode
        Neither is changed.

    Returns
    -------
    nb : NotebookNode
        The English edition, with the Chinese text in each markdown cell that has one.
    dropped : dict of str
        By id, the Chinese texts for which the English edition has no cell.
    """
    nb, old = copy.deepcopy(english), markdown_cells(chinese)
    for cell in markdown_cells(nb).values():
        text, known = text_of(cell), old.pop(cell.id, None)
        if known is not None and is_chinese(text_of(known)):
            text = text_of(known)
            if HASH in known.metadata:
                cell.metadata[HASH] = known.metadata[HASH]
        cell.source = with_link(text, cell.id, "English", ENGLISH)
    return nb, {id: text_of(cell) for id, cell in old.items() if is_chinese(cell.source)}


def to_translate(english, chinese):
    """What waits for a translator.

    Returns
    -------
    missing, stale : list of str
        Ids of the cells without Chinese text, and of those of which nobody has said that they are
        right for the English text as it is now.
    """
    missing, stale = [], []
    for id, cell in markdown_cells(chinese).items():
        if not is_chinese(text_of(cell)):
            missing.append(id)
        elif cell.metadata.get(HASH) != digest(text_of(markdown_cells(english)[id])):
            stale.append(id)
    return missing, stale


def read_texts(path):
    """The markdown texts of a file for --take, by id.

    Raises
    ------
    EditionsError
        If the file can't be read, has text before its first cell, or names a cell twice.
    """
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
    """Put Chinese texts into the (synced) Chinese edition, as translations of today's English.

    Raises
    ------
    EditionsError
        If one has no cell, or no Chinese in it; then none is taken.
    """
    sources, cells = markdown_cells(english), markdown_cells(chinese)
    if unknown := [id for id in texts if id not in cells]:
        raise EditionsError(f"{ENGLISH} has no markdown cell with the id {', '.join(unknown)}.")
    if foreign := [id for id, text in texts.items() if not is_chinese(without_link(text))]:
        raise EditionsError(f"There is no Chinese in the text for {', '.join(foreign)}.")
    for id, text in texts.items():
        cells[id].source = with_link(without_link(text), id, "English", ENGLISH)
        cells[id].metadata[HASH] = digest(text_of(sources[id]))


def keep_dropped(dropped, path):
    """Append texts to a file from which --take can read them, once their ids are put right."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"%% markdown {id}\n{text}\n\n" for id, text in dropped.items())


def main(argv=None, root=ROOT):
    """Do what the command line says; the exit status is 0 if nothing is left for a person to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    parser.add_argument("--take", nargs="+", default=[], metavar="FILE", help="texts to put in")
    parser.add_argument("--agree", nargs="+", default=[], metavar="ID", help="still right as it is")
    args = parser.parse_args(argv)
    paths = [root / ENGLISH, root / CHINESE]
    try:
        if not paths[0].is_file():
            raise EditionsError(f"there is no {paths[0]}.")
        before = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in paths]
        english, chinese = (
            nbformat.reads(text, as_version=4) if text else nbformat.v4.new_notebook()
            for text in before
        )
        english = linked(english)
        chinese, dropped = synced(english, chinese)
        for path in args.take:
            take(read_texts(path), english, chinese)
        known = {id: text_of(cell) for id, cell in markdown_cells(chinese).items()}
        take({id: known.get(id, "") for id in args.agree}, english, chinese)
    except (EditionsError, nbformat.reader.NotJSONError) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    problems = []
    if dropped and not args.check:
        keep_dropped(dropped, root / DROPPED)
        ids = ", ".join(dropped)
        problems.append(f"No English cell has the id {ids} now: the Chinese text is in {DROPPED}.")
    for path, old, nb in zip(paths, before, (english, chinese), strict=True):
        if (text := as_text(nb)) != old:
            if args.check:
                problems.append(f"{path.name} is not as `python tools/editions.py` would write it.")
            else:
                write(path, text)
    missing, stale = to_translate(english, chinese)
    if missing:
        problems.append(f"No Chinese text yet: {', '.join(missing)}.")
    if stale:
        problems.append(f"The English is no longer what was translated: {', '.join(stale)}.")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
