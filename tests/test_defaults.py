"""The callbacks that `fast_defaults` gives to every learner: once, and the same as by hand."""

import ctypes
import sys

import numpy as np
import psutil
import pytest
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import BnFreeze
from fastai.vision.all import ImageDataLoaders, Learner, Resize, accuracy, set_seed, vision_learner
from fastai.vision.all import defaults as fastai_defaults
from PIL import Image

from tutorial import defaults, precision
from tutorial.backbone import resnet34
from tutorial.defaults import OURS, StillBody, TidyMemory, fast_defaults
from tutorial.luck import train_head
from tutorial.precision import describe_device, native_precision
from tutorial.record import run_record
from tutorial.rivals import frozen_features


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """fastai's own list of callbacks, and one thread; both are put back afterwards."""
    stock = [callback for callback in fastai_defaults.callbacks if callback not in OURS]
    monkeypatch.setattr(fastai_defaults, "callbacks", stock)
    monkeypatch.setattr(fastai_defaults, "use_cuda", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and light squares of noise, eight to learn from and eight to check on."""
    noise, path = np.random.default_rng(0), tmp_path_factory.mktemp("imgs")
    for split in ("train", "valid"):
        for i in range(8):
            file = path / split / ("dark", "light")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 80, (48, 56, 3)) + 170 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return path


def load(folder):
    set_seed(0)
    return ImageDataLoaders.from_folder(
        folder, valid="valid", item_tfms=Resize(64), bs=4, num_workers=0, device="cpu"
    )


def build(folder, **options):
    return vision_learner(load(folder), resnet34, metrics=accuracy, **options)


def train(learn):
    """Train as the notebook does; return all numbers of the network."""
    set_seed(1)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 3e-3)
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-5, 3e-4))
    return list(learn.model.state_dict().values())


def ours(learn):
    """The kinds of our callbacks that a learner has, in order."""
    return [type(cb) for cb in learn.cbs if type(cb) in OURS]


def test_to_call_it_again_changes_nothing(folder):
    assert ours(build(folder)) == []
    for _ in range(3):
        fast_defaults()
    assert ours(build(folder)) == list(OURS)
    assert [fastai_defaults.callbacks.count(callback) for callback in OURS] == [1] * len(OURS)


def test_the_plain_line_trains_as_the_settings_by_hand_do(folder):
    by_hand = {"train_bn": False, "cbs": [native_precision(), BnFreeze]}
    wanted = train(build(folder, **by_hand))
    stock = train(build(folder))
    fast_defaults()
    found = train(build(folder))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found, stock, strict=True))


def test_the_frozen_body_has_nothing_left_to_learn(folder):
    assert [p for p in build(folder).model[0].parameters() if p.requires_grad]  # stock: batch norms
    fast_defaults()
    learn = build(folder)
    assert not [p for p in learn.model[0].parameters() if p.requires_grad]
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())


def test_a_learner_may_do_without_one(folder):
    fast_defaults()
    learn = build(folder)
    learn.remove_cb(StillBody)
    assert ours(learn) == [callback for callback in OURS if callback is not StillBody]
    train(learn)


def test_heads_on_features_stay_in_float32(folder):
    """They are small, and were so before there were defaults."""
    x, y = torch.randn(16, 20), torch.arange(16) % 2
    _, before = train_head((x, y), (x, y), seed=1, epochs=1, rate=1e-2)
    fast_defaults()
    head, after = train_head((x, y), (x, y), seed=1, epochs=1, rate=1e-2)
    assert (before == after).all() and ours(build(folder))


def test_features_are_the_same_with_and_without(folder):
    learn = build(folder)
    files = list(learn.dls.valid_ds.items)
    before = frozen_features(learn, files)
    fast_defaults()
    assert torch.equal(frozen_features(learn, files), before)


# --- whoever adds a precision again


def tiny(folder, cbs=None):
    """A learner of two layers, which is quick in any number format."""
    dls = load(folder)  # which seeds chance
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.AdaptiveAvgPool2d(1))
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
    model = torch.nn.Sequential(body, head)
    return Learner(dls, model, loss_func=torch.nn.CrossEntropyLoss(), cbs=cbs)


class Inside:
    """A look into the body, to write down in which number format it works."""

    def __init__(self, learn):
        self.kinds = set()
        learn.model[0][0].register_forward_hook(lambda *seen: self.kinds.add(seen[-1].dtype))


@pytest.mark.parametrize("when", ["at once", "later"])
def test_the_same_precision_twice_is_as_once(folder, monkeypatch, when):
    # float16 is the touchy one: its gradients are scaled, which must not be done twice.
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.float16)
    fast_defaults()
    once = train(tiny(folder))
    learn = tiny(folder, native_precision() if when == "at once" else None)
    if when == "later":
        learn.add_cb(native_precision())
    inside = Inside(learn)
    assert all(torch.equal(a, b) for a, b in zip(train(learn), once, strict=True))
    assert inside.kinds == {torch.float16}
    with learn.no_bar():
        assert learn.get_preds()[0].dtype == torch.float32


class Another(MixedPrecision):
    """A precision of somebody else's: as fastai's own, which works on graphics cards alone."""

    def before_fit(self):
        pass

    before_batch = after_pred = after_loss = before_backward = after_step = after_fit = before_fit

    def before_step(self):
        pass


def test_another_precision_that_is_added_takes_its_place(folder, monkeypatch):
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.bfloat16)
    fast_defaults()
    learn = tiny(folder)

    def recorded():
        return run_record(learn.dls, folder, learn, 1, [], {})["precision"]

    train(learn)
    assert recorded() == describe_device()[1]
    learn.add_cb(Another())  # as `learn.to_fp16()` would
    inside = Inside(learn)
    train(learn)
    assert inside.kinds == {torch.float32} and recorded() == "mixed precision"
    learn.remove_cb(MixedPrecision)  # as `learn.to_fp32()` does
    assert recorded() == "float32"


# --- memory


def test_memory_is_given_back_after_training_only(folder, monkeypatch):
    given = []
    monkeypatch.setattr(defaults, "_give_memory_back", lambda: given.append(True))
    learn = tiny(folder, TidyMemory)
    learn.fit(1, 1e-3)
    assert given == [True]
    learn.get_preds()
    learn.predict(next((folder / "valid").rglob("*.png")))
    assert given == [True]


def test_memory_is_given_back_during_a_long_training_too(folder, monkeypatch):
    at = []
    learn = tiny(folder, TidyMemory)
    monkeypatch.setattr(defaults, "_give_memory_back", lambda: at.append(learn.train_iter))
    monkeypatch.setattr(defaults, "TIDY_EVERY", 2)
    learn.fit(3, 1e-3)
    batches = 3 * len(learn.dls.train)
    assert batches >= 4
    assert at == [*range(2, batches + 1, 2), batches]  # the last time at the end of the training
    learn.get_preds()
    assert at[-1] == batches and len(at) == batches // 2 + 1


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="a matter of glibc",
)
def test_what_is_freed_between_blocks_in_use_is_given_back():
    blocks = [bytearray(b"x" * 100_000) for _ in range(3000)]  # small enough for the common heap
    kept = blocks[::100]
    full = psutil.Process().memory_info().rss
    del blocks
    defaults._give_memory_back()
    assert psutil.Process().memory_info().rss < full - 200e6
    assert len(kept) == 30
