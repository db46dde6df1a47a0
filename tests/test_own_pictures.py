"""The same notebook, unchanged, on other people's folders."""

import nbformat
import pytest
from conftest import code_cells
from shapes import make, run


def printed(out):
    """All that the cells of a finished run printed."""
    nb = nbformat.read(out / "demo.ipynb", as_version=4)
    return "".join(o.get("text", "") for cell in code_cells(nb) for o in cell.outputs)


def assert_it_ran(done, out, classes, words):
    assert done.returncode == 0, done.stderr
    said = printed(out)
    assert f"the classes are {', '.join(classes)}" in said
    assert words in said
    assert (out / "demo.html").stat().st_size > 100_000


@pytest.mark.slow
def test_three_classes_and_test_pictures_in_folders(three_classes):
    _, out, done = three_classes
    assert_it_ran(done, out, ["apple", "brick", "cone"], "of 3 right")


@pytest.mark.slow
def test_two_classes_and_no_test_folder(tmp_path):
    imgs, out = make(tmp_path / "my pictures", ["apple", "door"], "none"), tmp_path / "out"
    assert_it_ran(run(imgs, out), out, ["apple", "door"], "There are no test pictures")


def test_a_folder_that_will_not_do_gets_one_sentence(tmp_path):
    imgs = make(tmp_path / "imgs", ["apple", "door"], "none")
    (imgs / "valid").rename(imgs / "check")
    done = run(imgs, tmp_path / "out")
    assert done.returncode == 1
    assert "There is no folder" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
