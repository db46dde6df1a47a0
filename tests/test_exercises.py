"""The solutions of the exercises: whole, short, the same in both editions, and they run."""

import ast
import builtins
import hashlib
import re

import nbformat
import pytest
from conftest import NOTEBOOK, ROOT

CHINESE = ROOT / "demo.zh-CN.ipynb"
EXERCISES = 8
FOLD = re.compile(r"(?ms)^<details><summary>[^<]+</summary>\n\n(.*?)\n\n</details>$")
CODE = re.compile(r"(?ms)^```python\n(.*?)\n```$")
# What Part I leaves behind, apart from what its two `import *` bring.
MADE_IN_PART_I = set(
    "path dls learn right valid_probs valid_truth interp test_files probs guesses first history"
    " valid_probs_tuned tuned_right probs_tuned second summary".split()
)
# Calls that would write a file, fetch one, or ask for a graphics card.
FORBIDDEN = {"open", "save", "export", "write_text", "write_bytes", "to_csv", "mkdir", "unlink"}
FORBIDDEN |= {"untar_data", "download_url", "urlopen", "cuda", "to_fp16", "savefig", "rename"}


def folds(notebook):
    """The inside of every folded solution of a notebook, in order."""
    nb = nbformat.read(notebook, as_version=4)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    return [inside for text in texts for inside in FOLD.findall(text)]


def solutions(notebook=NOTEBOOK):
    """The code of every folded solution of a notebook, in order."""
    return [code for inside in folds(notebook) for code in CODE.findall(inside)]


def names_in(code):
    """The names that a piece of code binds, and those it reads; as two sets."""
    bound, read = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name)
    return bound, read


def calls_in(code):
    """The names of all functions and methods that a piece of code calls or hands on."""
    tree = ast.walk(ast.parse(code))
    return {getattr(node, "attr", getattr(node, "id", None)) for node in tree} - {None}


@pytest.fixture(params=range(EXERCISES), ids=lambda i: f"exercise-{i + 1}")
def solution(request):
    """The code of one solution."""
    found = solutions()
    assert len(found) == EXERCISES
    return found[request.param]


def test_every_exercise_has_one_folded_solution_that_says_what_to_look_for():
    texts = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "markdown"]
    tasks = re.findall(r"(?m)^\*\*(\d)\. [^*]+\*\* \S", "\n".join(texts))
    assert tasks == [str(n) for n in range(1, EXERCISES + 1)]
    inside = folds(NOTEBOOK)
    assert len(inside) == EXERCISES == sum(text.count("<details>") for text in texts)
    for text in inside:
        assert len(CODE.findall(text)) == 1
        assert 5 < len(CODE.sub("", text).split()) < 70


def test_a_solution_is_short_and_uses_only_what_part_1_made(solution):
    from fastai.vision import all as vision

    import tutorial

    lines = [line for line in solution.splitlines() if line.strip()]
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 100
    bound, read = names_in(solution)
    known = MADE_IN_PART_I | set(tutorial.__all__) | set(dir(vision)) | set(dir(builtins))
    assert read - bound <= known
    assert not bound & MADE_IN_PART_I, "it takes away a name that the notebook needs"
    assert not calls_in(solution) & FORBIDDEN
    imported = re.findall(r"(?m)^\s*(?:from|import)\s+(\w+)", solution)
    assert set(imported) <= {"PIL"}


def test_what_part_1_makes_is_there(executed):
    assert executed.value(f"sorted({MADE_IN_PART_I} - set(globals()))") == []


def test_a_solution_runs_without_network_and_changes_nothing(executed, solution):
    executed.do("import socket\ndef _off(*_): raise OSError('no network here')")
    executed.do("socket.socket.connect = _off")
    weights = "[float(p.double().sum()) for p in learn.model.state_dict().values()]"
    before = executed.value(weights), files()
    try:
        outputs = executed.cell(solution)
    finally:
        executed.do("del socket.socket.connect")
    assert not [out for out in outputs if out.output_type == "error"]
    assert [out for out in outputs if out.get("text") or out.get("data")], "it shows nothing"
    assert (executed.value(weights), files()) == before


def test_another_press_shows_another_batch(executed):
    shown = [str([out.get("data") for out in executed.cell(solutions()[0])]) for _ in range(2)]
    assert shown[0] != shown[1]


@pytest.mark.skipif(not CHINESE.exists(), reason="there is no Chinese edition yet")
def test_the_chinese_edition_has_the_same_solutions():
    assert solutions(CHINESE) == solutions()
    for text in folds(CHINESE):
        assert re.search("[\u4e00-\u9fff]", CODE.sub("", text))


def files():
    """A fingerprint of the pictures, and what lies at the top of the repo."""
    pictures = sorted(p for p in (ROOT / "imgs").rglob("*") if p.is_file())
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in pictures]
    top = sorted(p.name for p in ROOT.iterdir() if not p.name.startswith("."))
    return hashlib.sha256(repr((stamps, top)).encode()).hexdigest()
