"""The two editions of the notebook: alike in all but the language, linked section by section."""

import json
import re

import mistune
import nbformat
import pytest
from conftest import NOTEBOOK, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from promises import untouched

from tools.dev import editions
from tools.run_notebook import without_link

CHINESE = ROOT / editions.CHINESE
NOTEBOOKS = {"en": NOTEBOOK, "zh": CHINESE}


@pytest.fixture(scope="module")
def pair():
    """Both editions as raw JSON, so that nothing is mended in reading."""
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in NOTEBOOKS.items()}


def markdown(nb):
    """Text by id of the markdown cells of a notebook in raw JSON."""
    return {c["id"]: "".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown"}


CODE = re.compile(r"(?ms)^```\w*$.*?^```$|(?<!`)(?P<marks>`{1,2})(?!`).+?(?<!`)(?P=marks)(?!`)")


def prose(text):
    """A markdown text without its code."""
    return CODE.sub("", text)


def code(text):
    """All the code in a markdown text, in blocks and in lines."""
    return {found[0] for found in CODE.finditer(text)}


def levels(text):
    """The levels of the headings in a markdown text."""
    return [len(m) for m in re.findall(r"(?m)^(#{1,6})\s", prose(text))]


# --- what is in the repo


def test_both_are_the_same_but_for_the_language(pair):
    metadata, cells = ([nb[key] for nb in pair.values()] for key in ("metadata", "cells"))
    assert metadata[0] == metadata[1]
    for en, zh in zip(*cells, strict=True):
        assert (zh["id"], zh["cell_type"]) == (en["id"], en["cell_type"])
        assert zh == en or en["cell_type"] == "markdown", en["id"]


def test_every_text_is_chinese_and_up_to_date(capsys):
    # --check names the cells: no Chinese, English changed since, links, anything else
    assert editions.main(["--check"]) == 0, capsys.readouterr().err


def test_the_chinese_is_a_translation(pair):
    english, chinese = markdown(pair["en"]), markdown(pair["zh"])
    for id, text in chinese.items():
        said = re.findall(r"[\u4e00-\u9fff]", prose(without_link(text)))
        words = re.findall(r"[A-Za-z]{2,}", prose(without_link(english[id])))
        assert len(said) > len(words) / 2, f"{id} is too short for its English"
        assert levels(text) == levels(english[id]), id
        assert code(text) == code(english[id]), id
        addresses = [set(re.findall(r"\]\((https?:[^)]+)\)", t)) for t in (text, english[id])]
        assert addresses[0] == addresses[1], id


def test_the_chinese_is_set_as_chinese(pair):
    for id, text in markdown(pair["zh"]).items():
        words = re.sub(r"\]\([^)]*\)|https?:\S+|[*_|]", "", prose(without_link(text)))
        words = words.replace("哆啦A梦", "")  # the one name without spaces
        tight = re.search(r"[\u4e00-\u9fff][A-Za-z0-9]|[A-Za-z0-9][\u4e00-\u9fff]", words)
        assert not tight, f"{id}: {tight and tight[0]} wants a space"
        half = re.search(r"[\u4e00-\u9fff] ?[.,;:?!](?!\w)", words)
        assert not half, f"{id}: {half and half[0]} wants Chinese punctuation"


def test_chinese_is_bold_rather_than_slanted(pair):
    """Chinese type has no italics: a browser can only slant the letters, which reads badly."""
    texts = markdown(pair["zh"])
    texts |= {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("*.zh-CN.md")}
    assert len(texts) > len(pair["zh"]["cells"]) / 3 and "README.zh-CN.md" in texts
    for name, text in texts.items():
        slanted = re.findall(r"<em>([^<]*[\u4e00-\u9fff][^<]*)</em>", mistune.html(text))
        assert not slanted, f"{name}: {slanted}"


@pytest.mark.parametrize("edition", NOTEBOOKS)
def test_no_mark_is_left_unrendered(pair, edition):
    """Emphasis that ends between a Chinese full stop and a letter stays as asterisks, for one."""
    render = mistune.create_markdown(plugins=["table"])
    for id, text in markdown(pair[edition]).items():
        shown = re.sub(r"(?s)<(code|pre)\b.*?</\1>|<[^>]+>", "", render(text))
        assert not re.search(r"\*|`|\]\(", shown), f"{id}: {shown}"


@pytest.mark.parametrize("here, there", [("en", "zh"), ("zh", "en")])
def test_every_section_links_to_itself_in_the_other_edition(pair, here, there):
    ids = {cell["id"] for cell in pair[there]["cells"]}
    for id, text in markdown(pair[here]).items():
        links = re.findall(r"\]\(([^)\s]+\.ipynb)#cell-id=([^)\s]+)\)", text)
        assert links == ([(NOTEBOOKS[there].name, id)] if levels(text) else []), id
        assert all(target in ids for _, target in links)


# --- the command


@pytest.fixture
def folder(tmp_path):
    """A small English edition, and the Chinese one made from it; with a space and 中文."""
    root = tmp_path / "a b 中文"
    root.mkdir()
    code = new_code_cell("1 + 1", id="sum", execution_count=1)
    code.outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    cells = [
        new_markdown_cell("# Title\n\nHello.\n", id="title"),  # the blank end is no text
        new_markdown_cell("So.\n\n```\n# no heading\n```", id="so"),
    ]
    save(root / editions.ENGLISH, new_notebook(cells=[*cells, code]))
    (root / "zh.txt").write_text(
        "%% markdown title\n# 题目\n\n你好。\n%% code sum\n1 + 1\n%% markdown so\n这样。\n",
        encoding="utf-8",
    )
    assert editions.main(["--take", str(root / "zh.txt")], root) == 0
    return root


def save(path, nb):
    path.write_text(editions.as_text(nb), encoding="utf-8")


def load(path):
    return nbformat.read(path, as_version=4)


def change(root, id, source, name=editions.ENGLISH):
    """Give one cell another text, as somebody would in JupyterLab."""
    nb = load(root / name)
    next(cell for cell in nb.cells if cell.id == id).source = source
    save(root / name, nb)


def test_take_puts_the_chinese_in(folder):
    english, chinese = load(folder / editions.ENGLISH), load(folder / editions.CHINESE)
    assert english.cells[0].source == "# Title\n\nHello.\n\n[中文](demo.zh-CN.ipynb#cell-id=title)"
    assert chinese.cells[0].source == "# 题目\n\n你好。\n\n[English](demo.ipynb#cell-id=title)"
    assert english.cells[1].source.startswith("So.") and "中文" not in english.cells[1].source
    assert [cell.source for cell in chinese.cells[1:]] == ["这样。", "1 + 1"]
    assert chinese.cells[2] == english.cells[2]
    assert all(cell.metadata[editions.HASH] for cell in chinese.cells[:2])


@pytest.mark.parametrize("arguments", [[], ["--check"], ["--take", "zh.txt"]], ids=str)
def test_doing_it_again_changes_nothing(folder, arguments, monkeypatch):
    monkeypatch.chdir(folder)
    with untouched(folder / editions.ENGLISH), untouched(folder / editions.CHINESE):
        assert editions.main(arguments, folder) == 0


def test_changed_english_is_named_until_somebody_has_looked(folder, capsys):
    change(folder, "title", "# Title\n\nHello.\n\n[中文](somewhere.ipynb#cell-id=else)")
    assert editions.main(["--check"], folder) == 1  # a link is put right, but is no text
    assert editions.ENGLISH in capsys.readouterr().err and editions.main([], folder) == 0
    change(folder, "title", "# Title\n\nHello, you.")
    with untouched(folder):
        assert editions.main(["--check"], folder) == 1
    for _ in range(2):
        capsys.readouterr()
        assert editions.main([], folder) == 1 and "translated: title." in capsys.readouterr().err
    assert load(folder / editions.CHINESE).cells[0].source.startswith("# 题目\n\n你好。")
    assert editions.main(["--agree", "title"], folder) == 0
    change(folder, "so", "So it is.")
    assert editions.main(["--take", str(folder / "zh.txt")], folder) == 0


def test_new_and_moved_cells(folder, capsys):
    nb = load(folder / editions.ENGLISH)
    nb.cells = [nb.cells[1], nb.cells[0], new_markdown_cell("## New", id="new"), nb.cells[2]]
    nb.cells[-1].outputs[0].data["text/plain"] = "3"
    save(folder / editions.ENGLISH, nb)
    assert editions.main([], folder) == 1
    assert "yet: new." in capsys.readouterr().err
    english, chinese = load(folder / editions.ENGLISH), load(folder / editions.CHINESE)
    assert [cell.id for cell in chinese.cells] == ["so", "title", "new", "sum"]
    assert chinese.cells[2].source == "## New\n\n[English](demo.ipynb#cell-id=new)"
    assert chinese.cells[3] == english.cells[3]
    # typed in JupyterLab rather than taken from a file: kept, and to be agreed to
    change(folder, "new", "## 新的", editions.CHINESE)
    assert editions.main([], folder) == 1
    assert editions.main(["--agree", "new"], folder) == 0
    assert "## 新的" in load(folder / editions.CHINESE).cells[2].source


def test_a_vanished_cell_is_not_lost(folder, capsys):
    nb = load(folder / editions.ENGLISH)
    nb.cells[0].id = "heading"
    save(folder / editions.ENGLISH, nb)
    assert editions.main([], folder) == 1
    said = capsys.readouterr().err
    assert "title" in said and "yet: heading." in said
    kept = folder / editions.DROPPED
    kept.write_text(kept.read_text("utf-8").replace("markdown title", "markdown heading"), "utf-8")
    assert editions.main(["--take", str(kept)], folder) == 0
    assert "# 题目\n\n你好。" in load(folder / editions.CHINESE).cells[0].source


@pytest.mark.parametrize(
    "text, says",
    [
        ("%% markdown tilte\n题目\n", "no markdown cell with the id tilte"),
        ("%% markdown sum\n题目\n", "no markdown cell with the id sum"),
        ("%% markdown title\n# Title\n", "no Chinese in the text for title"),
        ("%% markdown title\n题目\n%% markdown title\n题目\n", "%% markdown title"),
        ("%% markdwon title\n题目\n", "%% markdwon title"),
        ("题目\n%% markdown title\n题目\n", "above its first line"),
        (None, "can't be read"),
    ],
)
def test_a_wrong_file_changes_nothing(folder, capsys, text, says):
    if text is not None:
        (folder / "new.txt").write_text(text, encoding="utf-8")
    with untouched(folder):
        assert editions.main(["--take", str(folder / "new.txt")], folder) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("broken", [None, "<<<<<<< ours\n{}"], ids=["missing", "not JSON"])
def test_without_an_english_edition_nothing_is_changed(folder, capsys, broken):
    path = folder / editions.ENGLISH
    path.unlink() if broken is None else path.write_text(broken)
    with untouched(folder):
        assert editions.main([], folder) == 1
    assert capsys.readouterr().err.startswith("Nothing was changed: ")
