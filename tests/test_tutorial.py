"""The helpers of Part I: the first cell, the verdict, overfitting, and hints for people."""

import types
from pathlib import Path

import matplotlib
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from tutorial import check_folder, explain_skipped_steps, start
from tutorial.draw import overfits
from tutorial.errors import FolderError
from tutorial.start import in_words, seconds_for, trainable_share
from tutorial.verdict import (
    score,
    show_verdict,
    true_class,
    verdict,
    what_changed,
    what_it_proves,
    wilson,
)

matplotlib.use("Agg")
NAN = float("nan")
VOCAB = ["doraemon", "walle"]
FILES = [Path("test/doraemon.1.jpg"), Path("test/walle.2.jpg"), Path("test/holiday.jpg")]
PROBS = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])


def make_folder(root, counts):
    """Make small pictures: `counts` maps "split/class" to a number of files."""
    for place, number in counts.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / place / f"{i}.jpg")
    return sorted(root.rglob("*.jpg"))


# --- the verdict


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(6, 6, 0.6097, 1.0), (0, 6, 0.0, 0.3903), (5, 10, 0.2366, 0.7634)],
)
def test_an_accuracy_and_its_interval_are_those_worked_out_by_hand(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-4)
    for words in (f"{right} of {total} ", f"{right / total:.0%}", f"{low:.0%} to {high:.0%}"):
        assert words in what_it_proves(right, total)


@pytest.mark.parametrize(
    ("file", "truth"),
    [
        ("test/walle.7.jpg", "walle"),
        ("test/walle/7.jpg", "walle"),
        ("test/WALLE_7.JPG", "walle"),
        ("test/catfish.1.jpg", "catfish"),
        ("test/cat.1.jpg", "cat"),
        ("test/7.jpg", None),
        ("test/catalog.1.jpg", None),
        ("test/Walle/7.jpg", "walle"),
        ("test/walle7.jpg", "walle"),
        ("imgs/test/control.1.jpg", "control"),  # and not the folder's name
        ("imgs/test/test/1.jpg", "test"),
        ("cat/7.jpg", None),  # only what lies in test is named for its class
        ("test/12.jpg", "12"),
        ("test/13.jpg", None),  # not of class 1
    ],
)
def test_true_class_comes_from_folder_or_name(file, truth):
    assert true_class(file, ["1", "12", "cat", "catfish", "control", "test", "walle"]) == truth


def test_the_verdict_joins_each_file_with_its_own_prediction():
    table = verdict(FILES, PROBS, VOCAB)
    assert list(table.index) == [str(f) for f in FILES]
    assert list(table.guess) == ["doraemon", "doraemon", "walle"]
    assert list(table.verdict) == ["right", "wrong", "unknown"]
    assert list(table.probability) == pytest.approx([0.9, 0.6, 0.8])
    assert score(table) == "1 of 2"


@pytest.mark.parametrize(("files", "vocab"), [(FILES[:2], VOCAB), (FILES, [*VOCAB, "third"])])
def test_predictions_that_do_not_fit_the_files_are_refused(files, vocab):
    with pytest.raises(ValueError, match="predicts the test files"):
        verdict(files, PROBS, vocab)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"test/doraemon": 1, "test/walle": 2}, ["2 of 3", "walle/0.jpg", "60.0%"]),
        ({"test": 3}, ["no file name tells a class"]),
        ({}, ["no test pictures"]),
    ],
)
def test_what_was_right_is_drawn_and_said(tmp_path, capsys, counts, words):
    files = make_folder(tmp_path, counts)
    show_verdict(guess=verdict(files, PROBS[: len(files)], VOCAB))
    said = capsys.readouterr().out
    assert all(word in said for word in words), said


def test_what_changed_joins_by_file_and_tells_files_of_one_name_apart():
    files = [Path("/my/test/pictures/test/cat/1.jpg"), Path("/my/test/pictures/test/dog/1.jpg")]
    before, after = (
        verdict(files, torch.tensor(p), ["cat", "dog"])
        for p in ([[0.4, 0.6], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]])
    )
    right, wrong = what_changed(before, after.iloc[::-1]).split(";")  # another order
    assert " cat/1.jpg" in right and "none" in wrong
    right, wrong = what_changed(after, before).split(";")
    assert "none" in right and " cat/1.jpg" in wrong


# --- overfitting


@pytest.mark.parametrize(
    ("train", "valid", "words"),
    [
        ([0.9, 0.5, 0.2], [0.6, 0.4, 0.5], "Overfitting"),
        ([0.9, 0.5, 0.2], [0.6, 0.5, 0.4], "No sign"),
        ([0.9, 0.5, 0.6], [0.6, 0.4, 0.5], "No sign"),
        ([0.46, 0.47, 0.37], [0.06, 0.15, 0.08], "No sign"),  # train fell, but not all the way
        ([0.46, 0.42, 0.37], [0.06, 0.008, 0.012], "No sign"),  # valid rose by next to nothing
        ([0.9, NAN], [0.6, NAN], "failed"),
        ([0.9, 0.5], [float("inf"), 0.4], "failed"),
        ([0.5], [0.4], "can't show"),
    ],
)
def test_overfitting_is_said_when_valid_turns_while_train_falls(train, valid, words):
    assert words in overfits(train, valid)


# --- the first cell


def test_pictures_are_counted_and_the_rest_is_ignored(tmp_path):
    make_folder(tmp_path, {"train/a": 9, "train/b": 8, "valid/a": 1, "valid/b": 2})
    (tmp_path / "train/a/notes.txt").write_text("not a picture")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    assert check_folder(tmp_path) == {"train": {"a": 9, "b": 8}, "valid": {"a": 1, "b": 2}}


def test_a_folder_error_shows_its_sentence_alone(tmp_path):
    with pytest.raises(FolderError) as caught:
        check_folder(tmp_path)
    assert caught.value._render_traceback_() == [f"FolderError: {caught.value}"]


def test_times_grow_with_pictures_and_are_said_as_a_person_would(monkeypatch):
    assert [in_words(t) for t in (1, 42)] == ["about 5 seconds", "about 40 seconds"]
    assert in_words(170) == "about 3 minutes"
    monkeypatch.setattr(start, "train_rate", lambda: 10.0)
    assert seconds_for(100, 0, 2, frozen=False) == pytest.approx(20)
    assert seconds_for(100, 0, 2, frozen=True) < 20
    assert 0 < seconds_for(0, 100, 1, frozen=False) < 5


def test_trainable_share_counts_what_may_change():
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Linear(1, 1))
    model[0].requires_grad_(False)
    said = trainable_share(types.SimpleNamespace(model=model))
    assert " 6 " in said and " 2 " in said and "33.3%" in said


# --- a skipped step


@pytest.fixture
def shell(monkeypatch):
    """A real IPython, as a notebook's kernel has, after step 1."""
    shell = InteractiveShell()
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    shell.run_cell("from fastai.vision.all import *")
    explain_skipped_steps()
    return shell


@pytest.mark.parametrize(
    ("cell", "step"),
    [
        ("dls", 2),
        ("first", 10),  # fastai has a function of this name
        ("print(history)", 12),
        ("unheard_of", None),
        ("def mine():\n    return history\nmine()", None),  # not the notebook's: a function's own
    ],
)
def test_a_skipped_step_is_named(shell, capsys, cell, step):
    shell.run_cell(cell)
    said = capsys.readouterr().out
    assert (f"step {step}," in said) if step else ("Traceback" in said)


def test_the_readers_own_functions_stay(shell):
    shell.run_cell("def record(): return 1\ndef first(): return 2")
    explain_skipped_steps()  # a second Run All
    assert shell.user_ns["record"]() + shell.user_ns["first"]() == 3
