"""The 2018 map: today's lines stand in the notebook, and the old ones do say what it claims.

Each old cell of the table runs in one fresh Python process, on a small folder of pictures.
"""

import ast
import builtins
import json
import re
import subprocess
import sys
from importlib.metadata import version

import nbformat
import numpy as np
import pytest
from conftest import NOTEBOOK, ROOT, code_cells
from PIL import Image

CHINESE = NOTEBOOK.with_name("demo.zh-CN.ipynb")
SIZE = (96, 72)  # of the pictures, in pixels
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")

# Where the table says "works, but means something else": what is true after the old cell has run.
OTHERWISE = {
    "6": "abs(max(learn.recorder.hps['lr']) - 1e-3) < 1e-6",
    "b": f"_.valid_ds[0][0].size == {SIZE} and not hasattr(_, 'test_ds')"
    " and not any(isinstance(t, AffineCoordTfm) for t in _.train.after_batch.fs)",
}
# What else the reasons in the last column say.
REASONS = {
    "2": "path == Path('imgs')",
    "13": "torch.equal(_, probs.argmax(dim=1))",
    "14": "len({h['lr'] for h in learn.opt.hypers}) == 3",
    "f": "any(isinstance(t, Normalize) for t in data.train.after_batch.fs)",
}

RUNNER = """
import ast, json, sys, warnings
from pathlib import Path

task, answer = json.load(sys.stdin), Path(sys.argv[1])

def run(cell, names):
    "What a cell raises, warns of, and leaves behind; its last value is called _."
    *body, last = ast.parse(cell).body
    raised = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            exec(compile(ast.Module(body, []), "old", "exec"), names)
            if isinstance(last, ast.Expr):
                names["_"] = eval(compile(ast.Expression(last.value), "old", "eval"), names)
            else:
                exec(compile(ast.Module([last], []), "old", "exec"), names)
        except Exception as e:
            raised = f"{type(e).__name__}: {e}"
    said = {True: [], False: []}
    for w in warned:
        # As Python does by default: of deprecations, a reader sees only those of the own lines.
        seen = not issubclass(w.category, DeprecationWarning) or w.filename == "old"
        said[seen].append(f"{w.category.__name__}: {w.message}")
    return {"raised": raised, "warned": said[True], "hidden": said[False]}

(first, imports), *others = task["old"].items()
names = {}
said = {first: run(imports, names)}
said[first]["brought"] = [n for n in names if not n.startswith("_")]

today = {}
exec(task["imports"], today)
exec(task["stand_ins"], today)
for number, cell in others:
    names = dict(today)
    said[number] = run(cell, names)
    if number in task["true"] and not said[number]["raised"]:
        said[number]["true"] = bool(eval(task["true"][number], names))
answer.write_text(json.dumps(said))
"""

STAND_INS = """
path = Path("imgs")
data = ImageDataLoaders.from_folder(
    path, item_tfms=Resize(32), batch_tfms=aug_transforms(), bs=4, num_workers=0
)
learn = vision_learner(data, resnet34, metrics=accuracy)
interp = ClassificationInterpretation.from_learner(learn)
probs, _ = learn.get_preds(dl=data.test_dl(get_image_files(path / "test").sorted()))
preds = probs
"""


def read(notebook):
    """The map's text, and its rows: number to old code, today's, what the old one says, and why."""
    nb = nbformat.read(notebook, as_version=4)
    text = next(cell.source for cell in nb.cells if cell.id == "map-2018")
    rows = {}
    for line in text.splitlines():
        if line.startswith("|") and re.match(r"\| (\d+|[a-z]) \|", line):
            number, then, now = (cell.strip() for cell in line.strip("|").split("|"))
            old, says = then.split("<br>→ ")
            today, why = now.rsplit("<br>", 1)
            rows[number] = [old, today, says, why]
    return text, rows


def codes(column):
    """The pieces of code in a column, without their backticks."""
    return [found[1].strip() if "`" in found[1] else found[1] for found in CODE.findall(column)]


def words(column):
    """What a column says besides its code."""
    return CODE.sub("", column).strip()


@pytest.fixture(scope="module")
def rows():
    return read(NOTEBOOK)[1]


@pytest.fixture(scope="module")
def said(rows, stored, tmp_path_factory):
    """Per row, what the old cell raised, and what it warned of."""
    root = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(0)
    places = [f"train/{c}/{i}.jpg" for c in ("doraemon", "walle") for i in range(8)]
    places += [f"valid/{c}/{i}.jpg" for c in ("doraemon", "walle") for i in range(5)]
    places += [f"test/{c}.{i}.jpg" for c in ("doraemon", "walle") for i in range(2)]
    for place in places:
        (root / "imgs" / place).parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "imgs" / place)
    task = {
        "old": {number: "\n".join(codes(row[0])) for number, row in rows.items()},
        "imports": next(cell.source for cell in code_cells(stored) if cell.id == "import"),
        "stand_ins": STAND_INS,
        "true": OTHERWISE | REASONS,
    }
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import matplotlib; "
    done = subprocess.run(
        [sys.executable, "-c", start + "matplotlib.use('Agg')\n" + RUNNER, str(root / "said.json")],
        cwd=root,
        input=json.dumps(task),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((root / "said.json").read_text())


def test_the_map_has_the_17_cells_of_the_article(rows):
    numbers = [n for n in rows if n.isdigit()]
    assert numbers == [str(n) for n in range(1, 18)]
    assert list(rows) == numbers + list("abcdefgh")


def test_the_map_names_the_versions_it_was_measured_with():
    text, _ = read(NOTEBOOK)
    assert f"fastai {version('fastai')} on PyTorch {version('torch').split('+')[0]}" in text


def test_todays_lines_are_the_ones_in_the_notebook(rows, stored):
    here = {
        ast.unparse(node)
        for cell in code_cells(stored)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, (ast.stmt, ast.expr))
    }
    for number, row in rows.items():
        today = codes(row[1])
        assert today or re.fullmatch(r"as in row \d+", row[1]), f"row {number}"
        for line in today:
            assert ast.unparse(ast.parse(line).body[0]) in here, f"row {number}: {line}"


@pytest.mark.slow
def test_the_old_cells_say_what_the_map_says(rows, said):
    for number, row in rows.items():
        heard, claim = said[number], row[2]
        quoted = "".join(codes(claim))
        kind = getattr(builtins, quoted.split(":")[0], None) if quoted else None
        if not quoted:
            assert heard["raised"] is None, f"row {number}: {heard}"
            assert words(claim) in ("works", "works, but means something else")
        elif issubclass(kind, Warning):
            assert heard["raised"] is None, f"row {number}: {heard}"
            which = {"works, but warns:": "warned", "works, with a hidden": "hidden"}[words(claim)]
            assert any(w.startswith(quoted) for w in heard[which]), f"row {number}: {heard}"
        else:
            assert (heard["raised"] or "").startswith(quoted), f"row {number}: {heard}"
            assert not words(claim)


@pytest.mark.slow
def test_what_the_map_says_of_meanings_and_reasons_is_so(rows, said):
    assert {n for n, row in rows.items() if "something else" in row[2]} == set(OTHERWISE)
    assert said["1"]["brought"] == []  # the first two of the old imports do nothing
    assert {n: said[n].get("true") for n in OTHERWISE | REASONS} == dict.fromkeys(
        OTHERWISE | REASONS, True
    )


@pytest.mark.skipif(not CHINESE.exists(), reason="there is no Chinese edition yet")
def test_both_editions_have_the_same_map(rows):
    text, chinese = read(CHINESE)
    assert list(chinese) == list(rows)
    pairs = set()
    for number, row in rows.items():
        other = chinese[number]
        assert [codes(c) for c in row[:3]] == [codes(c) for c in other[:3]], f"row {number}"
        assert sorted(codes(row[3])) == sorted(codes(other[3])), f"row {number}"
        pairs.add((words(row[2]), words(other[2])))
    # One English word for one Chinese, in the column of what the old cells say.
    assert len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs})
    assert version("fastai") in text
