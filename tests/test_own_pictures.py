"""The same notebook, unchanged, on other people's folders."""

import os
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from conftest import ROOT, code_cells
from PIL import Image, ImageDraw

SHAPES = {"apple": "ellipse", "brick": "rectangle", "cone": "polygon", "door": "line"}


def draw(shape, rng):
    """A picture of one shape, in a random colour and place."""
    picture = Image.new("RGB", (96, 72), tuple(int(c) for c in rng.integers(0, 256, 3)))
    x, y = (int(v) for v in rng.integers(5, 40, 2))
    box = [x, y, x + 30, y + 25]
    if shape == "polygon":
        box = [x, y + 25, x + 15, y, x + 30, y + 25]
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
    return picture


def make(root, classes, tests):
    """A folder of the tutorial's layout; `tests` is "none" or "folders"."""
    rng = np.random.default_rng(0)
    for name in classes:
        places = [root / "train" / name / f"{i}.jpg" for i in range(16 // len(classes) + 1)]
        places += [root / "valid" / name / f"{i}.jpg" for i in range(2)]
        if tests == "folders":
            places.append(root / "test" / name / "0.jpg")
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            draw(SHAPES[name], rng).save(place)
    return root


def run(imgs, out):
    """`make run` on a folder, without the set-up."""
    return subprocess.run(
        [sys.executable, "tools/run_notebook.py", "demo.ipynb"],
        cwd=ROOT,
        env=dict(os.environ, IMGS=str(imgs), OUT=str(out), BODY="bundled"),
        capture_output=True,
        text=True,
    )


def printed(out):
    """All that the cells of a finished run printed."""
    nb = nbformat.read(out / "demo.ipynb", as_version=4)
    return "".join(o.get("text", "") for cell in code_cells(nb) for o in cell.outputs)


@pytest.mark.parametrize(
    ("classes", "tests", "words"),
    [
        (["apple", "brick", "cone"], "folders", "of 3 right"),
        (["apple", "door"], "none", "There are no test pictures"),
    ],
    ids=["three-classes-test-in-folders", "no-test-folder"],
)
def test_the_notebook_runs_on_other_folders(tmp_path, classes, tests, words):
    done = run(make(tmp_path / "我的 pictures", classes, tests), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    said = printed(tmp_path / "out")
    assert f"the classes are {', '.join(classes)}" in said
    assert words in said
    assert (tmp_path / "out" / "demo.html").stat().st_size > 100_000


def test_a_folder_that_will_not_do_gets_one_sentence(tmp_path):
    imgs = make(tmp_path / "imgs", ["apple", "door"], "none")
    (imgs / "valid").rename(imgs / "check")
    done = run(imgs, tmp_path / "out")
    assert done.returncode == 1
    assert "There is no folder" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
