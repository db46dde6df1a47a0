"""The callbacks that `fast_defaults` gives to every learner: once, and the same as by hand."""

import pytest
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import BnFreeze
from fastai.vision.all import Learner, accuracy, set_seed, vision_learner
from fastai.vision.all import defaults as fastai_defaults
from shapes import loaders, squares

from tutorial import defaults, precision, run_record
from tutorial.backbone import resnet34
from tutorial.defaults import OURS, TidyMemory, fast_defaults
from tutorial.precision import native_precision


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
    return squares(tmp_path_factory.mktemp("imgs"), train=8, valid=8)


def load(folder):
    set_seed(0)
    return loaders(folder)


def build(folder, **options):
    return vision_learner(load(folder), resnet34, metrics=accuracy, **options)


def tiny(folder, cbs=None):
    """A learner of two layers, which is quick in any number format."""
    dls = load(folder)  # which seeds chance
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.AdaptiveAvgPool2d(1))
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
    model = torch.nn.Sequential(body, head)
    return Learner(dls, model, loss_func=torch.nn.CrossEntropyLoss(), cbs=cbs)


def weights(learn):
    return torch.cat([t.detach().flatten() for t in learn.model.state_dict().values()])


def train(learn):
    """Train as the notebook does; return the network's weights after each of the two stages."""
    set_seed(1)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 3e-3)
        head = weights(learn)
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-5, 3e-4))
    return head, weights(learn)


def ours(learn):
    """The kinds of our callbacks that a learner has."""
    return [type(cb) for cb in learn.cbs if type(cb) in OURS]


def test_to_call_it_again_changes_nothing_and_one_may_be_left_out(folder):
    assert ours(tiny(folder)) == []
    for _ in range(3):
        fast_defaults()
    assert ours(tiny(folder)) == list(OURS)
    learn = tiny(folder).remove_cb(TidyMemory)
    assert set(ours(learn)) == {*OURS} - {TidyMemory}
    train(learn)


def test_the_plain_line_trains_as_the_settings_by_hand_do(folder):
    by_hand = train(build(folder, train_bn=False, cbs=[native_precision(), BnFreeze]))
    fast_defaults()
    learn = build(folder)
    body = torch.cat([t.flatten() for t in learn.model[0].state_dict().values()]).clone()
    assert not [p for p in learn.model[0].parameters() if p.requires_grad]
    head, tuned = train(learn)
    assert torch.equal(head, by_hand[0]) and torch.equal(tuned, by_hand[1])
    # Batch norms and all, the body stands still while the head learns, and moves afterwards.
    assert torch.equal(head[: len(body)], body) and not torch.equal(tuned[: len(body)], body)
    assert all(p.requires_grad for p in learn.model.parameters())


# --- whoever adds a precision again


class Inside:
    """A look into the body, to note in which number format it works."""

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
    assert torch.equal(train(learn)[1], once[1])
    assert inside.kinds == {torch.float16}
    with learn.no_bar():
        assert learn.get_preds()[0].dtype == torch.float32


class Another(MixedPrecision):
    """A precision of somebody else's: as fastai's own, which works on graphics cards alone."""

    def before_fit(self):
        pass

    before_batch = after_pred = after_loss = before_backward = after_step = after_fit = before_fit
    before_step = before_fit


def test_another_precision_that_is_added_takes_its_place(folder, monkeypatch):
    monkeypatch.setattr(precision, "best_dtype", lambda device: torch.bfloat16)
    fast_defaults()
    learn = tiny(folder)
    inside = Inside(learn)
    for change, kind, recorded in (
        (None, torch.bfloat16, "bfloat16"),
        (Another(), torch.float32, "mixed precision"),  # as `learn.to_fp16()` does
        (MixedPrecision, torch.float32, "float32"),  # as `learn.to_fp32()` does
    ):
        if change is not None:
            (learn.add_cb if recorded == "mixed precision" else learn.remove_cb)(change)
        inside.kinds.clear()
        train(learn)
        assert inside.kinds == {kind}
        assert run_record(learn.dls, folder, learn, 1, [], {})["precision"].startswith(recorded)


# --- memory


def test_memory_is_given_back_now_and_then_and_after_training(folder, monkeypatch):
    at = []
    learn = tiny(folder, TidyMemory)
    monkeypatch.setattr(defaults, "_give_memory_back", lambda: at.append(learn.train_iter))
    monkeypatch.setattr(defaults, "TIDY_EVERY", 4)
    with learn.no_bar():
        learn.fit(3, 1e-3)
        assert len(learn.dls.train) == 2 and at == [4, 6]
        learn.get_preds()
        learn.predict(learn.dls.valid_ds.items[0])
    assert at == [4, 6]
