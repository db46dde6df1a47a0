"""How the bundled body is made: pictures from packages, scenes, imitation, export, judging."""

import io
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image

pytest.importorskip(
    "cv2",
    reason="cv2 is missing; tools/pretrain_body/requirements.txt has what making the body needs, "
    "and the tutorial works without it",
)
sys.path.insert(0, str(ROOT / "tools" / "pretrain_body"))

import evaluate  # noqa: E402
import export  # noqa: E402
import pictures  # noqa: E402
import scenes  # noqa: E402
import teacher  # noqa: E402
import train  # noqa: E402


def encoded(size, hole=False, seed=0):
    """A PNG of random pixels; with a hole, its upper half is transparent."""
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3 + hole))
    if hole:
        pixels[..., 3] = 255
        pixels[: size[1] // 2, :, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    return file.getvalue()


def write_deb(path, files):
    """A Debian package with these files: {path: bytes}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    parts = (b"2.0\n", b"odd", data.getvalue())
    with path.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for name, content in zip(("debian-binary", "control.tar.xz", "data.tar.xz"), parts):  # noqa: B905
            deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            deb.write(content + b"\n" * (len(content) % 2))


# --- pictures


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A folder with both banks, of one small package."""
    folder = tmp_path_factory.mktemp("bank")
    files = {f"./share/{i}.png": encoded((300, 200), seed=i) for i in range(3)}
    files |= {f"./share/c{i}.png": encoded((100, 200), True, seed=i) for i in range(4)}
    files["./share/twice.png"] = files["./share/0.png"]
    files["./doc/3.png"] = encoded((300, 200), seed=9)  # not among the files asked for
    write_deb(folder / "tiny_1_all.deb", files)
    digest = pictures.checksum(folder / "tiny_1_all.deb")
    package = pictures.Package("tiny", digest, "MIT", r"share/.*\.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "PACKAGES", (package,))
        assert pictures.build(folder, folder) == {"photos": 3, "cutouts": 4}
    return folder


def test_the_bank_gives_back_what_was_put_in(bank):
    photos = pictures.Bank(bank, "photos")
    assert photos.sources == ["tiny"] * 3
    wanted = np.asarray(Image.open(io.BytesIO(encoded((300, 200), seed=1))))
    np.testing.assert_array_equal(photos[1], wanted)
    assert pictures.Bank(bank, "cutouts")[0].shape == (100, 100, 4)  # without the empty half


@pytest.mark.parametrize("data", [b"", b"RIFF0000WEBPno", encoded((20, 20)), encoded((149, 900))])
def test_what_is_no_picture_or_too_small_is_passed_over(data):
    assert pictures.decode(data) is None


def test_pictures_inside_other_files_are_found():
    one, two = encoded((50, 50)), encoded((60, 50))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("chair/icon.png", one)
        archive.writestr("chair/chair.obj", "v 0 0 0")
    assert list(pictures.unpack("x.sh3f", file.getvalue())) == [one]
    found = [Image.open(io.BytesIO(d)).size for d in pictures.unpack("x.rcc", b"qres" + one + two)]
    assert found == [(50, 50), (60, 50)]


@pytest.mark.parametrize("answer", ["no apt", "another version"])
def test_a_package_that_cannot_be_had_is_named(tmp_path, monkeypatch, answer):
    def apt(command, cwd, **_):
        if answer == "no apt":
            raise FileNotFoundError(command[0])
        write_deb(cwd / "tiny_2_all.deb", {})
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", apt)
    (tmp_path / "tiny_1_all.deb").write_bytes(b"half of it")  # a broken download
    with pytest.raises(SystemExit, match="^tiny .*start again"):
        pictures.fetch(pictures.Package("tiny", "0" * 64, "MIT", "."), tmp_path)


def test_scenes_follow_their_seed_and_some_lack_colour(bank):
    first = scenes.Scenes(bank, 0).batch(100, 32)
    assert first.shape == (100, 32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, scenes.Scenes(bank, 0).batch(100, 32))
    assert np.abs(first.astype(int) - scenes.Scenes(bank, 1).batch(100, 32)).mean() > 20
    grey = (np.ptp(first.astype(int), axis=-1).mean((1, 2)) < 20).mean()
    assert 0 < grey < 0.4


# --- imitation


@pytest.mark.parametrize("stride", [1, 2])
def test_the_fast_convolution_learns_as_pytorchs_own(stride):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 8, 3, 3, dtype=torch.double, requires_grad=True)
    ours, theirs = train.Convolution.apply(x, weight, stride), F.conv2d(x, weight, None, stride, 1)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(
        (ours, *torch.autograd.grad(ours, (x, weight), grad)),
        (theirs, *torch.autograd.grad(theirs, (x, weight), grad)),
    )


@torch.no_grad()
def test_teacher_and_student_speak_of_the_same_and_a_loss_is_what_they_differ_in():
    net, x = teacher.Teacher(96), torch.randn(2, 3, 96, 96)
    said = net(x)
    torch.testing.assert_close(said[-1], net.net(x))
    for fast, exact in zip(teacher.compiled(net, 2, 96)(x), said, strict=True):
        assert F.cosine_similarity(fast.flatten(), exact.flatten(), 0) > 0.99  # perhaps in bfloat16
    for answers in (train.Student()(x), net(torch.randn(2, 3, 160, 160))):
        assert [a.shape for a in answers] == [s.shape for s in said]
    spread = train.spread_of([said])
    same = [(t - m) / s for t, (m, s) in zip(said, spread, strict=False)] + [said[4]]
    terms = train.losses(same, said, spread)
    assert set(terms) == set(train.WEIGHT)
    assert all(abs(float(term)) < 1e-5 for term in terms.values())
    other = [t + 0.5 * torch.randn_like(t) for t in same]
    assert all(float(term) > 1e-3 for term in train.losses(other, said, spread).values())


def test_the_rate_rises_stays_and_falls():
    rates = [train.rate_at(seen, 10**6) / train.RATE for seen in (0, 400_000, 790_000, 900_000)]
    assert rates == pytest.approx([0, 1, 1, 0.5], abs=1e-3) and train.rate_at(10**6, 10**6) == 0


def test_a_training_is_stopped_gone_on_with_and_exported(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "BATCH", 8)
    monkeypatch.setattr(train, "SIDES", ((float("inf"), 64, 96),))
    steps, losses = [], train.losses
    monkeypatch.setattr(train, "losses", lambda *said: steps.append(1) or losses(*said))
    monkeypatch.setattr(train, "compiled", lambda net, *shape: net)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for total in (40, 40, 48):  # the second finds nothing to do
            train.train(total, tmp_path, bank)
    finally:
        dist.destroy_process_group()
    assert len(steps) == 5 + 2  # a longer run goes on from before the rates fell, at 32
    rows = (tmp_path / "training.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["scenes", "48"]  # that of 40 is forgotten
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["scenes"], state["total"], state["step"]) == (48, 48, 6)
    monkeypatch.setattr(export, "scene_batches", lambda _: [torch.randn(4, 3, 64, 64)])
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "checkpoint.pt"), "--to", str(tmp_path)])
    export.main()
    sums = (tmp_path / "SHA256SUMS").read_text().split()
    assert sums == [pictures.checksum(tmp_path / export.NAME), export.NAME]
    learned = state["ema"]["body.conv1.weight"]
    body = export.load_body(tmp_path / export.NAME)
    torch.testing.assert_close(body.conv1.weight, learned, atol=1e-3, rtol=1e-2)


# --- judging


def test_features_that_tell_the_classes_apart_are_judged_so(monkeypatch):
    monkeypatch.setattr(evaluate, "SEEDS", (0, 1))
    labels = np.repeat([0, 1], 20)
    x = np.random.default_rng(0).normal(size=(40, 5)) + 9 * labels[:, None]
    imgs = (x, labels), (x, labels), x
    told = evaluate.judge(lambda pictures: pictures, imgs, (x, labels))
    assert len(told) == 4 and all(scores == [1.0, 1.0] for scores in told.values())
    guessed = evaluate.judge(lambda pictures: np.zeros((40, 5)), imgs, None)
    assert len(guessed) == 3 and all(np.mean(scores) <= 0.6 for scores in guessed.values())
