"""Folders and pictures that people really have: what the notebook and `make run` make of them."""

import errno
import io
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from fastai.data.transforms import image_extensions
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageDataLoaders
from PIL import Image, features
from promises import keeps, untouched
from torch._utils import ExceptionWrapper

from tutorial import check_folder, check_images, hello, split_images
from tutorial.errors import FolderError, PictureError
from tutorial.folders import reading

NOBODY = 65534


def data(seed=0, kind="JPEG", size=(80, 70), **options):
    """The bytes of a picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind, **options)
    return stream.getvalue()


def put(place, content):
    """Write a file, and the folders it needs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def make(root, classes=("cat", "dog"), train=9, valid=3):
    """A sound folder of pictures."""
    places = [
        root / split / label / f"{i}.jpg"
        for split, n in (("train", train), ("valid", valid))
        for label in classes
        for i in range(n)
    ]
    for seed, place in enumerate(places):
        put(place, data(seed, size=(64, 64) if len(places) < 100 else (4, 4)))
    return root


@pytest.fixture
def imgs(tmp_path):
    """A sound folder of two classes, 9 and 3 pictures of each."""
    return make(tmp_path / "imgs")


@pytest.fixture
def tell(capsys):
    """A function: what the doctor prints of a folder, and what the notebook's first step says."""

    def said(root):
        capsys.readouterr()
        with untouched(root):
            check_images(root)
            try:
                check_folder(root)
            except FolderError as error:
                print(error)
        return capsys.readouterr().out

    return said


def healthy(said):
    """Whether there was nothing to say."""
    return said.rstrip().endswith("没有改动任何文件。") and "Good to know: 0." in said


def loaders(root):
    """What step 2 makes of a folder, with smaller pictures."""
    return ImageDataLoaders.from_folder(
        root, valid="valid", item_tfms=Resize(32), bs=16, num_workers=0
    )


# --- folders


def test_a_class_of_hidden_files_only(imgs, tell):
    for split in ("train", "valid"):
        put(imgs / split / "emu" / ".0.jpg", data())
    said = tell(imgs)
    keeps("a class of hidden files only", said)
    assert list(loaders(imgs).vocab) == ["cat", "dog"]


def test_a_folder_named_like_a_picture(imgs, tell):
    put(imgs / "train" / "cat" / "x.jpg" / "y.jpg", data(99))
    keeps("a folder named like a picture in a class", tell(imgs))
    assert len(loaders(imgs).train_ds) == check_folder(imgs)["train"]["cat"] + 9 == 18


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("a folder named train inside a class", "train/cat/train/dog/x.jpg"),
        ("a folder named valid inside train", "train/valid/cat/x.jpg"),
    ],
)
def test_a_folder_named_like_a_split_inside_a_class(imgs, tell, case, place):
    put(imgs / place, data(99))
    counts = [len(part) for part in (loaders(imgs).train_ds, loaders(imgs).valid_ds)]
    assert counts != [18, 6], "fastai takes it, so somebody has to say so"
    said = tell(imgs)
    keeps(case, said)
    assert "nested folder" not in said, "what is said of those is not true here"


def test_classes_named_like_splits(tmp_path, tell):
    imgs = make(tmp_path / "imgs", ("train", "valid"))
    assert healthy(tell(imgs))
    dls = loaders(imgs)
    assert [len(dls.train_ds), len(dls.valid_ds), *dls.vocab] == [18, 6, "train", "valid"]
    keeps("classes named train and valid")


def test_classes_that_differ_in_capitals_only(tmp_path, tell):
    if (tmp_path / "A").exists() or make(tmp_path / "a").parent.joinpath("A").exists():
        pytest.skip("this disk does not tell capitals apart")
    imgs = make(tmp_path / "imgs", ("cat", "Cat"))
    keeps("classes that differ in capitals only", tell(imgs))
    assert list(loaders(imgs).vocab) == ["Cat", "cat"]


def test_two_hundred_classes(tmp_path, capsys, monkeypatch, tell):
    imgs = make(tmp_path / "imgs", [f"class {i:03}" for i in range(200)], train=1, valid=1)
    assert "STOPS" not in tell(imgs)
    dls = loaders(imgs)
    assert dls.c == 200 and len(dls.one_batch()[1]) == 16
    monkeypatch.setattr("tutorial.start.train_rate", lambda: 100)
    hello(imgs, 1, 1)
    keeps("200 classes", capsys.readouterr().out)
    hello(make(tmp_path / "few"), 1, 1)
    assert "more than the" not in capsys.readouterr().out


def test_ten_thousand_pictures(tmp_path, capfd):
    picture = data(size=(64, 64))
    for split, n in (("train", 4500), ("valid", 500)):
        for label in ("cat", "dog"):
            for i in range(n):
                number = f"{split}{label}{i:05}".encode()  # no two are equal
                put(tmp_path / "imgs" / split / label / f"{i}.jpg", picture + number)
    with untouched(tmp_path):
        table = check_images(tmp_path / "imgs")
    assert table.empty
    said, progress = capfd.readouterr()
    assert "10000 pictures: train 9000, valid 1000, test 0" in said
    assert "100.00%" in said + progress
    assert check_folder(tmp_path / "imgs")["train"] == {"cat": 4500, "dog": 4500}
    keeps("10,000 pictures")


def test_names_in_chinese_with_emoji_and_with_blanks(tmp_path, tell, monkeypatch, capsys):
    imgs = make(tmp_path / "我的 🖼️ pictures", ("哆啦A梦", "🤖 瓦力 & Eve"))
    for i in range(2):
        put(imgs / "test" / f"哆啦A梦. 图 {i} 🎈.jpg", data(90 + i))
    assert healthy(tell(imgs))
    assert sorted(loaders(imgs).vocab) == ["哆啦A梦", "🤖 瓦力 & Eve"]
    monkeypatch.setattr("tutorial.start.train_rate", lambda: 100)
    hello(imgs, 1, 1)
    assert "2 for testing; the classes are 哆啦A梦, 🤖 瓦力 & Eve." in capsys.readouterr().out
    assert len(list(split_images(imgs / "train", tmp_path / "又 🎈").rglob("*.jpg"))) == 18
    keeps("names in Chinese, with emoji and with blanks")


# --- links


def test_two_folders_that_link_to_each_other(imgs, tell):
    (imgs / "train" / "cat" / "more").symlink_to("../dog")
    (imgs / "train" / "dog" / "more").symlink_to("../cat")
    keeps("two folders that link to each other", tell(imgs))


def test_valid_as_a_link_to_train(tmp_path, capsys):
    imgs = make(tmp_path / "imgs", ("cat",), valid=0)
    make(imgs.parent / "imgs", ("dog",), valid=0)
    (imgs / "valid").symlink_to("train")
    check_images(imgs)
    said = capsys.readouterr().out
    keeps("valid as a link to train", said)
    assert check_folder(imgs)["valid"] == {"cat": 9, "dog": 9}


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


def test_a_jpeg_with_a_broken_exif(imgs, tell):
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
    assert healthy(tell(imgs))
    keeps("a JPEG with a broken EXIF")


def test_a_picture_of_one_pixel(imgs, tell):
    file = put(imgs / "train" / "cat" / "x.jpg", data(size=(1, 1)))
    keeps("a picture of one pixel", tell(imgs))
    for split in (0, 1):
        assert Resize(224)(PILImage.create(file), split_idx=split).size == (224, 224)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow knows no AVIF")
def test_an_avif_picture(imgs, tell):
    file = put(imgs / "train" / "cat" / "x.avif", data(70, "AVIF"))
    said = tell(imgs)
    assert healthy(said) if ".avif" in image_extensions else "passed over (1)" in said
    assert PILImage.create(file).size == (80, 70)
    keeps("an AVIF picture")


# --- photos, several times larger than the network's input


@pytest.mark.parametrize(
    ("kind", "size", "read"),
    [
        ("JPEG", (2000, 1500), (1000, 750)),
        ("JPEG", (1100, 4200), (550, 2100)),
        ("JPEG", (1600, 1000), (1600, 1000)),  # at half its size it would have 500 pixels
        ("MPO", (2100, 2100), (525, 525)),  # what many phones make
        ("PNG", (2000, 1500), (2000, 1500)),
        ("JPEG", (80, 70), (80, 70)),
    ],
)
def test_a_photo_is_read_no_larger_than_it_need_be(kind, size, read, tmp_path):
    x, y = np.meshgrid(np.arange(size[0]) / size[0], np.arange(size[1]) / size[1])
    waves = np.stack([np.sin(20 * x), np.sin(30 * y), np.sin(15 * (x + y))], 2)
    Image.fromarray(((waves + 1) * 127).astype("uint8")).save(tmp_path / "photo", kind, quality=95)
    picture = PILImage.create(tmp_path / "photo")
    assert (picture.size, picture.mode) == (read, "RGB")
    # The network sees the same: less than one step of 255 is between them.
    whole = PILImage(Image.open(tmp_path / "photo").convert("RGB"))
    seen = [np.asarray(Resize(224)(p, split_idx=1)).astype(float) for p in (picture, whole)]
    assert np.abs(seen[0] - seen[1]).mean() < 1


def test_a_photo_cut_short_is_found_out_all_the_same(tmp_path):
    Image.effect_noise((2000, 1500), 60).convert("RGB").save(tmp_path / "photo.jpg")
    content = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match="photo.jpg: truncated"):
        PILImage.create(tmp_path / "photo.jpg")


# --- a picture that can't be read, met by fastai


def test_an_error_that_is_not_the_picture_s_fault_stays_what_it_was(imgs, monkeypatch):
    def exhausted(file, mode):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(reading, "_open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        PILImage.create(imgs / "train" / "cat" / "0.jpg")
    monkeypatch.undo()
    with pytest.raises(Image.UnidentifiedImageError):
        PILImage.create(b"content that has no file")


def test_a_worker_process_sends_the_sentence_alone(tmp_path):
    half = put(tmp_path / "half.jpg", data()[:200] + bytes(400))
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
