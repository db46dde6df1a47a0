"""The solutions of the exercises: whole, the same in both editions, and they run."""

import ast
import hashlib
import re

import nbformat
import pytest
from conftest import NOTEBOOK, ROOT

from tutorial.hints import step_of

CHINESE = ROOT / "demo.zh-CN.ipynb"
EXERCISES = 8
IN_PART_1 = {name for name, step in step_of().items() if step <= 15}
FOLD = re.compile(r"(?ms)^<details><summary>[^<]+</summary>\n\n(.*?)\n\n</details>$")
CODE = re.compile(r"(?ms)^```python\n(.*?)\n```$")


def folds(notebook):
    """The inside of every folded solution of a notebook, in order."""
    nb = nbformat.read(notebook, as_version=4)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    return [inside for text in texts for inside in FOLD.findall(text)]


def solutions(notebook=NOTEBOOK):
    """The code of every folded solution of a notebook, in order."""
    return [code for inside in folds(notebook) for code in CODE.findall(inside)]


@pytest.fixture(params=range(EXERCISES), ids=lambda i: f"exercise-{i + 1}")
def solution(request):
    """The code of one solution."""
    found = solutions()
    assert len(found) == EXERCISES
    return found[request.param]


def test_every_exercise_has_one_folded_solution():
    texts = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "markdown"]
    tasks = re.findall(r"(?m)^\*\*(\d)\. [^*]+\*\* \S", "\n".join(texts))
    assert tasks == [str(n) for n in range(1, EXERCISES + 1)]
    assert len(solutions()) == len(folds(NOTEBOOK)) == EXERCISES


def test_a_solution_needs_no_more_than_part_1(solution):
    names = [node for node in ast.walk(ast.parse(solution)) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    assert not {node.id for node in names} & (step_of().keys() - IN_PART_1 - bound)
    assert not bound & IN_PART_1, "it takes away what the notebook needs"


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
