"""The body comes from where BODY says, whole and right, or with one clear sentence why not."""

import hashlib
import http.server
import os
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision.models as tvm
from fastai.vision.all import Normalize, vision_learner
from limits import needs_root, ordinary_user, public, small_disk  # noqa: F401  public is a fixture
from promises import keeps, untouched
from safetensors.torch import load_file, save_file
from shapes import loaders, squares

from tutorial import backbone, download
from tutorial.backbone import BodyError, body_in_use, resnet34

PAYLOAD = os.urandom(300_000)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()
ONLY_EIGHT_DIGITS = DIGEST[:8] + 56 * "0"  # as many as torchvision's file names have


def save(state, file):
    """Write a bundled file, with its checksum beside it."""
    save_file(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name("SHA256SUMS").write_text(f"{digest}  {file.name}\n")


@pytest.fixture(scope="module")
def state():
    """The tensors of a resnet34 with random weights, as torchvision names them."""
    torch.manual_seed(0)
    return tvm.resnet34().state_dict()


@pytest.fixture(scope="module")
def trunk(state):
    """The same without the last layer, and in the number formats of the bundled file."""
    kept = {k: t for k, t in state.items() if not k.startswith("fc.") and "num_batches" not in k}
    return {k: t.half() if t.ndim > 1 else t for k, t in kept.items()}


@pytest.fixture(autouse=True)
def bundled(monkeypatch, tmp_path):
    """A small bundled file; also an empty cache, no proxy, nothing remembered, BODY not set."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("BODY", raising=False)
    file = tmp_path / "weights" / "resnet34-body.safetensors"
    file.parent.mkdir()
    save({"conv1.weight": torch.ones(2000)}, file)
    monkeypatch.setattr(backbone, "BUNDLED", file)
    monkeypatch.setattr(backbone, "_said", set())
    backbone._choose.cache_clear()
    yield file
    backbone._choose.cache_clear()


@pytest.fixture
def no_network(monkeypatch):
    """Any use of the network fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("the network was used")

    monkeypatch.setattr(backbone, "download", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def server(monkeypatch):
    """A local server in ImageNet's place: `do` answers a request, `asked` counts them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            web.asked += 1
            web.do(self)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.asked, web.do, web.daemon_threads, web.block_on_close = 0, send, True, False
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    imagenet_at(monkeypatch, web.server_port)
    yield web
    web.shutdown()
    web.server_close()


def imagenet_at(monkeypatch, port, digest=DIGEST):
    monkeypatch.setattr(backbone, "IMAGENET_URL", f"http://127.0.0.1:{port}/resnet34.pth")
    monkeypatch.setattr(backbone, "IMAGENET_SHA256", digest)


def cached():
    return Path(torch.hub.get_dir(), "checkpoints", "resnet34.pth")


def litter():
    return [file for file in Path(torch.hub.get_dir()).rglob("*") if file.is_file()]


def refused(case, ask=body_in_use, **options):
    """The one sentence with which a body is refused; it keeps the promise for this case."""
    with pytest.raises(BodyError) as caught:
        ask(**options)
    keeps(case, str(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the download


def send(request, content=PAYLOAD, announced=None):
    request.send_response(200)
    request.send_header("Content-Length", str(announced or len(content)))
    request.end_headers()
    request.wfile.write(content)


def other_content(request):
    send(request, PAYLOAD[::-1])


def cut(request):
    send(request, PAYLOAD[:100_000], announced=len(PAYLOAD))
    request.connection.shutdown(socket.SHUT_RDWR)


def fall_silent(request):
    send(request, PAYLOAD[:100_000], announced=len(PAYLOAD))
    time.sleep(20)


def a_byte_at_a_time(request):
    send(request, PAYLOAD[:1], announced=len(PAYLOAD))
    with suppress(OSError):  # whoever waits gives up
        for byte in PAYLOAD[1:200]:
            time.sleep(0.1)  # never silent for long
            request.wfile.write(bytes([byte]))


def not_found(request):
    request.send_error(404)


def test_a_good_file_is_downloaded_once(server):
    assert "ImageNet" in body_in_use() and "downloaded" in body_in_use()
    assert cached().read_bytes() == PAYLOAD and litter() == [cached()]
    backbone._choose.cache_clear()  # as if in a new process
    assert "cache" in body_in_use()
    assert server.asked == 1


def test_imagenets_checksum_begins_as_torchvision_says():
    assert len(backbone.IMAGENET_SHA256) == 64
    assert f"-{backbone.IMAGENET_SHA256[:8]}.pth" in tvm.ResNet34_Weights.IMAGENET1K_V1.url


@pytest.mark.parametrize(
    ("fault", "digest", "case"),
    [
        (other_content, DIGEST, "the server sends something else"),
        (send, ONLY_EIGHT_DIGITS, "the server sends something else"),
        (cut, DIGEST, "the download is cut"),
        (fall_silent, DIGEST, "the server falls silent"),
        (a_byte_at_a_time, DIGEST, "the server is too slow"),
        (not_found, DIGEST, "the server does not have the file"),
    ],
)
def test_a_failed_download_leaves_nothing_and_falls_back(monkeypatch, server, fault, digest, case):
    monkeypatch.setattr(download, "PATIENCE", 1)
    monkeypatch.setattr(download, "LIMIT", 1 if fault is a_byte_at_a_time else 60)
    imagenet_at(monkeypatch, server.server_port, digest)
    server.do = fault
    sentence = body_in_use()
    keeps(case, sentence)
    assert "bundled" in sentence and "127.0.0.1" in sentence
    assert litter() == [] and server.asked == 1


@pytest.mark.parametrize(
    ("wanted", "case"),
    [
        ("auto", "neither body can be had"),
        ("imagenet", "BODY=imagenet, and it can't be had"),
        ("best", "BODY has a wrong value"),
    ],
)
def test_a_body_that_nobody_has_is_refused(monkeypatch, server, bundled, wanted, case):
    server.do = not_found
    bundled.unlink()
    monkeypatch.setenv("BODY", wanted)
    refused(case)


def test_a_download_that_is_stopped_leaves_nothing(monkeypatch, server):
    def press_stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "sha256", press_stop)
    with pytest.raises(KeyboardInterrupt):
        body_in_use()
    assert litter() == []
    keeps("Stop is pressed during the download")


def test_a_dead_server_is_given_up_and_not_asked_again(monkeypatch):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(8)  # connections are taken up by the system and never answered
        imagenet_at(monkeypatch, dead.getsockname()[1])
        start = time.monotonic()
        keeps("the server never answers", body_in_use())
        assert time.monotonic() - start < 20
        monkeypatch.setattr(backbone, "download", None)  # to call it would fail
        keeps("the server never answers", body_in_use())


def test_a_name_look_up_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(60) or [])
    start = time.monotonic()
    assert "did not answer" in body_in_use()
    assert time.monotonic() - start < 30


def test_a_closed_port_is_said_to_be_out_of_reach(monkeypatch):
    monkeypatch.setenv("BODY", "")  # as "auto"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        imagenet_at(monkeypatch, closed.getsockname()[1])
        keeps("the server can't be reached", body_in_use())


# --- the cache


def test_a_damaged_file_in_the_cache_is_neither_used_nor_deleted(monkeypatch, no_network):
    cached().parent.mkdir(parents=True)
    cached().write_bytes(PAYLOAD)
    imagenet_at(monkeypatch, 9, ONLY_EIGHT_DIGITS)
    with untouched(cached().parent):
        sentence = body_in_use()
    assert "bundled" in sentence and str(cached()) in sentence
    keeps("ImageNet's file in the cache is damaged", sentence)


def test_a_cache_that_is_a_file_is_named(server, tmp_path):
    (tmp_path / "torch").write_text("a file where the folder should be")
    with untouched(tmp_path / "torch"):
        sentence = body_in_use()
    assert "bundled" in sentence and "torch" in sentence and server.asked == 0
    keeps("the cache folder can't be written to", sentence)


@needs_root
def test_files_of_another_user_are_named(monkeypatch, server, public, bundled):  # noqa: F811
    for file in bundled.parent.iterdir():
        (public / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(backbone, "BUNDLED", public / bundled.name)
    monkeypatch.setenv("TORCH_HOME", str(public / "torch"))
    cached().parent.mkdir(parents=True)

    def said(ask=body_in_use, **options):
        backbone._choose.cache_clear()
        with untouched(public), ordinary_user():
            return ask(**options)

    build = partial(said, resnet34, pretrained=True)
    keeps("the cache folder can't be written to", said())
    cached().write_bytes(PAYLOAD)
    cached().chmod(0o600)
    keeps("ImageNet's file in the cache can't be read", said())
    (public / bundled.name).chmod(0o600)
    monkeypatch.setenv("BODY", "bundled")
    refused("the bundled body can't be read", said)
    for kind in ("pth", "safetensors"):
        (public / f"mine.{kind}").touch(mode=0o600)
        monkeypatch.setenv("BODY", str(public / f"mine.{kind}"))
        refused("BODY names a file that can't be read", build)


@needs_root
def test_a_full_disk_is_named_and_left_empty(server, tmp_path):
    with small_disk(tmp_path / "torch", 200_000):  # of the 300,000 bytes that come
        sentence = body_in_use()
        assert "bundled" in sentence and litter() == [] and server.asked == 1
    keeps("no room for the download", sentence)


# --- the bundled file


def cut_short(content):
    return content[:-1000]


@pytest.mark.parametrize(
    ("spoil", "case"),
    [
        (cut_short, "the bundled body is cut short"),
        (lambda content: b"<html>Not the file you want</html>", "the bundled body is a web page"),
        (lambda content: b"version https://git-lfs", "the bundled body is a pointer of Git LFS"),
        (lambda content: b"", "the bundled body is empty"),
        (
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            "one bit of the bundled body is wrong",
        ),
        ("resnet34-body.safetensors", "the bundled body is missing"),
        ("SHA256SUMS", "the body's checksum is missing"),
        ({"layer4.2.bn2.weight": None}, "a body with a layer less"),
        ({"layer5.0.conv1.weight": torch.zeros(1)}, "a body with a layer more"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "a body of another architecture"),
    ],
)
def test_a_spoilt_bundled_file_is_named(monkeypatch, no_network, trunk, bundled, spoil, case):
    if callable(spoil):
        bundled.write_bytes(spoil(bundled.read_bytes()))
    elif isinstance(spoil, str):
        bundled.with_name(spoil).unlink()
    else:
        save({k: t for k, t in {**trunk, **spoil}.items() if t is not None}, bundled)
    monkeypatch.setenv("BODY", "bundled")
    with untouched(bundled.parent):
        assert str(bundled.parent) in refused(case, resnet34, weights="DEFAULT")


def test_the_bundled_body_is_used_without_a_network_and_said_once(
    monkeypatch, no_network, trunk, bundled, capsys
):
    save(trunk, bundled)
    monkeypatch.setenv("BODY", "bundled")
    found = resnet34(weights="DEFAULT").state_dict()
    assert all(torch.equal(found[name], t.float()) for name, t in trunk.items())
    assert {found[name].dtype for name in trunk} == {torch.float32}
    assert capsys.readouterr().out.count("bundled") >= 1
    resnet34(weights="DEFAULT")
    body_in_use()
    resnet34(pretrained=True)
    assert capsys.readouterr().out == ""


# --- other words in BODY


def test_imagenets_body_is_used_with_its_last_layer_where_that_fits(
    monkeypatch, no_network, state, capsys
):
    cached().parent.mkdir(parents=True)
    torch.save(state, cached())
    imagenet_at(monkeypatch, 9, hashlib.sha256(cached().read_bytes()).hexdigest())
    monkeypatch.setenv("BODY", "imagenet")
    whole = resnet34(weights="DEFAULT").state_dict()
    assert all(torch.equal(whole[name], t) for name, t in state.items())
    few = resnet34(weights="DEFAULT", num_classes=3)
    assert few.fc.out_features == 3 and torch.equal(few.conv1.weight, state["conv1.weight"])
    assert capsys.readouterr().out.count("The body is") == 1


@pytest.mark.parametrize(
    ("kind", "last", "half"),
    [
        ("pth", 1000, True),
        ("pth", 7, False),
        ("safetensors", 1000, False),
        ("safetensors", 0, True),
    ],
)
def test_a_body_from_a_file(monkeypatch, no_network, tmp_path, state, kind, last, half, capsys):
    wanted = {k: t.half() if half and t.is_floating_point() else t for k, t in state.items()}
    saved = {k: t[:last] if k.startswith("fc.") else t for k, t in wanted.items()}
    saved = {k: t.clone() for k, t in saved.items() if t.ndim == 0 or len(t)}
    (torch.save if kind == "pth" else save_file)(saved, tmp_path / f"mine.{kind}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BODY", f"mine.{kind}")
    found = resnet34(weights="DEFAULT").state_dict()
    assert f"mine.{kind}" in capsys.readouterr().out
    for name, t in wanted.items():
        if last == 1000 or not name.startswith("fc."):
            assert torch.equal(found[name], t.to(state[name].dtype)), name


class Code:
    """What a pickle may hold: whoever opens it without care runs this."""

    def __reduce__(self):
        return os.mkdir, ("a folder that a file of weights would not make",)


@pytest.mark.parametrize(
    ("content", "case"),
    [
        (None, "BODY names no file"),
        (b"<html>404 Not Found</html>", "BODY names a file that is damaged"),
        ({"a": Code()}, "BODY names a file that is damaged"),
        ([1, 2], "BODY names the weights of another network"),
        ({"conv1.weight": torch.zeros(2)}, "BODY names the weights of another network"),
        ({"state_dict": {"conv1.weight": 0}}, "BODY names the weights of another network"),
    ],
)
def test_a_file_that_is_no_resnet34_is_named(monkeypatch, no_network, tmp_path, content, case):
    file = tmp_path / "mine.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BODY", str(file))
    with untouched(tmp_path):
        assert str(file) in refused(case, resnet34, weights="DEFAULT")


def test_a_safetensors_file_cut_short_is_named(monkeypatch, no_network, bundled):
    bundled.write_bytes(cut_short(bundled.read_bytes()))
    monkeypatch.setenv("BODY", str(bundled))
    refused("BODY names a file that is damaged", resnet34, weights="DEFAULT")


# --- in fastai, and without a trained body


def test_vision_learner_takes_it_as_it_takes_torchvisions(monkeypatch, tmp_path, trunk, bundled):
    save(trunk, bundled)
    monkeypatch.setenv("BODY", "bundled")
    dls = loaders(squares(tmp_path / "imgs", train=4, valid=2))
    learn = vision_learner(dls, resnet34)
    body, head = learn.model
    assert torch.equal(body[0].weight, load_file(bundled)["conv1.weight"].float())
    assert head[-1].out_features == 2
    assert any(isinstance(step, Normalize) for step in dls.after_batch.fs)
    theirs = vision_learner(dls, tvm.resnet34, pretrained=False)
    theirs.create_opt()
    sizes, wanted = ([[p.shape for p in g] for g in x.opt.param_lists] for x in (learn, theirs))
    assert sizes == wanted and learn.opt.frozen_idx == 2
    assert not body[0].weight.requires_grad and all(p.requires_grad for p in head.parameters())
    learn.unfreeze()
    assert body[0].weight.requires_grad


def test_random_weights_need_no_file(no_network, tmp_path, bundled, state, capsys):
    bundled.unlink()
    torch.manual_seed(0)
    assert torch.equal(resnet34().conv1.weight, state["conv1.weight"])
    dls = loaders(squares(tmp_path / "imgs", train=4, valid=2))
    learn = vision_learner(dls, resnet34, pretrained=False)
    assert learn.model[0][0].weight.requires_grad
    assert not any(isinstance(step, Normalize) for step in dls.after_batch.fs)
    assert capsys.readouterr().out == ""
