"""EfficientNet-Lite0: the right weights in the right layers, and in resnet34's place everywhere."""

import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest
import timm
import torch
from fastai.vision.all import Normalize, accuracy, load_learner, set_seed, vision_learner
from promises import keeps
from shapes import loaders, squares

from tutorial import ask, backbone, draw, efficientnet, look, methods, run_record
from tutorial.backbone import BodyError, body_in_use
from tutorial.defaults import OURS
from tutorial.efficientnet import efficientnet_lite0
from tutorial.rivals import frozen_features

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing said or found yet, and any use of the network fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(backbone, "_said", set())
    efficientnet._find.cache_clear()
    yield
    efficientnet._find.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("imgs"), train=8, valid=4, test=2)


def build(dls):
    return vision_learner(dls, efficientnet_lite0, metrics=accuracy, cbs=OURS)


@pytest.fixture(scope="module")
def learn(folder):
    """Trained as in the notebook: the head, then all layers; `stages` are its weights by then."""
    set_seed(0)
    learn = build(loaders(folder))
    learn.stages = []

    def keep():
        learn.stages.append({name: t.clone() for name, t in learn.model.state_dict().items()})

    with learn.no_bar(), learn.no_logging():
        keep()
        learn.fit_one_cycle(1, 3e-3)
        keep()
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-5, 3e-4))
        keep()
    return learn


# --- its weights


def test_it_answers_as_the_network_that_its_weights_were_made_for():
    """The figures are those of efficientnet-lite-pytorch 0.1.0, the package by the same authors."""
    y, x = torch.meshgrid(*[torch.linspace(-3, 3, 224)] * 2, indexing="ij")
    picture = torch.stack([torch.sin(2 * x + y), torch.cos(x * y), torch.sin(x - 3 * y)])[None]
    with torch.no_grad():
        answer = efficientnet_lite0(weights="DEFAULT").eval()(picture)[0]
    assert answer.topk(5).indices.tolist() == [641, 885, 782, 409, 747]
    some = [0.21001, -0.22974, -0.69120, 0.00937, -2.33628, -1.35865, -0.95418, -0.28692]
    assert answer[::125].tolist() == pytest.approx(some, abs=2e-3)
    assert efficientnet.PACKAGE not in sys.modules, "its code is not ours to run"


def test_the_last_layer_may_have_another_size_and_the_body_is_said_once(capsys):
    for _ in range(2):  # Run All, and once more in the same kernel
        body_in_use()
        assert efficientnet_lite0(weights="DEFAULT").classifier.out_features == 1000
        assert efficientnet_lite0(pretrained=True, num_classes=3).classifier.out_features == 3
        assert capsys.readouterr().out.count("EfficientNet-Lite0") == 1
    assert "EfficientNet-Lite0" in body_in_use(efficientnet_lite0)
    efficientnet_lite0(weights="DEFAULT")
    assert capsys.readouterr().out == ""


# --- what can be wrong with the installation


def no_package(monkeypatch, folder):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    efficientnet_lite0()  # random weights do without it


def another_package(content):
    """A package with this content in place of the installed one."""

    def install(monkeypatch, folder):
        file = folder / efficientnet.PACKAGE / efficientnet.FILE
        file.parent.mkdir(parents=True)
        (folder / efficientnet.PACKAGE / "__init__.py").touch()
        if content:
            whole = Path(find_spec(efficientnet.PACKAGE).origin).parent / efficientnet.FILE
            file.write_bytes(content(whole.read_bytes()))
        monkeypatch.syspath_prepend(folder)

    return install


def another_network(monkeypatch, folder):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda _, **how: make("resnet18", **how))


@pytest.mark.parametrize(
    ("spoil", "case"),
    [
        (no_package, "the weights of efficientnet_lite0 are not installed"),
        (another_package(None), "the weights of efficientnet_lite0 can't be read"),
        (another_package(lambda b: b[:-1000]), "the weights of efficientnet_lite0 are damaged"),
        (another_package(lambda b: b"<html>"), "the weights of efficientnet_lite0 are damaged"),
        (lambda patch, _: patch.setitem(sys.modules, "timm", None), "timm is not installed"),
        (lambda patch, _: patch.setattr(timm, "__version__", "0.9.16"), "timm is too old"),
        (another_network, "timm builds another network"),
    ],
)
def test_a_bad_installation_is_one_sentence(monkeypatch, tmp_path, spoil, case):
    spoil(monkeypatch, tmp_path)
    with pytest.raises(BodyError) as caught:
        efficientnet_lite0(weights="DEFAULT")
    keeps(case, str(caught.value))
    assert "\n" not in str(caught.value)


# --- in place of resnet34


def each(body, x):
    for block in body:
        x = block(x)
        yield x


def test_vision_learner_takes_it_as_it_takes_resnet34(folder):
    dls = loaders(folder)
    learn = build(dls)
    norm = next(step for step in dls.after_batch.fs if isinstance(step, Normalize))
    assert norm.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    body, head = learn.model
    with torch.no_grad():
        maps = list(each(body.eval(), torch.randn(1, 3, 64, 64)))
    assert [64 // m.shape[-1] for m in maps] == [2, 4, 8, 16, 32]
    # Frozen: the head alone may change. Then three groups, each at its own rate.
    assert learn.opt.frozen_idx == 2
    assert not [name for name, p in body.named_parameters() if p.requires_grad]
    first, second, last = ([id(p) for p in group] for group in learn.opt.param_lists)
    assert set(first) == {id(p) for p in body[:3].parameters()}  # as deep as a resnet's: stride 8
    assert set(second) == {id(p) for p in body[3:].parameters()}
    assert set(last) == {id(p) for p in head.parameters()}


def test_a_name_of_timms_works_too(folder):
    learn = vision_learner(loaders(folder), "test_efficientnet", pretrained=False, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    record = run_record(learn.dls, folder, learn, 1, [("all layers", 1, 1e-3)], {})
    assert record["network"]["architecture"] == "test_efficientnet"
    draw.draw_layers(learn)  # the body as a single box
    assert draw.how_far(learn.model, learn.model) == {"body": 0, "head": 0}


def test_the_body_stands_still_until_all_layers_learn(learn):
    start, head, tuned = learn.stages
    body = [name for name in start if name.startswith("0.")]
    assert all(torch.equal(start[name], head[name]) for name in body)
    moved = [name for name in body if not torch.equal(head[name], tuned[name])]
    assert len(moved) > 0.9 * len(body)
    assert [name for name in moved if name.endswith("running_mean")]


def test_the_notebooks_helpers_take_it(learn, folder):
    learn.opt.set_hyper("lr", slice(1e-5, 3e-4))
    draw.draw_layers(learn)
    texts = {text.get_text() for text in draw.plt.gca().texts}
    draw.plt.close("all")
    assert texts >= {"stem", "layer4", "head", "rate 1.0e-05", "rate 5.5e-05", "rate 3.0e-04"}
    drawn = [id(p) for _, block, _ in draw.blocks_of(learn.model[0]) for p in block.parameters()]
    assert drawn == [id(p) for p in learn.model[0].parameters()]  # no layer is left out
    files = sorted((folder / "test").rglob("*.png"))
    x, _ = look.prepare(learn, files)
    heats = [look.grad_cam(learn, x[:1], column) for column in (0, 1)]
    assert max(float(h.max()) for h in heats) == pytest.approx(1)
    assert frozen_features(learn, files).shape == (2, 2 * 1280)
    schedule = [("the head", 1, 3e-3), ("all layers", 1, slice(1e-5, 3e-4))]
    text = methods(run_record(learn.dls, folder, learn, 1, schedule, {}))
    for words in ("efficientnet_lite0", "Tan and Le, 2019", "Apache", efficientnet.SHA256):
        assert words in text, words
    assert "He et al." not in text


def test_an_exported_learner_is_loaded_and_asked(learn, folder, tmp_path):
    learn.export(tmp_path / "learner.pkl")
    again, picture = load_learner(tmp_path / "learner.pkl"), next((folder / "test").rglob("*.png"))
    assert again.arch is efficientnet_lite0 and ask(again, picture) == ask(learn, picture)
