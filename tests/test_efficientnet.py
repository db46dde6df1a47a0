"""EfficientNet-Lite0: the right numbers in the right layers, and in resnet34's place everywhere."""

import builtins
import json
import socket
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    load_learner,
    set_seed,
    vision_learner,
)
from PIL import Image
from promises import keeps

from tutorial import backbone, draw, efficientnet, look
from tutorial.backbone import BodyError, body_in_use, resnet34
from tutorial.defaults import OURS
from tutorial.efficientnet import efficientnet_lite0, timm_name
from tutorial.errors import TutorialError
from tutorial.paragraph import methods
from tutorial.record import run_record
from tutorial.rivals import frozen_features
from tutorial.share import ask, load_weights, save_weights

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
    """Dark and light pictures of noise: eight to learn from, four to check on, two to test."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("imgs")
    for split, many in (("train", 8), ("valid", 4), ("test", 2)):
        for i in range(many):
            file = path / split / ("dark", "light")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 80, (70, 64, 3)) + 170 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return path


def load(folder):
    return ImageDataLoaders.from_folder(
        folder, valid="valid", item_tfms=Resize(64), bs=4, num_workers=0, device="cpu"
    )


def build(dls, arch=efficientnet_lite0):
    return vision_learner(dls, arch, metrics=accuracy, cbs=OURS)


@pytest.fixture(scope="module")
def learn(folder):
    """Trained as in the notebook: the head, then all layers."""
    set_seed(0)
    learn = build(load(folder))
    with learn.no_bar(), learn.no_logging():
        learn.before = {name: t.clone() for name, t in learn.model.state_dict().items()}
        learn.fit_one_cycle(1, 3e-3)
        learn.between = {name: t.clone() for name, t in learn.model.state_dict().items()}
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-5, 3e-4))
    return learn


# --- its numbers


def test_it_answers_as_the_network_that_its_weights_were_made_for():
    """The figures are those of efficientnet-lite-pytorch 0.1.0, the package by the same authors."""
    y, x = torch.meshgrid(*[torch.linspace(-3, 3, 224)] * 2, indexing="ij")
    picture = torch.stack([torch.sin(2 * x + y), torch.cos(x * y), torch.sin(x - 3 * y)])[None]
    with torch.no_grad():
        answer = efficientnet_lite0(weights="DEFAULT").eval()(picture)[0]
    assert answer.topk(5).indices.tolist() == [641, 885, 782, 409, 747]
    some = [0.21001, -0.22974, -0.69120, 0.00937, -2.33628, -1.35865, -0.95418, -0.28692]
    assert answer[::125].tolist() == pytest.approx(some, abs=2e-3)


def test_each_name_of_the_package_becomes_one_of_timms():
    state = torch.load(efficientnet._find().file, weights_only=True)
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len({timm_name(name) for name in state}) == len(state)
    assert {timm_name(name): t.shape for name, t in state.items()} == {
        name: t.shape for name, t in own.items()
    }
    assert timm_name("_blocks.1._bn2.bias") == "blocks.1.0.bn3.bias"
    assert timm_name("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert timm_name("_blocks.14._bn0.weight") == "blocks.5.3.bn1.weight"


def test_the_package_is_read_but_not_run(monkeypatch):
    run = builtins.__import__

    def watched(name, *args, **kwargs):
        assert not name.startswith(efficientnet.PACKAGE)
        return run(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert efficientnet._find().file.is_file()
    assert efficientnet.PACKAGE not in __import__("sys").modules


def test_random_numbers_need_no_package(monkeypatch, capsys):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    efficientnet_lite0()
    assert capsys.readouterr().out == ""


def test_the_last_layer_may_have_another_size():
    model = efficientnet_lite0(pretrained=True, num_classes=3)
    assert model.classifier.out_features == 3
    assert efficientnet_lite0(pretrained=True, num_classes=0).num_classes == 0
    whole = efficientnet_lite0(pretrained=True)
    assert torch.equal(model.conv_head.weight, whole.conv_head.weight)


def test_its_sentence_is_said_once(capsys):
    assert "EfficientNet-Lite0 trained on ImageNet" in body_in_use(efficientnet_lite0)
    efficientnet_lite0(weights="DEFAULT")
    assert capsys.readouterr().out == ""
    for _ in range(2):  # Run All, and once more in the same kernel
        body_in_use()
        for _ in range(2):
            efficientnet_lite0(weights="DEFAULT")
        assert capsys.readouterr().out.count("EfficientNet-Lite0") == 1


# --- what can be wrong with the installation


def installed(monkeypatch, folder, content):
    """Put a package with this content in place of the installed one."""
    file = folder / efficientnet.PACKAGE / efficientnet.FILE
    file.parent.mkdir(parents=True)
    (folder / efficientnet.PACKAGE / "__init__.py").touch()
    if content is not None:
        file.write_bytes(content)
    monkeypatch.syspath_prepend(folder)
    return file


def said(case):
    with pytest.raises(BodyError) as caught:
        efficientnet_lite0(weights="DEFAULT")
    keeps(case, str(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"BodyError: {caught.value}"]


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    said("the weights of efficientnet_lite0 are not installed")


def test_a_package_without_its_file_is_one_sentence(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, None)
    said("the weights of efficientnet_lite0 can't be read")


@pytest.mark.parametrize("how", ["cut", "empty", "a web page", "one bit", "another network"])
def test_damaged_weights_are_one_sentence(monkeypatch, tmp_path, how):
    whole = Path(find_spec(efficientnet.PACKAGE).origin).parent / efficientnet.FILE
    content = {"cut": -1000, "empty": 0}.get(how)
    content = whole.read_bytes()[:content]
    if how == "a web page":
        content = b"<html>404 Not Found</html>"
    if how == "one bit":
        content = content[:-1] + bytes([content[-1] ^ 1])
    if how == "another network":
        torch.save({"_fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
        content = (tmp_path / "other.pth").read_bytes()
    installed(monkeypatch, tmp_path, content)
    said("the weights of efficientnet_lite0 are damaged")


def test_no_timm_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)  # importing it fails now
    said("timm is not installed")


def test_an_old_timm_is_one_sentence(monkeypatch):
    monkeypatch.setattr(timm, "__version__", "0.9.16")
    said("timm is too old")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite1", "resnet18"])
def test_a_timm_that_builds_otherwise_is_one_sentence(monkeypatch, name):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda _, **how: make(name, **how))
    said("timm builds another network")


# --- in place of resnet34


def test_vision_learner_takes_it_as_it_takes_resnet34(folder):
    dls = load(folder)
    learn = build(dls)
    norm = next(step for step in dls.after_batch.fs if isinstance(step, Normalize))
    assert norm.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    body, head = learn.model
    assert head[-1].out_features == 2
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        sides = [64 // maps.shape[-1] for maps in each(body.eval(), x)]
        whole = efficientnet_lite0(weights="DEFAULT").eval().forward_features(x)
        assert torch.equal(body(x), whole)
    assert sides == [2, 4, 8, 16, 32]
    # Frozen: the head alone may change. Then three groups, each at its own rate.
    assert learn.opt.frozen_idx == 2 and len(learn.opt.param_lists) == 3
    assert not [n for n, p in body.named_parameters() if p.requires_grad]
    learn.unfreeze()
    learn.opt.set_hyper("lr", slice(1e-5, 3e-4))
    rates = [group["lr"] for group in learn.opt.hypers]
    assert rates[0] < rates[1] < rates[2]
    groups = [sum(p.numel() for p in group) for group in learn.opt.param_lists]
    assert sum(groups) == sum(p.numel() for p in learn.model.parameters())
    first, second, last = ({id(p) for p in group} for group in learn.opt.param_lists)
    assert first == {id(p) for p in body[:3].parameters()}  # as deep as a resnet's: stride 8
    assert last == {id(p) for p in head.parameters()} and len(second) > 50


def each(body, x):
    for block in body:
        x = block(x)
        yield x


def test_without_pretraining_it_is_free_and_normalises_nothing(folder, capsys):
    dls = load(folder)
    learn = vision_learner(dls, efficientnet_lite0, pretrained=False)
    assert all(p.requires_grad for p in learn.model.parameters())
    assert not any(isinstance(step, Normalize) for step in dls.after_batch.fs)
    assert capsys.readouterr().out == ""


def test_a_name_of_timms_works_too(folder):
    learn = vision_learner(load(folder), "test_efficientnet", pretrained=False, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    record = run_record(learn.dls, folder, learn, 1, [("all layers", 1, 1e-3)], {})
    assert record["network"]["architecture"] == "test_efficientnet"
    draw.draw_layers(learn)  # the body as a single box
    moved = draw.how_far(learn.model, learn.model)
    assert moved == {"body": 0, "head": 0}


def test_the_body_stands_still_until_all_layers_learn(learn):
    now = learn.model.state_dict()
    body = [name for name in now if name.startswith("0.")]
    assert all(torch.equal(learn.before[name], learn.between[name]) for name in body)
    moved = [name for name in body if not torch.equal(learn.between[name], now[name])]
    assert len(moved) > 0.9 * len(body)
    assert [name for name in moved if name.endswith("running_mean")]


def test_the_layers_are_drawn_in_five_blocks(learn):
    learn.opt.set_hyper("lr", slice(1e-5, 3e-4))
    draw.draw_layers(learn)
    texts = [text.get_text() for text in draw.plt.gca().texts]
    draw.plt.close("all")
    for name in ("stem", "layer4", "head", "rate 1.0e-05", "rate 5.5e-05", "rate 3.0e-04"):
        assert name in texts
    blocks = draw.blocks_of(learn.model[0])
    assert len(blocks) == 5
    drawn = [id(p) for _, block, _ in blocks for p in block.parameters()]
    assert drawn == [id(p) for p in learn.model[0].parameters()]  # no layer is left out


def test_heat_maps_and_features(learn, folder):
    files = sorted((folder / "test").rglob("*.png"))
    x, _ = look.prepare(learn, files)
    for picture in x.split(1):
        heat = look.grad_cam(learn, picture, 0)
        assert heat.shape == (64, 64) and 0 <= heat.min() and heat.max() <= 1
        assert heat.isfinite().all()
    assert max(float(look.grad_cam(learn, x[:1], c).max()) for c in (0, 1)) == pytest.approx(1)
    assert frozen_features(learn, files).shape == (2, 2 * 1280)


def test_the_record_names_body_and_licence(learn, folder):
    schedule = [("the head", 1, 3e-3), ("all layers", 1, slice(1e-5, 3e-4))]
    record = run_record(learn.dls, folder, learn, 1, schedule, {})
    assert record["network"]["architecture"] == "efficientnet_lite0"
    assert record["network"]["body"] == {
        "which": "efficientnet_lite0",
        "sha256": efficientnet.SHA256,
    }
    text = methods(json.loads(json.dumps(record)))
    for words in (
        "was an efficientnet_lite0 (Tan and Le, 2019)",
        "Apache License 2.0",
        "rethinking model",
    ):
        assert words in text, words
    assert efficientnet.SHA256 in text and "He et al." not in text


def test_it_is_saved_loaded_and_asked(learn, folder, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights(learn, file)
    set_seed(1)
    other, picture = build(load(folder)), next((folder / "test").rglob("*.png"))
    assert ask(other, picture) != ask(learn, picture)
    load_weights(other, file)
    assert ask(other, picture) == ask(learn, picture)
    learn.export(tmp_path / "learner.pkl")
    again = load_learner(tmp_path / "learner.pkl")
    assert again.arch is efficientnet_lite0 and ask(again, picture) == ask(learn, picture)
    with pytest.raises(TutorialError) as caught:
        load_weights(build(load(folder), resnet34), file)
    keeps("weights of another network", str(caught.value))
