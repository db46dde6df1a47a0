"""How the bundled body is made: pictures from packages, scenes, imitation, export."""

import io
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
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
import schedules  # noqa: E402
import teacher  # noqa: E402
import train  # noqa: E402


def encoded(size, mode="RGB", hole=False, seed=0):
    """A PNG of random pixels; with a hole, its outer half is transparent."""
    channels = {"RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], channels))
    pixels = pixels.astype(np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    if hole:
        pixels[: size[1] // 2, :, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_deb(path, files):
    """A Debian package with these files: {path: bytes}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with path.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for name, content in (
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", b"odd"),
            ("data.tar.xz", data.getvalue()),
        ):
            deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            deb.write(content + b"\n" * (len(content) % 2))


# --- pictures


def test_files_of_a_package_are_read(tmp_path):
    files = {"./usr/share/a.png": b"one", "./usr/share/doc/copyright": b"GPL"}
    write_deb(tmp_path / "a.deb", files)
    assert dict(pictures.deb_members(tmp_path / "a.deb")) == files


def test_transparent_pictures_are_cutouts_and_others_photos():
    kind, pixels = pictures.decode(encoded((300, 200)))
    assert kind == "photos" and pixels.shape == (200, 300, 3)
    kind, pixels = pictures.decode(encoded((100, 200), "RGBA", hole=True))
    assert kind == "cutouts" and pixels.shape == (100, 100, 4)  # without its empty half


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
    assert list(pictures.unpack("x.png", one)) == [one]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A folder with both banks, of one small package."""
    folder = tmp_path_factory.mktemp("bank")
    files = {f"./share/{i}.png": encoded((300, 200), seed=i) for i in range(3)}
    files |= {f"./share/c{i}.png": encoded((90, 80), "RGBA", True, seed=i) for i in range(4)}
    files["./share/twice.png"] = files["./share/0.png"]
    files["./doc/3.png"] = encoded((300, 200), seed=9)  # not among the files asked for
    write_deb(folder / "tiny_1_all.deb", files)
    package = pictures.Package(
        "tiny", pictures.checksum(folder / "tiny_1_all.deb"), "MIT", r"share/.*\.png"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "PACKAGES", (package,))
        assert pictures.build(folder, folder) == {"photos": 3, "cutouts": 4}
    return folder


def test_the_bank_gives_back_what_was_put_in(bank):
    photos = pictures.Bank(bank, "photos")
    assert len(photos) == 3 and photos.sources == ["tiny"] * 3
    expected = np.asarray(Image.open(io.BytesIO(encoded((300, 200), seed=1))))
    np.testing.assert_array_equal(photos[1], expected)


def test_a_missing_bank_says_how_to_make_it(tmp_path):
    with pytest.raises(SystemExit, match="pictures.py"):
        pictures.Bank(tmp_path, "photos")


@pytest.mark.parametrize("answer", ["no apt", "refuses", "another version"])
def test_a_package_that_cannot_be_had_is_named(tmp_path, monkeypatch, answer):
    def apt(command, cwd, **_):
        if answer == "no apt":
            raise FileNotFoundError(command[0])
        if answer == "another version":
            write_deb(cwd / "tiny_2_all.deb", {})
        refused = "E: Unable to locate package tiny\n" if answer == "refuses" else ""
        return subprocess.CompletedProcess(command, 100, "", refused)

    monkeypatch.setattr(subprocess, "run", apt)
    (tmp_path / "tiny_1_all.deb").write_bytes(b"half of it")  # a broken download
    with pytest.raises(SystemExit, match="^tiny with SHA-256 000.*start again"):
        pictures.fetch(pictures.Package("tiny", "0" * 64, "MIT", "."), tmp_path)


# --- scenes


def test_same_seed_gives_same_scenes_and_another_gives_others(bank):
    first = scenes.Scenes(bank, 0).batch(8, 64)
    assert first.shape == (8, 64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, scenes.Scenes(bank, 0).batch(8, 64))
    assert np.abs(first.astype(int) - scenes.Scenes(bank, 1).batch(8, 64)).mean() > 20


def test_some_scenes_lack_colour_and_most_do_not(bank):
    batch = scenes.Scenes(bank, 3).batch(200, 32).astype(int)
    grey = (np.ptp(batch, axis=-1).mean((1, 2)) < 20).mean()
    assert 0 < grey < 0.4


# --- imitation


@pytest.mark.parametrize("stride", [1, 2])
def test_the_fast_convolution_learns_as_pytorchs_own(stride):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 8, 3, 3, dtype=torch.double, requires_grad=True)
    ours = train.Convolution.apply(x, weight, stride)
    theirs = F.conv2d(x, weight, None, stride, 1)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), grad),
        torch.autograd.grad(theirs, (x, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.fixture(scope="module")
def net():
    return teacher.Teacher(96)


def test_teacher_and_student_speak_of_the_same_shapes(net):
    x = torch.randn(2, 3, 96, 96)
    theirs, mine = net(x), train.Student()(x)
    assert [t.shape for t in theirs] == [m.shape for m in mine]
    torch.testing.assert_close(theirs[-1], net.net(x))
    larger = net(torch.randn(2, 3, 160, 160))
    assert [t.shape for t in larger] == [m.shape for m in mine]


def test_nothing_is_lost_only_where_both_say_the_same(net):
    said = net(torch.randn(2, 3, 96, 96))
    spread = [(t.mean((0, 2, 3), True), t.std((0, 2, 3), keepdim=True) + 1e-3) for t in said[:4]]
    same = [(t - m) / s for t, (m, s) in zip(said, spread, strict=False)] + [said[4]]
    terms = train.losses(same, said, spread)
    assert set(terms) == set(train.WEIGHT)
    assert all(abs(float(term)) < 1e-5 for term in terms.values())
    other = [t + 0.5 * torch.randn_like(t) for t in same]
    assert all(float(term) > 1e-3 for term in train.losses(other, said, spread).values())


def test_the_rate_rises_stays_and_falls():
    rates = [train.rate_at(scenes, 1_000_000) for scenes in (0, 400_000, 790_000, 900_000)]
    assert rates[0] < 1e-3 * train.RATE and rates[1] == rates[2] == train.RATE
    assert rates[3] == pytest.approx(train.RATE / 2) and train.rate_at(10**6, 10**6) == 0


def test_a_longer_run_goes_on_from_before_the_rates_fell(tmp_path):
    torch.save({"scenes": 1000, "total": 1000}, tmp_path / "checkpoint.pt")
    torch.save({"scenes": 800, "total": 1000}, tmp_path / "trunk.pt")
    assert train.last_checkpoint(tmp_path, 1000)["scenes"] == 1000
    assert train.last_checkpoint(tmp_path, 5000)["scenes"] == 800
    torch.save({"scenes": 1500, "total": 5000}, tmp_path / "checkpoint.pt")
    assert train.last_checkpoint(tmp_path, 9000)["scenes"] == 1500
    assert train.last_checkpoint(tmp_path / "new", 9000) is None


def test_rows_after_the_checkpoint_are_dropped_on_going_on(tmp_path):
    log = tmp_path / "training.csv"
    log.write_text("scenes,minutes\n64,1.0\n128,2.0\n192,2.5\n")
    train.forget_after(log, 128)
    assert log.read_text() == "scenes,minutes\n64,1.0\n128,2.0\n"


def test_a_training_can_be_stopped_gone_on_with_and_exported(bank, tmp_path, monkeypatch):
    command = [sys.executable, train.__file__, "--out", tmp_path, "--pictures", bank, "--scenes"]
    for total in ("128", "192"):
        subprocess.run([*command, total], check=True, capture_output=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["scenes"] == 192 and state["total"] == 192
    monkeypatch.setattr(export, "scene_batches", lambda _: [torch.randn(4, 3, 64, 64)])
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "checkpoint.pt"), "--to", str(tmp_path)])
    export.main()
    body = export.load_body(tmp_path / export.NAME)
    sums = (tmp_path / "SHA256SUMS").read_text().split()
    assert sums == [pictures.checksum(tmp_path / export.NAME), export.NAME]
    learned = state["ema"]["body.conv1.weight"]
    torch.testing.assert_close(body.conv1.weight, learned, atol=1e-3, rtol=1e-2)


# --- judging


def test_features_that_tell_the_classes_apart_are_judged_so():
    labels = np.repeat([0, 1], 20)
    x = np.random.default_rng(0).normal(size=(40, 5)) + 9 * labels[:, None]
    imgs = (x, labels), (x, labels), x
    told = evaluate.judge(lambda pictures: pictures, imgs, (x, labels))
    assert all(scores == [1.0] * len(evaluate.SEEDS) for scores in told.values())
    guessed = evaluate.judge(lambda pictures: np.zeros((40, 5)), imgs, None)
    assert set(told) - set(guessed) == {"photos, fifths held out"}
    assert all(np.mean(scores) <= 0.6 for scores in guessed.values())


def test_a_schedule_is_epochs_and_rates():
    assert schedules.schedule("2,3e-3") == (2, 3e-3, [])
    assert schedules.schedule("3,1e-5,3e-4") == (3, slice(1e-5, 3e-4), [])
    still = (3, slice(1e-5, 3e-4), [schedules.StillBatchNorm])
    assert schedules.schedule("3,1e-5,3e-4,still") == still
    for text in ("3", "still", "3,still", "3,1e-5,3e-4,1e-3", "three,1e-3", "3,fast"):
        with pytest.raises(ValueError):
            schedules.schedule(text)


def test_the_table_of_schedules_takes_means_over_fifths_and_seeds():
    rows = [[(0.1, 1.0), (0.3, 0.8)], [(0.2, 0.9), (0.2, 0.7)]]
    assert schedules.markdown({"2,3e-3": rows}).endswith("| 2,3e-3 | 85.0% | 5.0% | 0.200 |")
    assert "| - |" in schedules.markdown({"2,3e-3": rows[:1]})


def test_a_picture_is_met_in_another_look_but_with_its_own_label():
    looks, labels = torch.arange(12).view(3, 4, 1), torch.arange(4)
    augmented = schedules.Augmented(looks, labels)
    for i in range(len(augmented)):
        met = [augmented[i] for _ in range(60)]
        assert {int(x) for x, _ in met} == {i, i + 4, i + 8} and {int(y) for _, y in met} == {i}
