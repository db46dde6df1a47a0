"""The helpers that the notebook imports, one by one."""

import types
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from tutorial import check_folder, explain_skipped_steps, start
from tutorial.draw import epoch_losses, overfits
from tutorial.errors import FolderError
from tutorial.start import in_words, seconds_for, trainable_share
from tutorial.verdict import (
    score,
    short_name,
    show_verdict,
    true_class,
    verdict,
    what_changed,
    what_it_proves,
    wilson,
)

matplotlib.use("Agg")


def make_folder(root, counts):
    """Make small pictures: `counts` maps "split/class" to a number of files."""
    for place, number in counts.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / place / f"{i}.jpg")
    return root


# --- what a count can prove ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(6, 6, 0.6097, 1.0), (33, 33, 0.8957, 1.0), (0, 6, 0.0, 0.3903), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_agrees_with_values_worked_out_by_hand(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-4)


def test_sentence_gives_count_share_and_interval():
    sentence = what_it_proves(6, 6)
    assert "6 of 6 right, 100%" in sentence
    assert "61% to 100%" in sentence


# --- the verdict -----------------------------------------------------------------------------

VOCAB = ["doraemon", "walle"]
FILES = [Path("test/doraemon.1.jpg"), Path("test/walle.2.jpg"), Path("test/holiday.jpg")]
PROBS = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])


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
        ("cat/1.jpg", None),  # only what lies in test is named for its class
    ],
)
def test_true_class_comes_from_folder_or_name(file, truth):
    assert true_class(file, ["cat", "catfish", "control", "test", "walle"]) == truth


def test_a_number_as_class_is_read_whole():
    assert true_class("test/12.jpg", ["1", "12"]) == "12"
    assert true_class("test/10.jpg", ["1", "2"]) is None


def test_names_that_tell_no_class_are_not_counted_as_wrong(tmp_path, capsys):
    make_folder(tmp_path, {"test": 2})
    table = verdict(sorted((tmp_path / "test").glob("*.jpg")), PROBS[:2], VOCAB)
    show_verdict(guess=table)
    assert score(table) == "0 of 0"
    assert "no file name tells a class" in capsys.readouterr().out


def test_verdict_joins_each_file_with_its_own_prediction():
    table = verdict(FILES, PROBS, VOCAB)
    assert list(table.index) == [str(f) for f in FILES]
    assert list(table.guess) == ["doraemon", "doraemon", "walle"]
    assert list(table.verdict) == ["right", "wrong", "unknown"]
    assert list(table.probability) == pytest.approx([0.9, 0.6, 0.8])


def test_verdict_refuses_predictions_that_do_not_fit_the_files():
    with pytest.raises(ValueError, match="do not fit"):
        verdict(FILES[:2], PROBS, VOCAB)
    with pytest.raises(ValueError, match="do not fit"):
        verdict(FILES, PROBS, [*VOCAB, "third"])


def test_no_test_pictures_give_an_empty_table_and_a_sentence(capsys):
    table = verdict([], torch.empty(0, 2), VOCAB)
    show_verdict(guess=table)
    assert table.empty
    assert "no test pictures" in capsys.readouterr().out


def test_show_verdict_names_the_wrong_ones(tmp_path, capsys):
    make_folder(tmp_path, {"test/doraemon": 1, "test/walle": 2})
    files = sorted((tmp_path / "test").rglob("*.jpg"))
    show_verdict(guess=verdict(files, PROBS, VOCAB))
    out = capsys.readouterr().out
    assert "2 of 3 right" in out
    assert "wrong: walle/0.jpg; least sure of walle/0.jpg, 60.0%." in out


def test_what_changed_joins_by_file_not_by_place():
    before = verdict(FILES, PROBS, VOCAB)
    flipped = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.1, 0.9]])
    after = verdict(FILES, flipped, VOCAB).iloc[::-1]  # another order
    sentence = what_changed(before, after)
    assert "Put right: walle.2.jpg" in sentence
    assert "now wrong: none" in sentence
    assert "now wrong: walle.2.jpg" in what_changed(after, before)


# --- overfitting -----------------------------------------------------------------------------


def test_overfits_is_said_when_valid_turns_while_train_falls():
    assert overfits([0.9, 0.5, 0.2], [0.6, 0.4, 0.5]).startswith("Overfitting")


@pytest.mark.parametrize(
    ("train", "valid"),
    [([0.9, 0.5, 0.2], [0.6, 0.5, 0.4]), ([0.9, 0.5, 0.6], [0.6, 0.4, 0.5])]
    + [([0.46, 0.47, 0.37], [0.06, 0.15, 0.08])]  # train loss fell, but not all the way
    + [([0.46, 0.42, 0.37], [0.06, 0.008, 0.012])],  # valid loss rose, but by next to nothing
)
def test_overfits_is_not_said_otherwise(train, valid):
    assert overfits(train, valid).startswith("No sign")


@pytest.mark.parametrize(
    ("train", "valid"),
    [([0.9, float("nan")], [0.6, float("nan")]), ([0.9, 0.5], [float("inf"), 0.4]), ([0.5], [0.4])],
)
def test_a_training_that_failed_or_is_too_short_is_not_called_sound(train, valid):
    assert not overfits(train, valid).startswith(("No sign", "Overfitting"))


def test_epoch_losses_reads_the_columns_by_name():
    names = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    recorder = types.SimpleNamespace(metric_names=names, values=[[3, 2, 0.5], [2, 1, 0.9]])
    assert epoch_losses(recorder) == ([3, 2], [2, 1])


# --- the first cell --------------------------------------------------------------------------


def test_check_folder_counts_pictures_and_ignores_the_rest(tmp_path):
    make_folder(tmp_path, {"train/a": 9, "train/b": 8, "valid/a": 1, "valid/b": 2})
    (tmp_path / "train/a/notes.txt").write_text("not a picture")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    assert check_folder(tmp_path) == {"train": {"a": 9, "b": 8}, "valid": {"a": 1, "b": 2}}


def test_times_are_said_as_a_person_would():
    assert in_words(1) == "about 5 seconds"
    assert in_words(42) == "about 40 seconds"
    assert in_words(170) == "about 3 minutes"


def test_seconds_grow_with_pictures_and_shrink_when_frozen(monkeypatch):
    monkeypatch.setattr(start, "train_rate", lambda: 10.0)
    assert seconds_for(100, 0, 2, frozen=False) == pytest.approx(20)
    assert seconds_for(100, 0, 2, frozen=True) < 20
    assert seconds_for(0, 100, 1, frozen=False) == pytest.approx(3.3)


def test_trainable_share_counts_what_may_change():
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Linear(1, 1))
    model[0].requires_grad_(False)
    assert "6 numbers, 2 may change (33.3%)" in trainable_share(types.SimpleNamespace(model=model))


# --- errors for people -----------------------------------------------------------------------


def test_a_tutorial_error_shows_its_sentence_alone():
    assert FolderError("Do this.")._render_traceback_() == ["FolderError: Do this."]


@pytest.fixture
def shell():
    """A real IPython, as a notebook's kernel has, after step 1."""
    shell = InteractiveShell()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.get_ipython", lambda: shell, raising=False)
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
    assert (f"is made in step {step}," in said) if step else ("Traceback" in said)


def test_the_readers_own_functions_stay(shell):
    shell.run_cell("def record(): return 1\ndef first(): return 2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.get_ipython", lambda: shell, raising=False)
        explain_skipped_steps()  # a second Run All
    assert shell.user_ns["record"]() + shell.user_ns["first"]() == 3


def test_tables_are_plain_pandas():
    assert isinstance(verdict(FILES, PROBS, VOCAB), pd.DataFrame)


def test_test_pictures_of_one_name_are_told_apart():
    files = [Path("/my/test/pictures/test/cat/1.jpg"), Path("/my/test/pictures/test/dog/1.jpg")]
    assert [short_name(file) for file in files] == ["cat/1.jpg", "dog/1.jpg"]
    assert short_name("imgs/test/walle.113.jpg") == "walle.113.jpg"
    assert short_name("elsewhere/1.jpg") == "1.jpg"
    first = verdict(files, torch.tensor([[0.4, 0.6], [0.2, 0.8]]), ["cat", "dog"])
    second = verdict(files, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), ["cat", "dog"])
    assert "cat/1.jpg" in what_changed(first, second)
