"""The fast precision: on during the forward pass, never elsewhere, and float32 at both ends."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.vision.all import (
    CrossEntropyLossFlat,
    Interpretation,
    Learner,
    accuracy,
    defaults,
    load_learner,
    set_seed,
)
from shapes import loaders, squares
from torch import nn

from tutorial import precision
from tutorial.precision import describe_device, native_precision

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("imgs"), train=8, valid=8)


@pytest.fixture(autouse=True)
def on_this_cpu(monkeypatch):
    """Keep the tests on the CPU, in one thread; see that none of them leaves autocast on."""
    monkeypatch.setattr(defaults, "use_cuda", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture(params=[BF16])
def dtype(request, monkeypatch):
    """Whatever this CPU has, play one that is fastest in this number format."""
    monkeypatch.setattr(precision, "best_dtype", lambda device: request.param)
    return request.param


class Loss(CrossEntropyLossFlat):
    """A loss that notes in what it is computed."""

    def __init__(self):
        super().__init__()
        self.kinds = set()

    def __call__(self, pred, *args):
        self.kinds.add((pred.dtype, torch.is_autocast_enabled("cpu")))
        return super().__call__(pred, *args)


def a_learner(folder, path=None):
    set_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, 2))
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    how = {"loss_func": Loss(), "metrics": accuracy, "cbs": native_precision(), "path": path}
    return Learner(loaders(folder, 32), nn.Sequential(body, head), **how)


class Spy(Callback):
    """Note in which number formats the body computes, and whether pictures come channels-last."""

    def before_fit(self):
        self.inside, self.layout = set(), set()
        self.hook = self.model[0].register_forward_hook(self.look)

    def look(self, module, inputs, output):
        self.inside.add(output.dtype)
        self.layout.add(inputs[0].is_contiguous(memory_format=torch.channels_last))

    def after_fit(self):
        self.hook.remove()


@pytest.mark.parametrize("dtype", [BF16, FP32], indirect=True)
def test_the_forward_pass_is_fast_and_the_ends_are_float32(folder, dtype):
    learn, spy = a_learner(folder), Spy()
    learn.fit_one_cycle(1, 1e-3, cbs=spy)
    assert spy.inside == {dtype} and spy.layout == {True}
    assert learn.loss_func.kinds == {(FP32, False)}
    assert learn.model[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in learn.model.parameters()} == {FP32}
    assert np.isfinite(learn.recorder.values[-1]).all()


def test_every_way_of_predicting_works(folder, dtype, tmp_path, monkeypatch):
    learn, spy = a_learner(folder, path=tmp_path), Spy()
    learn.add_cb(spy)
    probs, _ = learn.get_preds()  # before any fit
    assert spy.inside == {dtype} and probs.dtype == FP32
    one = learn.predict(next((folder / "valid").rglob("*.png")))[2]
    assert one.dtype == FP32 and float(one.sum()) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(learn.validate()[0])
    assert Interpretation.from_learner(learn).losses.dtype == FP32
    learn.lr_find(show_plot=False, num_it=12)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    learn.show_results()


class Stop(Callback):
    """Raise an error at an event of the second batch, or between two layers, as Ctrl-C may."""

    def __init__(self, error, where):
        self.error, self.where = error, where

    def before_fit(self):
        layer = self.model[0][1]
        self.hook = layer.register_forward_hook(lambda *_: self.stop("inside the model"))

    def __call__(self, event_name):
        super().__call__(event_name)
        self.stop(event_name)

    def stop(self, where):
        if where == self.where and self.training and self.iter == 1:
            self.hook.remove()
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, CancelFitException, CancelBatchException])
@pytest.mark.parametrize("where", ["before_batch", "inside the model", "after_pred", "after_loss"])
def test_a_run_that_is_stopped_leaves_no_trace(folder, dtype, error, where):
    learn, stop = a_learner(folder), Stop(error, where)
    with suppress(KeyboardInterrupt), learn.no_bar():
        learn.fit(1, 1e-3, cbs=stop)
    assert not torch.is_autocast_enabled("cpu")
    if where != "before_batch":  # then the next forward pass is still to come
        assert learn.model(torch.zeros(2, 3, 32, 32)).dtype == FP32
    spy = Spy()
    with learn.no_bar():
        learn.fit(1, 1e-3, cbs=spy)
    assert spy.inside == {BF16} and "forward" not in vars(learn.model)


def test_an_exported_learner_adapts_to_the_machine_that_loads_it(
    folder, dtype, tmp_path, monkeypatch
):
    learn, spy = a_learner(folder, path=tmp_path), Spy()
    learn.fit(1, 1e-3)
    learn.export()
    monkeypatch.setattr(precision, "best_dtype", lambda device: FP32)
    again = load_learner(tmp_path / "export.pkl")
    again.add_cb(spy)
    file = next((folder / "valid").rglob("*.png"))
    assert torch.allclose(again.predict(file)[2], learn.predict(file)[2], atol=1e-5)
    assert spy.inside == {FP32}


@pytest.mark.parametrize("dtype", [FP16], indirect=True)
def test_float16_scales_its_gradients(folder, dtype):
    """The way of a GPU without bfloat16, played on the CPU."""
    learn, spy = a_learner(folder), Spy()
    steps, scales = [], []

    class Look(Callback):
        order = 11  # right after the gradients are scaled back

        def before_backward(self):
            scales.append(float(self.loss_grad.detach() / self.loss.detach()))

        def before_step(self):
            steps.append(max(float(p.grad.abs().max()) for p in self.model.parameters()))

    learn.fit(2, 1e-4, cbs=[Look(), spy])
    assert spy.inside == {FP16} and learn.loss_func.kinds == {(FP32, False)}
    assert min(scales) > 1000 > max(steps)
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@pytest.mark.parametrize(
    ("capabilities", "library", "unit"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True, "AMX"),
        ({"avx512_bf16": True, "avx512_f": True}, True, "AVX512-BF16"),
        ({"avx512_f": True, "avx2": True}, True, None),
        ({"amx_bf16": True, "avx512_bf16": True}, False, None),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True, None),
    ],
)
def test_the_cpu_is_recognised(monkeypatch, capabilities, library, unit):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    assert precision.best_dtype(torch.device("cpu")) == (BF16 if unit else FP32)
    device, words = describe_device()
    assert device.startswith("CPU, ")
    assert words == (f"bfloat16 ({unit})" if unit else "float32")


@pytest.mark.parametrize(
    ("device", "native", "dtype", "words"),
    [
        ("cuda:0", True, BF16, ("Tesla T4", "bfloat16")),
        # A T4 can imitate bfloat16, slowly: `including_emulation` must not count.
        ("cuda:0", False, FP16, ("Tesla T4", "float16")),
        ("mps", False, FP32, ("Apple GPU", "float32")),
    ],
)
def test_a_gpu_is_recognised(monkeypatch, device, native, dtype, words):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(precision, "default_device", lambda: torch.device(device))
    assert precision.best_dtype(torch.device(device)) == dtype
    assert describe_device() == words
