"""The fast precision: on during the forward pass, never elsewhere, and float32 at both ends."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.vision.all import (
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Interpretation,
    Learner,
    Normalize,
    Resize,
    accuracy,
    defaults,
    imagenet_stats,
    load_learner,
    set_seed,
)
from PIL import Image
from torch import nn

from tutorial import precision
from tutorial.precision import describe_device, native_precision


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and bright squares: a task that 8 pictures can teach."""
    path = tmp_path_factory.mktemp("imgs")
    noise = np.random.default_rng(0)
    for split in ("train", "valid"):
        for i in range(8):
            file = path / split / ("dark", "light")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 80, (48, 56, 3)) + 170 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return path


@pytest.fixture(autouse=True)
def on_this_cpu(monkeypatch):
    """Keep the tests on the CPU, in one thread; see that none of them leaves autocast on."""
    monkeypatch.setattr(defaults, "use_cuda", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def dtype(request, monkeypatch):
    """Whatever this CPU has, play one that has the unit and one that hasn't."""
    monkeypatch.setattr(precision, "best_dtype", lambda device: request.param)
    return request.param


@pytest.fixture
def bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.bfloat16)


def a_learner(folder, cbs="native", path=None):
    set_seed(0)
    dls = ImageDataLoaders.from_folder(
        folder,
        valid="valid",
        item_tfms=Resize(32),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
        bs=4,
        num_workers=0,
        device="cpu",
    )
    cbs = native_precision() if cbs == "native" else cbs
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)
    )
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    return Learner(
        dls,
        nn.Sequential(body, head),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        cbs=cbs,
        path=path,
    )


class Spy(Callback):
    """Write down what the model computes in."""

    order = 1000

    def before_fit(self):
        self.inside, self.loss_kinds, self.pred_kinds, self.layout = set(), set(), set(), set()
        self.hook = self.model[0].register_forward_hook(self.look)

    def look(self, module, inputs, output):
        self.inside.add(output.dtype)
        self.layout.add(inputs[0].is_contiguous(memory_format=torch.channels_last))

    def after_pred(self):
        self.pred_kinds.add(self.pred.dtype)

    def after_loss(self):
        self.loss_kinds.add(self.loss_grad.dtype)
        assert not torch.is_autocast_enabled("cpu")

    def after_fit(self):
        self.hook.remove()


def test_forward_is_fast_and_the_ends_are_float32(folder, dtype):
    learn, spy = a_learner(folder), Spy()
    learn.add_cb(spy)
    learn.fit_one_cycle(1, 1e-3)
    assert spy.inside == {dtype}
    assert spy.pred_kinds == spy.loss_kinds == {torch.float32}
    assert spy.layout == {True}
    assert learn.model[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    assert np.isfinite(learn.recorder.values[-1]).all()


def test_every_way_of_predicting_works(folder, dtype, tmp_path, monkeypatch):
    learn = a_learner(folder, path=tmp_path)
    file = next((folder / "valid").rglob("*.png"))
    spy = Spy()
    learn.add_cb(spy)
    probs, _ = learn.get_preds()  # before any fit
    assert spy.inside == {dtype} and probs.dtype == torch.float32
    assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-5)
    one = learn.predict(file)[2]
    assert one.dtype == torch.float32 and float(one.sum()) == pytest.approx(1, abs=1e-5)
    loss, _ = learn.validate()
    assert np.isfinite(loss)
    interp = Interpretation.from_learner(learn)
    assert interp.losses.dtype == torch.float32
    learn.lr_find(show_plot=False, num_it=12)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    learn.show_results()


def test_it_learns_as_float32_does(folder, bfloat16):
    probs = {}
    for cbs in ("native", None):
        learn = a_learner(folder, cbs=cbs)
        learn.fit_one_cycle(4, 1e-3)
        assert learn.validate()[1] == 1.0
        probs[cbs] = learn.get_preds()[0]
    assert not torch.equal(probs["native"], probs[None])
    assert torch.allclose(probs["native"], probs[None], atol=0.2)


class Stop(Callback):
    """Raise `error` in the middle of a batch."""

    def __init__(self, error, where):
        self.error, self.where = error, where

    def stop(self):
        if self.training and self.iter == 1:
            raise self.error

    def before_batch(self):
        if self.where == "before_batch":
            self.stop()

    def after_pred(self):
        if self.where == "after_pred":
            self.stop()

    def after_loss(self):
        if self.where == "after_loss":
            self.stop()


class StopInsideModel(Callback):
    """Raise an error between two layers, as Ctrl-C does."""

    def __init__(self, error):
        self.error = error

    def before_fit(self):
        def stop(*args):
            raise self.error

        self.hook = self.model[0][1].register_forward_hook(stop)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("stop"), CancelFitException])
@pytest.mark.parametrize("where", ["before_batch", "model", "after_pred", "after_loss"])
def test_a_stopped_run_leaves_no_trace(folder, bfloat16, error, where, tmp_path):
    learn = a_learner(folder, path=tmp_path)
    cb = StopInsideModel(error) if where == "model" else Stop(error, where)
    caught = (
        nullcontext()
        if error is CancelFitException
        else pytest.raises((KeyboardInterrupt, ValueError))
    )
    with caught, learn.no_bar():
        learn.fit(1, 1e-3, cbs=cb)
    if where == "model":
        cb.hook.remove()
    assert not torch.is_autocast_enabled("cpu")
    if where != "before_batch":
        assert learn.model(torch.zeros(2, 3, 32, 32)).dtype == torch.float32
    spy = Spy()
    learn.fit(1, 1e-3, cbs=spy)
    assert spy.inside == {torch.bfloat16}
    assert "forward" not in vars(learn.model)


def test_a_skipped_batch_leaves_no_trace(folder, bfloat16):
    learn, spy = a_learner(folder), Spy()
    learn.fit(1, 1e-3, cbs=[Stop(CancelBatchException, "before_batch"), spy])
    assert spy.inside == {torch.bfloat16}
    assert "forward" not in vars(learn.model)


def test_a_learner_survives_export(folder, dtype, tmp_path, monkeypatch):
    learn = a_learner(folder, path=tmp_path)
    learn.fit(1, 1e-3)
    learn.export()
    # The machine that loads it has no fast unit: the learner must notice.
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.float32)
    again, spy = load_learner(tmp_path / "export.pkl"), Spy()
    again.add_cb(spy)
    file = next((folder / "valid").rglob("*.png"))
    assert torch.allclose(again.predict(file)[2], learn.predict(file)[2], atol=1e-5)
    assert spy.inside == {torch.float32}


def test_float16_scales_its_gradients(folder, monkeypatch):
    """The way of a GPU without bfloat16, played on the CPU."""
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.float16)
    learn, spy = a_learner(folder), Spy()
    kinds, scales = [], []

    class Look(Callback):
        order = 11  # right after the gradients are scaled back

        def before_backward(self):
            scales.append(float(self.loss_grad.detach() / self.loss))

        def before_step(self):
            kinds.append(max(float(p.grad.abs().max()) for p in self.model.parameters()))

    learn.fit(2, 1e-4, cbs=[Look(), spy])
    assert spy.inside == {torch.float16} and spy.loss_kinds == {torch.float32}
    assert min(scales) > 1000
    assert kinds and max(kinds) < 1000
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@pytest.mark.parametrize(
    ("capabilities", "library", "unit"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True, "AMX"),
        ({"avx512_bf16": True, "avx512_f": True}, True, "AVX512-BF16"),
        ({"avx512_f": True, "avx2": True}, True, ""),
        ({"amx_bf16": True, "avx512_bf16": True}, False, ""),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True, ""),
        ({}, True, ""),
    ],
)
def test_the_cpu_is_recognised(monkeypatch, capabilities, library, unit):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    fast = torch.bfloat16 if unit else torch.float32
    assert precision.best_dtype(torch.device("cpu")) == fast
    device, words = describe_device()
    assert re.fullmatch(r"CPU, (1 core|\d+ cores)", device)
    assert words == (f"bfloat16 ({unit})" if unit else "float32")


@pytest.mark.parametrize(
    ("native", "dtype", "words"),
    [(True, torch.bfloat16, "bfloat16"), (False, torch.float16, "float16")],
)
def test_the_gpu_is_recognised(monkeypatch, native, dtype, words):
    """A T4 can imitate bfloat16, slowly: `including_emulation` must not count."""
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("cuda", 0))
    assert precision.best_dtype(torch.device("cuda")) == dtype
    assert describe_device() == ("Tesla T4", words)


def test_an_apple_gpu_stays_in_float32(monkeypatch):
    monkeypatch.setattr(precision, "default_device", lambda: torch.device("mps"))
    assert describe_device() == ("Apple GPU", "float32")


def test_inputs_that_are_not_pictures_are_left_alone():
    row, words = torch.ones(2, 3), ("a", "b")
    assert precision._channels_last(row) is row and precision._channels_last(words) is words


def test_a_loss_is_computed_in_float32(folder, bfloat16):
    """A loss function that looks at its input."""
    seen = set()

    class Loss(CrossEntropyLossFlat):
        def __call__(self, pred, *args):
            seen.add((pred.dtype, torch.is_autocast_enabled("cpu")))
            return super().__call__(pred, *args)

    learn = a_learner(folder)
    learn.loss_func = Loss()
    learn.fit(1, 1e-3)
    assert seen == {(torch.float32, False)}
