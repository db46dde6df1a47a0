"""What leaves the notebook: the record for a paper, and the network, whole and safe."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.models as tvm
from conftest import ROOT
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    defaults,
    set_seed,
    vision_learner,
)
from limits import needs_root, ordinary_user, public, read_only, small_disk  # noqa: F401
from PIL import Image
from promises import keeps, untouched
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.models import resnet18

from tutorial import share
from tutorial.backbone import resnet34
from tutorial.defaults import OURS
from tutorial.download import sha256
from tutorial.errors import TutorialError
from tutorial.files import write_whole
from tutorial.paragraph import methods
from tutorial.precision import describe_device
from tutorial.record import hash_pictures, run_record, write_record
from tutorial.share import ask, load_weights, results_folder, save_weights
from tutorial.verdict import verdict, wilson

SCHEDULE = [("the head", 1, 3e-3), ("all layers", 2, slice(1e-4, 1e-3))]
BODY_SHA256 = (ROOT / "weights" / "SHA256SUMS").read_text().split()[0]


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu_in_one_thread():
    threads, cuda = torch.get_num_threads(), defaults.use_cuda
    torch.set_num_threads(1)
    defaults.use_cuda = False
    yield
    torch.set_num_threads(threads)
    defaults.use_cuda = cuda


def make_folder(path, classes=("dark", "light")):
    """Noise around a grey of its own for each class; the names are not all English."""
    noise = np.random.default_rng(0)
    for split, many in (("train", 8), ("valid", 4), ("test", 2)):
        for i in range(many):
            name = classes[i % len(classes)]
            file = path / split / name / f"{name} 图.{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 80, (40, 50, 3)) + 170 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return path


def load(path):
    return ImageDataLoaders.from_folder(
        path,
        valid="valid",
        item_tfms=Resize(64),
        batch_tfms=aug_transforms(),
        bs=8,
        num_workers=0,
        device="cpu",
    )


def build(dls):
    return vision_learner(dls, resnet34, metrics=accuracy, cbs=OURS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pictures") / "我的 squares")


@pytest.fixture(scope="module")
def learn(folder):
    set_seed(0)
    learn = build(load(folder))
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 3e-3)
        learn.unfreeze()
        learn.fit_one_cycle(2, slice(1e-4, 1e-3))
        learn.get_preds()  # as in the notebook, others ask before the record is made
    return learn


@pytest.fixture(scope="module")
def table(folder, learn):
    """The verdict on the test pictures, and one that no name tells a class of."""
    files = sorted((folder / "test").rglob("*.png"))
    with learn.no_bar():
        probs, _ = learn.get_preds(dl=learn.dls.test_dl(files))
    found = verdict(files, probs, learn.dls.vocab)
    found.loc[str(folder / "test" / "stray.png")] = [None, "dark", 0.5, "unknown"]
    return found


@pytest.fixture(scope="module")
def record(folder, learn, table):
    figures = {
        "validation": (np.int64(3), 4),
        "test": table,
        "nobody": (0, 0),
        "losses": ([0.5, float("nan")], torch.tensor([0.25])),
        "rivals": pd.DataFrame({"right": [1, 2]}, index=["colour", "network"]),
    }
    return run_record(learn.dls, folder, learn, 42, figures=figures)


# --- the record


def test_the_record_survives_json(record, tmp_path):
    file = tmp_path / "new" / "run.json"
    write_record({**record, "seed": 1}, file)
    write_record(record, file)  # an earlier one is overwritten
    assert json.loads(file.read_text(encoding="utf-8")) == record
    assert [p.name for p in file.parent.iterdir()] == ["run.json"]


def test_the_record_says_what_was_used(record, folder, learn):
    assert record["pictures"]["train"] == {"dark": 4, "light": 4}
    assert record["pictures"]["valid"] == {"dark": 2, "light": 2}
    assert record["pictures"]["test"] == 2
    assert record["pictures"]["folder"] == "我的 squares"
    assert str(folder.parent) not in json.dumps(record, ensure_ascii=False)
    assert record["input"] == {
        "pixels": [64, 64],
        "fitted": "crop",
        "batch": 8,
        "normalised": True,
        "augmentation": ["flip", "rotate", "zoom", "warp", "brightness", "contrast"],
    }
    assert record["network"]["architecture"] == "resnet34"
    assert record["network"]["body"] == {"which": "bundled", "sha256": BODY_SHA256}
    assert record["training"]["schedule"][1]["rates"] == [1e-4, 1e-3]
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert record["precision"] == describe_device()[1]
    assert record["seed"] == 42


def test_counts_get_their_interval_and_all_else_stays(record, table):
    figures = record["figures"]
    assert (figures["validation"]["right"], figures["validation"]["total"]) == (3, 4)
    assert figures["validation"]["interval_95"] == list(wilson(3, 4))
    assert figures["test"]["total"] == 2  # the stray is kept but not counted
    assert figures["test"]["right"] == int((table.verdict == "right").sum())
    assert [row["file"] for row in figures["test"]["rows"]][2] == "test/stray.png"
    assert figures["nobody"]["interval_95"] is None
    assert figures["losses"] == [[0.5, None], [0.25]]
    assert figures["rivals"][1] == {"index": "network", "right": 2}


def test_the_record_names_the_body_that_was_used(folder, learn, tmp_path, monkeypatch):
    """Not the one that BODY would give by now: the file may have changed since, or be gone."""
    file = tmp_path / "mine.pth"
    torch.save(tvm.resnet34().state_dict(), file)
    mine = {"which": "file", "sha256": sha256(file)}
    monkeypatch.setenv("BODY", str(file))
    supplied = build(learn.dls)
    grey = vision_learner(learn.dls, resnet34, n_in=1)  # fastai makes its first layer anew
    file.unlink()
    scratch = vision_learner(learn.dls, resnet18, pretrained=False)
    fastais = vision_learner(learn.dls, resnet18, pretrained=False)
    fastais.pretrained = True  # as if fastai had downloaded one
    for made, name, body, words in (
        (supplied, "resnet34", mine, "weights that we supplied (SHA-256"),
        (grey, "resnet34", mine, "weights that we supplied"),
        (scratch, "resnet18", {"which": "random", "sha256": None}, "random numbers, its head"),
        (fastais, "resnet18", {"which": "other", "sha256": None}, "the weights that fastai"),
    ):
        record = run_record(learn.dls, folder, made, 1, SCHEDULE)
        assert (record["network"]["architecture"], record["network"]["body"]) == (name, body)
        assert f"its body initialised with {words}" in methods(record)


def test_pictures_that_were_squeezed_are_not_called_cropped(record):
    squeezed = {**record, "input": {**record["input"], "fitted": "squish"}}
    assert "Pictures were squeezed to 64" in methods(squeezed)


def test_a_record_of_an_earlier_version_is_put_into_words(record):
    """It did not say how pictures were fitted, nor how each training went, nor how many trained."""
    before = copy.deepcopy(record)
    del before["input"]["fitted"], before["training"]["processes"]
    for stage in before["training"]["schedule"]:
        del stage["planned"], stage["one_cycle"]
    before["training"]["callbacks"].remove("still_body")
    before["training"]["callbacks"].append("bn_freeze")
    cropped, resized = "scaled and cropped to 64", "resized to 64"
    assert methods(record).replace(cropped, resized) == methods(before) != methods(record)


def test_only_real_trainings_are_noted(folder, learn, tmp_path, monkeypatch):
    """`lr_find` has `learn` fit, too, and was once taken for the last training."""
    monkeypatch.setattr(learn, "path", tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=8, show_plot=False)
        learn.validate()
    for said in (None, SCHEDULE):
        training = run_record(learn.dls, folder, learn, 42, said)["training"]
        assert training["schedule"] == [
            {"layers": layers, "epochs": n, "planned": n, "rates": rates, "one_cycle": True}
            for layers, n, rates in (
                ("the head", 1, [3e-3, 3e-3]),
                ("all layers", 2, [1e-4, 1e-3]),
            )
        ]


def test_a_training_that_was_stopped_or_had_no_cycle_is_called_so(folder):
    def stop(learn):
        raise KeyboardInterrupt

    learn = build(load(folder))
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(KeyboardInterrupt):
            learn.fit_one_cycle(3, 1e-3, cbs=Callback(before_validate=stop))
        learn.freeze_to(1)
        learn.fit(1, 1e-3)
    schedule = run_record(learn.dls, folder, learn, 1)["training"]["schedule"]
    assert [(fit["epochs"], fit["planned"], fit["one_cycle"]) for fit in schedule] == [
        (1, 3, True),
        (1, 1, False),
    ]
    text = methods(run_record(learn.dls, folder, learn, 1))
    assert "trained in this order: the head for 1 of 3 planned epochs at" in text
    assert "then the last 2 of 3 groups of layers for 1 epoch at" in text


def test_a_schedule_that_nobody_knows_or_that_was_not_followed(folder, learn):
    for last in (("all layers", 3, slice(1e-4, 1e-3)), ("all layers", 2, slice(1e-4, 1e-2))):
        with pytest.raises(TutorialError) as caught:
            run_record(learn.dls, folder, learn, 42, [SCHEDULE[0], last])
        keeps("a record of another schedule than was trained", str(caught.value))
    with pytest.raises(TutorialError) as caught:
        run_record(learn.dls, folder, build(learn.dls), 42)
    keeps("a record of a learner that has noted no training", str(caught.value))


def test_what_json_cannot_hold_is_named(folder, learn):
    with pytest.raises(TutorialError, match="'mine' holds a Learner") as caught:
        run_record(learn.dls, folder, learn, 42, figures={"mine": [learn]})
    keeps("a figure that a record can't hold", str(caught.value))


@pytest.mark.parametrize("content", ["my notes", '{"mine": 1}', "[1]", ""])
def test_a_file_of_somebody_else_is_not_overwritten(record, tmp_path, content):
    file = tmp_path / "run.json"
    file.write_text(content)
    with untouched(tmp_path), pytest.raises(TutorialError) as caught:
        write_record(record, file)
    keeps("a record over a file of yours", str(caught.value))


# --- the hash


SUMS = "find . -name '*.png' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


def test_the_hash_is_that_of_sha256sum(record, tmp_path):
    """Of any name that a disk takes, be it no UTF-8; and the record can hold such a name, too."""
    names = [os.fsdecode(name) for name in (b"\xff.png", "a/é.png".encode(), "😀 b.png".encode())]
    (tmp_path / "a").mkdir()
    try:
        for name in names:
            (tmp_path / name).write_bytes(b"a picture")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this disk takes no such names")
    files = [tmp_path / name for name in names]
    told = subprocess.run(SUMS, shell=True, cwd=tmp_path, capture_output=True).stdout.decode()
    assert hash_pictures(files, tmp_path) == hash_pictures(files[::-1], tmp_path) == told[:64]
    with pytest.raises(TutorialError, match="the folder that `dls` was made from"):
        hash_pictures(files, tmp_path / "a")
    for _ in range(2):  # the second time it must be known as a record
        write_record({**record, "figures": {"test": names}}, tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["figures"] == {"test": names}
    assert "é" in (tmp_path / "run.json").read_text("utf-8")


def test_the_hash_feels_every_byte_and_name_but_not_the_clock(tmp_path):
    folder = make_folder(tmp_path / "imgs")

    def now():
        return hash_pictures(folder.rglob("*.png"), folder)

    before, file = now(), next(folder.rglob("*.png"))
    os.utime(file, (0, 0))
    folder = folder.rename(tmp_path / "moved")
    assert now() == before
    file = next(folder.rglob("*.png"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert now() != before
    file.write_bytes(whole)
    assert now() == before
    file = file.rename(file.with_name("renamed.png"))
    assert now() != before
    file.unlink()
    assert now() != before


# --- the paragraph


def test_the_paragraph_holds_the_figures_of_the_record(record):
    text = methods(json.loads(json.dumps(record)))
    assert "\n" not in text
    low, high = record["figures"]["validation"]["interval_95"]
    for words in (
        record["pictures"]["sha256"],
        f"bundled weights, trained on generated pictures (SHA-256 {BODY_SHA256})",
        "dark (4), light (4)",
        "the validation set 4; the test set 2",
        "Pictures were scaled and cropped to 64 × 64 pixels",
        "the head for 1 epoch at a learning rate of up to 0.003",
        "all layers for 2 epochs at discriminative learning rates",
        "0.0001 in the first layers and 0.001 in the head",
        "while frozen, the body's batch-norm layers kept their statistics",
        record["precision"],
        record["device"],
        *(record["versions"][name] for name in ("python", "fastai", "torch", "torchvision")),
        "the random seed was 42",
        f"validation: 3 of 4 (75.0%, {low:.1%} to {high:.1%})",
        f"test: {record['figures']['test']['right']} of 2",
    ):
        assert words in text, words
    assert "nobody" not in text
    for work in ("residual learning", "disciplined approach", "Universal language model", "Wilson"):
        assert work in text, work


def test_the_paragraph_cites_only_what_it_used(folder, learn):
    plain = vision_learner(learn.dls, resnet34)  # notes nothing
    text = methods(run_record(learn.dls, folder, plain, [1, 2], [("all layers", 2, 1e-3)]))
    assert "discriminative" not in text and "Universal language model" not in text
    assert "Wilson" not in text and "No accuracy was recorded." in text
    assert "the random seeds were 1, 2" in text


# --- safetensors


def test_the_same_numbers_give_the_same_answers(folder, learn, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights(learn, file)
    save_weights(learn, file)  # its own file may be overwritten
    with safe_open(file, "pt") as opened:
        assert {opened.get_tensor(k).dtype for k in opened.keys()} == {torch.float32, torch.int64}
    other = build(load(folder))
    with learn.no_bar(), other.no_bar():
        expected, _ = learn.get_preds()
        assert not torch.allclose(other.get_preds()[0], expected, atol=1e-4)
        load_weights(other, file)
        assert torch.equal(other.get_preds()[0], expected)


def test_weights_that_do_not_fit_change_nothing(folder, learn, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights(learn, file)
    classes = build(load(make_folder(tmp_path / "others", ["black", "white"])))
    network = vision_learner(learn.dls, resnet18, pretrained=False)
    for other, case in (
        (classes, "weights of other classes"),
        (network, "weights of another network"),
    ):
        before = {name: t.clone() for name, t in other.model.state_dict().items()}
        with untouched(tmp_path), pytest.raises(TutorialError) as caught:
            load_weights(other, file)
        keeps(case, str(caught.value))
        assert all(torch.equal(before[name], t) for name, t in other.model.state_dict().items())


def test_files_that_are_no_weights_of_ours(learn, tmp_path):
    with pytest.raises(TutorialError) as caught:
        load_weights(learn, tmp_path / "none.safetensors")
    keeps("weights that are not there", str(caught.value))
    text, foreign, cut = (tmp_path / f"{n}.safetensors" for n in ("text", "foreign", "cut"))
    text.write_text("my notes")
    save_file({"a": torch.zeros(2)}, foreign)
    save_weights(learn, cut)
    cut.write_bytes(cut.read_bytes()[:-10])
    for file in (text, foreign, cut):
        with untouched(tmp_path), pytest.raises(TutorialError) as caught:
            load_weights(learn, file)
        keeps("weights cut short", str(caught.value))
        with untouched(tmp_path), pytest.raises(TutorialError) as caught:
            save_weights(learn, file)
        keeps("saving weights over a file of yours", str(caught.value))


@needs_root
def test_weights_without_a_place(learn, tmp_path, public):  # noqa: F811
    with small_disk(tmp_path / "full", "1m") as full:
        with pytest.raises(TutorialError) as caught:
            save_weights(learn, full / "weights.safetensors")
        assert not list(full.iterdir())
    keeps("no room for the weights", str(caught.value))
    public.chmod(0o755)
    with untouched(public), ordinary_user(), pytest.raises(TutorialError) as caught:
        save_weights(learn, public / "weights.safetensors")
    keeps("saving weights where nothing can be written", str(caught.value))
    with read_only(tmp_path / "locked") as locked, untouched(locked):
        for write in (lambda file: save_weights(learn, file), lambda file: write_whole(file, "a")):
            with pytest.raises(TutorialError) as caught:
                write(locked / "weights.safetensors")
            keeps("saving weights where nothing can be written", str(caught.value))


# --- asking


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_answer(folder, learn, tmp_path):
    file = tmp_path / "learner.pkl"
    picture = next((folder / "test").rglob("*.png"))
    learn.export(file)
    program = (
        "import sys\nfrom fastai.vision.all import load_learner\n"
        "learn = load_learner(sys.argv[1])\n"
        "with learn.no_bar(): print(*learn.predict(sys.argv[2]), sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program, file, picture],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    with learn.no_bar():  # exporting has not hurt it
        guess, number, probs = learn.predict(picture)
    assert len(learn.dls.train_ds) == 8
    said = done.stdout.strip().split("|")
    assert said[:2] == [guess, str(number)]
    assert np.allclose(eval(said[2], {"tensor": np.array}), probs.numpy(), atol=1e-3)


def test_ask_takes_a_path_or_the_content(folder, learn):
    picture = next((folder / "test" / "light").rglob("*.png"))
    with learn.no_bar():
        guess, _, probs = learn.predict(picture)
    expected = f"{guess}, {probs.max():.1%}"
    assert ask(learn, picture) == ask(learn, str(picture)) == expected
    assert ask(learn, picture.read_bytes()) == expected


def test_ask_says_what_is_no_picture(folder, learn, tmp_path):
    (tmp_path / "notes.jpg").write_text("my notes")
    whole = next((folder / "test").rglob("*.png")).read_bytes()
    for picture, case in (
        (tmp_path / "none.jpg", "asking about a picture that is not there"),
        (tmp_path / "notes.jpg", "asking about a file that is no picture"),
        (b"", "asking about an upload cut short"),
        (whole[: len(whole) // 2], "asking about an upload cut short"),
    ):
        with untouched(tmp_path), pytest.raises(TutorialError) as caught:
            ask(learn, picture)
        keeps(case, str(caught.value))


# --- where results go


def test_results_go_where_out_says(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUT", str(tmp_path / "mine" / "here"))
    assert results_folder() == tmp_path / "mine" / "here"
    monkeypatch.setenv("OUT", "")
    assert results_folder() == Path("out")
    assert (tmp_path / "out").is_dir() and not list((tmp_path / "out").iterdir())
    assert capsys.readouterr().out == ""


def test_a_read_only_copy_gets_a_temporary_folder_and_a_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(share.tempfile, "tempdir", str(tmp_path))
    share._temporary_folder.cache_clear()
    (tmp_path / "out").write_text("a file where the folder should be")
    monkeypatch.delenv("OUT", raising=False)
    folder = results_folder()
    assert folder.is_dir() and folder == results_folder()
    assert f"so results go to {folder}" in capsys.readouterr().out
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    with untouched(tmp_path), pytest.raises(TutorialError) as caught:
        results_folder()
    keeps("OUT can't be written to, in the notebook", str(caught.value))
    share._temporary_folder.cache_clear()


@needs_root
def test_a_full_disk_is_said_before_anything_is_saved(monkeypatch, tmp_path):
    with small_disk(tmp_path / "full", "1m") as full, untouched(full):
        monkeypatch.setenv("OUT", str(full))
        with pytest.raises(TutorialError) as caught:
            results_folder()
    keeps("no room for the results", str(caught.value))
