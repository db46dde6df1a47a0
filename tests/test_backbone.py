"""The body comes from where BODY says, whole and right, or with one clear sentence why not."""

import hashlib
import http.server
import os
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
import torchvision.models as tvm
from fastai.vision.all import ImageDataLoaders, Normalize, Resize, accuracy, load_learner
from fastai.vision.learner import vision_learner
from limits import needs_root, ordinary_user, public, small_disk  # noqa: F401  public is a fixture
from PIL import Image
from promises import keeps, untouched
from safetensors.torch import load_file, save_file

from tutorial import backbone, download
from tutorial.backbone import BodyError, body_in_use, resnet34

PAYLOAD = os.urandom(300_000)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture(scope="session")
def fake_body(tmp_path_factory):
    """A bundled file of random numbers, with its checksum beside it."""
    torch.manual_seed(0)
    state = {k: t for k, t in tvm.resnet34().state_dict().items() if not k.startswith("fc.")}
    state = {k: t for k, t in state.items() if "num_batches" not in k}
    for name, numbers in state.items():
        if numbers.ndim > 1:  # batch norm's numbers stay in float32, as in the real file
            state[name] = numbers.half()
    file = tmp_path_factory.mktemp("weights") / "resnet34-body.safetensors"
    save_file(state, file)
    write_sums(file)
    return file


def write_sums(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name("SHA256SUMS").write_text(f"{digest}  {file.name}\n")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path, fake_body):
    """An empty cache, no proxy, nothing remembered, the fake bundled file, BODY not set."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("BODY", raising=False)
    monkeypatch.setattr(backbone, "BUNDLED", fake_body)
    monkeypatch.setattr(backbone, "_said", set())
    backbone._choose.cache_clear()
    yield
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
def server():
    """A local web server; `server.do` says what it does with a request, `server.asked` counts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            web.asked += 1
            web.do(self)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.asked, web.do, web.daemon_threads, web.block_on_close = 0, send, True, False
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    yield web
    web.shutdown()
    web.server_close()


def send(request, content=PAYLOAD, announced=None):
    request.send_response(200)
    request.send_header("Content-Length", str(announced or len(content)))
    request.end_headers()
    request.wfile.write(content)


def use(monkeypatch, port, digest=DIGEST):
    monkeypatch.setattr(backbone, "IMAGENET_URL", f"http://127.0.0.1:{port}/resnet34.pth")
    monkeypatch.setattr(backbone, "IMAGENET_SHA256", digest)


def cached():
    return backbone.Path(torch.hub.get_dir(), "checkpoints", "resnet34.pth")


def litter():
    return [p for p in backbone.Path(torch.hub.get_dir()).rglob("*") if p.is_file()]


# --- the download -----------------------------------------------------------------------------


def test_a_good_file_is_downloaded_once(monkeypatch, server):
    use(monkeypatch, server.server_port)
    assert "ImageNet" in body_in_use() and "downloaded" in body_in_use()
    assert cached().read_bytes() == PAYLOAD and litter() == [cached()]
    backbone._choose.cache_clear()  # as if in a new process
    assert "found in the cache" in body_in_use()
    assert server.asked == 1


def test_a_whole_resnet34_of_imagenet_is_used(monkeypatch, server, tmp_path, capsys):
    torch.manual_seed(1)
    theirs = tvm.resnet34()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    content = (tmp_path / "theirs.pth").read_bytes()
    server.do = lambda request: send(request, content)
    use(monkeypatch, server.server_port, hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("BODY", "imagenet")
    ours = resnet34(weights="DEFAULT")
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    few = resnet34(weights="DEFAULT", num_classes=3)
    assert few.fc.out_features == 3 and torch.equal(few.conv1.weight, theirs.conv1.weight)
    assert server.asked == 1
    assert capsys.readouterr().out.count("The body is") == 1


def wrong_content(request):
    send(request, PAYLOAD[::-1])


def cut_connection(request):
    send(request, PAYLOAD[:100_000], announced=len(PAYLOAD))
    request.connection.shutdown(socket.SHUT_RDWR)


def silent_halfway(request):
    send(request, PAYLOAD[:100_000], announced=len(PAYLOAD))
    time.sleep(20)


def one_byte_at_a_time(request):
    send(request, PAYLOAD[:1], announced=len(PAYLOAD))
    with suppress(OSError):  # whoever waits gives up
        for byte in PAYLOAD[1:200]:
            time.sleep(0.1)  # never silent for long
            request.wfile.write(bytes([byte]))


def test_imagenets_checksum_is_the_one_that_torchvision_names():
    name = backbone.Path(backbone.IMAGENET_URL).stem
    assert backbone.IMAGENET_SHA256.startswith(name.rpartition("-")[2])
    assert len(backbone.IMAGENET_SHA256) == 64


def test_a_file_that_only_begins_with_the_right_digits_is_refused(monkeypatch, server):
    use(monkeypatch, server.server_port, DIGEST[:8] + 56 * "0")
    assert "wrong checksum" in body_in_use()
    assert litter() == []


def test_a_server_that_is_slow_but_never_silent_is_given_up(monkeypatch, server):
    monkeypatch.setattr(download, "LIMIT", 1)
    server.do = one_byte_at_a_time
    use(monkeypatch, server.server_port)
    start = time.monotonic()
    sentence = body_in_use()
    assert time.monotonic() - start < 5
    keeps("the server is too slow", sentence)
    assert "bundled" in sentence and litter() == []


def not_found(request):
    request.send_error(404)


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (wrong_content, "the server sends something else"),
        (cut_connection, "the download is cut"),
        (silent_halfway, "the server falls silent"),
        (not_found, "the server does not have the file"),
    ],
)
def test_a_failed_download_leaves_nothing_and_falls_back(monkeypatch, server, fault, case):
    monkeypatch.setattr(download, "PATIENCE", 1)
    server.do = fault
    use(monkeypatch, server.server_port)
    sentence = body_in_use()
    keeps(case, sentence)
    assert "bundled" in sentence and "127.0.0.1" in sentence
    assert litter() == []
    monkeypatch.setenv("BODY", "imagenet")
    with pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    keeps(case, str(caught.value))
    keeps("BODY=imagenet, and it can't be had", str(caught.value))
    assert litter() == []


def test_a_file_that_was_interrupted_by_the_user_leaves_nothing(monkeypatch, server):
    use(monkeypatch, server.server_port)

    def press_stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "sha256", press_stop)
    with pytest.raises(KeyboardInterrupt):
        body_in_use()
    assert litter() == []
    keeps("Stop is pressed during the download")


def test_a_dead_host_costs_five_seconds_and_only_once(monkeypatch):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(8)  # connections are taken up by the system and never answered
        use(monkeypatch, dead.getsockname()[1])
        start = time.monotonic()
        keeps("the server never answers", body_in_use())
        assert time.monotonic() - start < 15
        start = time.monotonic()
        assert "bundled" in body_in_use()
        assert time.monotonic() - start < 1


def test_a_name_look_up_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(4) or [])
    start = time.monotonic()
    assert "did not answer" in body_in_use()
    assert time.monotonic() - start < 3


def test_a_closed_port_is_said_to_be_out_of_reach(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        use(monkeypatch, closed.getsockname()[1])
        sentence = body_in_use()
        assert "127.0.0.1 can't be reached" in sentence
        keeps("the server can't be reached", sentence)


def test_a_damaged_file_in_the_cache_is_neither_used_nor_deleted(monkeypatch, no_network):
    cached().parent.mkdir(parents=True)
    cached().write_bytes(b"damaged")
    # Eight digits that are right, as torchvision's file names have, are not enough.
    use(monkeypatch, 9, hashlib.sha256(b"damaged").hexdigest()[:8] + 56 * "0")
    with untouched(cached().parent):
        sentence = body_in_use()
    assert "bundled" in sentence and str(cached()) in sentence
    keeps("ImageNet's file in the cache is damaged", sentence)


def test_a_cache_that_is_a_file_is_named(monkeypatch, server, tmp_path):
    (tmp_path / "torch").write_text("a file where the folder should be")
    use(monkeypatch, server.server_port)
    with untouched(tmp_path / "torch"):
        sentence = body_in_use()
    assert "bundled" in sentence and "torch" in sentence
    keeps("the cache folder can't be written to", sentence)
    assert server.asked == 0


@needs_root
def test_a_cache_of_another_user_is_named(monkeypatch, server, public, fake_body):  # noqa: F811
    bundled = public / fake_body.name
    bundled.write_bytes(fake_body.read_bytes())
    write_sums(bundled)
    monkeypatch.setattr(backbone, "BUNDLED", bundled)
    monkeypatch.setenv("TORCH_HOME", str(public / "torch"))
    cached().parent.mkdir(parents=True)
    use(monkeypatch, server.server_port)
    with untouched(public), ordinary_user():
        sentence = body_in_use()
    assert "bundled" in sentence and "(Permission denied)" in sentence
    keeps("the cache folder can't be written to", sentence)
    cached().write_bytes(PAYLOAD)
    cached().chmod(0o600)
    backbone._choose.cache_clear()
    with untouched(public), ordinary_user():
        sentence = body_in_use()
    assert "bundled" in sentence
    keeps("ImageNet's file in the cache can't be read", sentence)
    bundled.chmod(0o600)
    monkeypatch.setenv("BODY", "bundled")
    with untouched(public), ordinary_user(), pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    keeps("the bundled body can't be read", str(caught.value))


@needs_root
def test_a_full_disk_is_named_and_left_empty(monkeypatch, server, tmp_path):
    use(monkeypatch, server.server_port)
    with small_disk(tmp_path / "torch", 200_000):  # of the 300,000 bytes that come
        sentence = body_in_use()
        assert "bundled" in sentence and litter() == []
    keeps("no room for the download", sentence)
    assert server.asked == 1


# --- BODY and the bundled file ----------------------------------------------------------------


def test_bundled_never_touches_the_network(monkeypatch, no_network, fake_body, capsys):
    monkeypatch.setenv("BODY", "bundled")
    model = resnet34(weights="DEFAULT")
    assert capsys.readouterr().out.count("bundled") >= 1
    resnet34(weights="DEFAULT")
    assert capsys.readouterr().out == ""
    for name, numbers in load_file(fake_body).items():
        mine = model.state_dict()[name]
        assert mine.dtype == torch.float32 and torch.equal(mine, numbers.float())


def test_the_sentence_is_not_said_twice(monkeypatch, capsys):
    monkeypatch.setenv("BODY", "bundled")
    assert "bundled" in body_in_use()
    resnet34(pretrained=True)
    assert capsys.readouterr().out == ""


def test_a_wrong_value_of_body_names_the_right_ones(monkeypatch):
    monkeypatch.setenv("BODY", "best")
    with pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    keeps("BODY has a wrong value", str(caught.value))


# --- BODY as a path


@pytest.fixture
def numbers(monkeypatch, tmp_path):
    """A resnet34 of random numbers, as torchvision names them, and the folder to save them in."""
    torch.manual_seed(5)
    monkeypatch.chdir(tmp_path)
    return tvm.resnet34().state_dict(), tmp_path


def without_fc(state):
    return {name: t for name, t in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("last", ["1000", "none", "7"])
def test_a_body_from_a_file(monkeypatch, no_network, numbers, kind, half, last, capsys):
    state, folder = numbers
    if last != "1000":
        state = without_fc(state)
    if last == "7":
        state |= {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    (torch.save if kind == "pth" else save_file)(state, folder / f"mine.{kind}")
    monkeypatch.setenv("BODY", f"mine.{kind}")
    model = resnet34(weights="DEFAULT")
    assert "The body is the resnet34 in mine" in capsys.readouterr().out
    for name, t in without_fc(state).items():
        found = model.state_dict()[name]
        assert torch.equal(found, t.to(found.dtype)) and found.dtype in (torch.float32, torch.int64)
    if last == "1000":
        assert torch.equal(model.fc.bias, state["fc.bias"].float())
    found = backbone.FINDERS[resnet34]()
    assert found.which == "file" and found.file == backbone.Path(f"mine.{kind}")


class Code:
    """What a pickle may hold: whoever opens it without care runs this."""

    def __reduce__(self):
        return os.mkdir, ("a folder that a picture of numbers would not make",)


@pytest.mark.parametrize(
    ("content", "case"),
    [
        (None, "BODY names no file"),
        (b"", "BODY names a file that is damaged"),
        (b"<html>404 Not Found</html>", "BODY names a file that is damaged"),
        ({"a": Code()}, "BODY names a file that is damaged"),
        ([1, 2], "BODY names the weights of another network"),
        ({"conv1.weight": torch.zeros(2)}, "BODY names the weights of another network"),
        (tvm.resnet18().state_dict(), "BODY names the weights of another network"),
        ({"state_dict": tvm.resnet34().state_dict()}, "BODY names the weights of another network"),
    ],
)
def test_a_file_that_is_no_resnet34_is_one_clear_sentence(
    monkeypatch, no_network, numbers, content, case
):
    file = numbers[1] / "mine.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    monkeypatch.setenv("BODY", str(file))
    with untouched(file.parent), pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    keeps(case, str(caught.value))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_safetensors_file_is_named(monkeypatch, no_network, numbers):
    state, folder = numbers
    save_file(state, folder / "mine.safetensors")
    cut_short(folder / "mine.safetensors")
    monkeypatch.setenv("BODY", "mine.safetensors")
    with pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    keeps("BODY names a file that is damaged", str(caught.value))


@needs_root
def test_a_file_without_leave_to_read_it_is_named(monkeypatch, public):  # noqa: F811
    for name in ("mine.pth", "mine.safetensors"):
        (public / name).touch(mode=0o600)
        monkeypatch.setenv("BODY", str(public / name))
        with untouched(public), ordinary_user(), pytest.raises(BodyError) as caught:
            resnet34(weights="DEFAULT")
        keeps("BODY names a file that can't be read", str(caught.value))


def test_an_empty_body_means_auto(monkeypatch):
    monkeypatch.setenv("BODY", "")
    assert backbone._wanted() == "auto"


def test_random_weights_need_no_file(monkeypatch, no_network, tmp_path, capsys):
    monkeypatch.setattr(backbone, "BUNDLED", tmp_path / "missing.safetensors")
    torch.manual_seed(3)
    ours = resnet34()
    torch.manual_seed(3)
    assert torch.equal(ours.conv1.weight, tvm.resnet34().conv1.weight)
    assert capsys.readouterr().out == ""


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1000])


def a_web_page(file):
    file.write_text("<html>Not the file you want</html>" * 50)


def an_lfs_pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\n")


def one_bit_wrong(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def no_sums(file):
    file.with_name("SHA256SUMS").unlink()


def a_layer_less(file):
    save_file({k: t for k, t in load_file(file).items() if k != "layer4.2.bn2.weight"}, file)
    write_sums(file)


def a_layer_of_another_size(file):
    save_file({**load_file(file), "conv1.weight": torch.zeros(64, 3, 3, 3)}, file)
    write_sums(file)


def a_layer_more(file):
    save_file({**load_file(file), "layer5.0.conv1.weight": torch.zeros(1)}, file)
    write_sums(file)


@pytest.mark.parametrize(
    ("spoil", "case"),
    [
        (lambda file: file.unlink(), "the bundled body is missing"),
        (cut_short, "the bundled body is cut short"),
        (a_web_page, "the bundled body is a web page"),
        (an_lfs_pointer, "the bundled body is a pointer of Git LFS"),
        (lambda file: file.write_bytes(b""), "the bundled body is empty"),
        (one_bit_wrong, "one bit of the bundled body is wrong"),
        (no_sums, "the body's checksum is missing"),
        (a_layer_less, "a body with a layer less"),
        (a_layer_more, "a body with a layer more"),
        (a_layer_of_another_size, "a body of another architecture"),
    ],
)
def test_a_spoilt_bundled_file_is_one_clear_sentence(
    monkeypatch, tmp_path, fake_body, no_network, spoil, case
):
    file = tmp_path / fake_body.name
    file.write_bytes(fake_body.read_bytes())
    write_sums(file)
    spoil(file)
    monkeypatch.setattr(backbone, "BUNDLED", file)
    monkeypatch.setenv("BODY", "bundled")
    with untouched(tmp_path), pytest.raises(BodyError) as caught:
        resnet34(weights="DEFAULT")
    message = str(caught.value)
    keeps(case, message)
    assert str(tmp_path) in message and "restore it from the repository" in message
    assert "\n" not in message


def test_with_neither_body_the_message_gives_both_reasons(monkeypatch, tmp_path, server):
    server.do = not_found
    use(monkeypatch, server.server_port)
    monkeypatch.setattr(backbone, "BUNDLED", tmp_path / "resnet34-body.safetensors")
    with pytest.raises(BodyError, match="is missing.*404") as caught:
        resnet34(weights="DEFAULT")
    keeps("neither body can be had", str(caught.value))


# --- as a drop-in in fastai -------------------------------------------------------------------


@pytest.fixture
def dls(tmp_path):
    noise = np.random.default_rng(0)
    for split in ("train", "valid"):
        for i in range(4):
            file = tmp_path / "imgs" / split / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(file)
    return ImageDataLoaders.from_folder(
        tmp_path / "imgs", valid="valid", item_tfms=Resize(64), bs=4, num_workers=0, device="cpu"
    )


def normalises(dls):
    return any(isinstance(step, Normalize) for step in dls.after_batch.fs)


def test_vision_learner_takes_it_as_it_takes_torchvisions(monkeypatch, dls, no_network, fake_body):
    monkeypatch.setenv("BODY", "bundled")
    learn = vision_learner(dls, resnet34, metrics=accuracy)
    body, head = learn.model[0], learn.model[1]
    assert torch.equal(body[0].weight, load_file(fake_body)["conv1.weight"].float())
    assert len(body) == 8 and head[-1].out_features == 2
    assert normalises(dls)
    theirs = vision_learner(dls, tvm.resnet34, pretrained=False)
    theirs.create_opt()
    sizes = [[p.shape for p in group] for group in learn.opt.param_lists]
    assert sizes == [[p.shape for p in group] for group in theirs.opt.param_lists]
    assert len(sizes) == 3 and learn.opt.frozen_idx == 2
    assert not body[0].weight.requires_grad and not body[7][0].conv1.weight.requires_grad
    assert all(p.requires_grad for p in head.parameters())
    learn.unfreeze()
    assert body[0].weight.requires_grad


def test_vision_learner_without_pretraining(dls, no_network, capsys):
    learn = vision_learner(dls, resnet34, pretrained=False)
    assert learn.model[0][0].weight.requires_grad
    assert not normalises(dls)
    assert capsys.readouterr().out == ""


def test_a_learner_survives_export(monkeypatch, dls, no_network, tmp_path):
    monkeypatch.setenv("BODY", "bundled")
    learn = vision_learner(dls, resnet34, path=tmp_path)
    learn.export("export.pkl")
    again = load_learner(tmp_path / "export.pkl")
    assert again.arch is resnet34
    file = next((tmp_path / "imgs").rglob("*.png"))
    assert torch.allclose(again.predict(file)[2], learn.predict(file)[2], atol=1e-5)
