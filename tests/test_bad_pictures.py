"""Folders and pictures that people really have: what the notebook and `make run` make of them."""

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from fastai.data.transforms import image_extensions
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageDataLoaders
from folders import data, make, noise, put, told
from PIL import Image, features
from promises import keeps, untouched
from torch._utils import ExceptionWrapper

from tutorial import check_folder, check_images, hello, split_images
from tutorial.errors import FolderError, PictureError
from tutorial.folders import reading

NOBODY = 65534


@pytest.fixture
def imgs(tmp_path):
    """A sound folder of two classes, 9 and 3 pictures of each."""
    return make(tmp_path / "imgs")


def healthy(said):
    """Whether there was nothing to say."""
    return said.rstrip().endswith("没有改动任何文件。") and "Good to know: 0." in said


def loaders(root):
    """What step 2 makes of a folder, with smaller pictures."""
    return ImageDataLoaders.from_folder(
        root, valid="valid", item_tfms=Resize(32), bs=16, num_workers=0
    )


# --- folders


@pytest.mark.parametrize("place", ["train/cat/train/dog/x.jpg", "train/valid/cat/x.jpg"])
def test_fastai_takes_a_split_inside_a_class(imgs, place):
    put(imgs / place, data(99))
    assert [len(part) for part in (loaders(imgs).train_ds, loaders(imgs).valid_ds)] != [18, 6]


def test_classes_named_like_splits(tmp_path, capsys):
    imgs = make(tmp_path / "imgs", ("train", "valid"))
    assert healthy(told(imgs, capsys))
    dls = loaders(imgs)
    assert [len(dls.train_ds), len(dls.valid_ds), *dls.vocab] == [18, 6, "train", "valid"]
    keeps("classes named train and valid")


def test_classes_that_differ_in_capitals_only(tmp_path, capsys):
    if (tmp_path / "A").exists() or make(tmp_path / "a").parent.joinpath("A").exists():
        pytest.skip("this disk does not tell capitals apart")
    imgs = make(tmp_path / "imgs", ("cat", "Cat"))
    keeps("classes that differ in capitals only", told(imgs, capsys))
    assert list(loaders(imgs).vocab) == ["Cat", "cat"]


def test_two_hundred_classes(tmp_path, capsys, monkeypatch):
    imgs = make(tmp_path / "imgs", [f"class {i:03}" for i in range(200)], train=1, valid=1)
    assert "STOPS" not in told(imgs, capsys)
    dls = loaders(imgs)
    assert dls.c == 200 and len(dls.one_batch()[1]) == 16
    monkeypatch.setattr("tutorial.start.train_rate", lambda: 100)
    hello(imgs, 1, 1)
    keeps("200 classes", capsys.readouterr().out)
    hello(make(tmp_path / "few"), 1, 1)
    assert "more than the" not in capsys.readouterr().out


def test_ten_thousand_pictures(tmp_path, capfd):
    picture = data(Image.new("RGB", (64, 64)))
    for split, n in (("train", 4500), ("valid", 500)):
        for label in ("cat", "dog"):
            for i in range(n):  # what follows a picture's end is not read: no two are equal
                put(tmp_path / split / label / f"{i}.jpg", picture + f"{split}{label}{i}".encode())
    assert check_images(tmp_path).empty
    said, progress = capfd.readouterr()
    assert "10000 pictures: train 9000, valid 1000, test 0" in said
    assert "100.00%" in said + progress
    assert check_folder(tmp_path)["train"] == {"cat": 4500, "dog": 4500}
    keeps("10,000 pictures")


def test_names_in_chinese_with_emoji_and_with_blanks(tmp_path, capsys, monkeypatch):
    imgs = make(tmp_path / "我的 🖼️ pictures", ("哆啦A梦", "🤖 瓦力 & Eve"))
    for i in range(2):
        put(imgs / "test" / f"哆啦A梦. 图 {i} 🎈.jpg", data(90 + i))
    assert healthy(told(imgs, capsys))
    assert sorted(loaders(imgs).vocab) == ["哆啦A梦", "🤖 瓦力 & Eve"]
    monkeypatch.setattr("tutorial.start.train_rate", lambda: 100)
    hello(imgs, 1, 1)
    assert "3 for testing; the classes are 哆啦A梦, 🤖 瓦力 & Eve." in capsys.readouterr().out
    assert len(list(split_images(imgs / "train", tmp_path / "又 🎈").rglob("*.jpg"))) == 18
    keeps("names in Chinese, with emoji and with blanks")


# --- permissions


@pytest.fixture
def foreign():
    """A sound folder where everybody may look, and a way to look at it as an ordinary user."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has other permissions")
    with tempfile.TemporaryDirectory() as place:  # all folders above pytest's are root's alone
        os.chmod(place, 0o755)
        imgs = make(Path(place, "imgs"))
        check_images(imgs)  # what is imported late is imported now
        yield imgs
        for folder, folders, files in os.walk(place):
            for name in [*folders, *files]:
                os.chmod(os.path.join(folder, name), 0o755)


@contextmanager
def as_anybody():
    """Be no root: root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_picture_without_permission(foreign, capsys):
    closed = foreign / "train" / "cat" / "0.jpg"
    closed.chmod(0)
    capsys.readouterr()
    with untouched(foreign), as_anybody():
        table = check_images(foreign)
        with pytest.raises(PictureError) as error:
            PILImage.create(closed)
    assert list(table["file"]) == ["train/cat/0.jpg"]
    keeps("a picture without permission to read it", capsys.readouterr().out + str(error.value))


@pytest.mark.parametrize(
    ("case", "closed"),
    [
        ("a class without permission to read it", "train/dog"),
        ("a folder of pictures without permission to read it", ""),
    ],
)
def test_a_folder_without_permission(foreign, capsys, case, closed):
    (foreign / closed).chmod(0)
    capsys.readouterr()
    with untouched(foreign), as_anybody():
        table = check_images(foreign)
        with pytest.raises(FolderError) as error:
            check_folder(foreign)
    assert table["stops training"].any()
    keeps(case, capsys.readouterr().out + str(error.value))


def test_a_split_into_a_folder_without_permission(foreign):
    with untouched(foreign.parent), as_anybody(), pytest.raises(FolderError) as error:
        split_images(foreign / "train", foreign.parent / "new")
    keeps("split_images into a folder without permission to write", str(error.value))


# --- pictures


def test_a_jpeg_with_a_broken_exif(imgs, capsys):
    exif = Image.Exif()
    exif.update({274: 6, 271: "a camera"})
    whole = exif.tobytes()
    broken = [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        whole[:20],
        whole[:8] + bytes([255] * (len(whole) - 8)),
        b"Exif\0\0" + b"no such thing" * 9,
    ]
    for i, marks in enumerate(broken):
        file = put(imgs / "train" / "cat" / f"exif{i}.jpg", data(60 + i, exif=marks))
        assert PILImage.create(file).size == (80, 70)
    assert healthy(told(imgs, capsys))
    keeps("a JPEG with a broken EXIF")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow knows no AVIF")
def test_an_avif_picture(imgs, capsys):
    file = put(imgs / "train" / "cat" / "x.avif", data(70, "AVIF"))
    said = told(imgs, capsys)
    assert healthy(said) if ".avif" in image_extensions else "passed over (1)" in said
    assert PILImage.create(file).size == (80, 70)
    keeps("an AVIF picture")


def test_a_photo_is_read_at_its_own_size(tmp_path):
    """So a mask fits its photo, and a larger `Resize` gets all there is."""
    for kind in ("JPEG", "PNG"):
        put(tmp_path / "photo", data(noise(size=(1100, 1200)), kind))
        assert PILImage.create(tmp_path / "photo").size == (1100, 1200)


def test_step_1_says_that_photos_are_large(imgs, monkeypatch, capsys):
    monkeypatch.setattr("tutorial.start.train_rate", lambda: 100)
    hello(imgs, 1, 1)
    assert "resize_images" not in capsys.readouterr().out
    for file in imgs.rglob("*.jpg"):
        put(file, data(Image.new("1", (3000, 2500)), "PNG"))
    hello(imgs, 1, 1)
    assert capsys.readouterr().out.count("resize_images") == 1


# --- a picture that can't be read, met by fastai


def test_an_error_that_is_not_the_picture_s_fault_stays_what_it_was(imgs, monkeypatch):
    def exhausted(file, mode):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(reading, "plain_load_image", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        PILImage.create(imgs / "train" / "cat" / "0.jpg")
    monkeypatch.undo()
    with pytest.raises(Image.UnidentifiedImageError):
        PILImage.create(b"content that has no file")


def test_a_worker_process_sends_the_sentence_alone(tmp_path):
    half = put(tmp_path / "half.jpg", data(0)[:200] + bytes(400))
    try:
        PILImage.create(half)
    except PictureError:
        sent = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(PictureError) as error:
        sent.reraise()
    assert str(error.value).startswith(str(half))
    keeps("a damaged picture in a worker process", str(error.value))


def test_a_damaged_picture_in_a_batch(imgs):
    for i in range(3):  # a batch holds 16 of 18, so one of these at least
        put(imgs / "train" / "dog" / f"{i}.jpg", data(i)[:-40])
    with untouched(imgs), pytest.raises(PictureError) as error:
        loaders(imgs).show_batch()
    keeps("a damaged picture in a batch, in the notebook", str(error.value))


def test_a_picture_that_is_gone(imgs):
    dls = loaders(imgs)
    gone = imgs / "valid" / "dog" / "1.jpg"
    gone.unlink()
    with pytest.raises(PictureError) as error:
        list(dls.valid)
    assert str(error.value).startswith(str(gone))
    keeps("a picture that is gone since step 2", str(error.value))


CELLS = {
    "Load": """\
import tutorial
from fastai.vision.all import *
from tutorial import *

path = Path(os.environ["IMGS"])
check_folder(path)
dls = ImageDataLoaders.from_folder(path, item_tfms=Resize(32), bs=16, num_workers=0)
dls.show_batch()
""",
    "Train": """\
net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
learn = Learner(dls, net, CrossEntropyLossFlat(), path=os.environ["OUT"])
learn.fit(1)
""",
    "Too late": "raise RuntimeError",
}


@pytest.mark.slow
def test_make_run_with_a_damaged_picture(imgs, tmp_path):
    put(imgs / "valid" / "dog" / "0.jpg", b"<html>404 Not Found</html>")
    nb = nbformat.v4.new_notebook()
    for title, code in CELLS.items():
        nb.cells.append(nbformat.v4.new_markdown_cell(f"### {title}"))
        nb.cells.append(nbformat.v4.new_code_cell(code))
    nbformat.write(nb, tmp_path / "small.ipynb")
    with untouched(imgs):
        done = subprocess.run(
            [sys.executable, "tools/run_notebook.py", str(tmp_path / "small.ipynb")],
            cwd=ROOT,
            env=dict(os.environ, IMGS=str(imgs), OUT=str(tmp_path / "out")),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    keeps("`make run` with a damaged picture", done.stderr)
    ran = nbformat.read(tmp_path / "out" / "small.ipynb", as_version=4)
    shown = [o.traceback for cell in ran.cells for o in cell.get("outputs", []) if "ename" in o]
    assert len(shown) == 1 and len(shown[0]) == 1 and "\n" not in shown[0][0], "a sentence alone"
    keeps("a damaged picture in training, in the notebook", shown[0][0])
