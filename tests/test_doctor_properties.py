"""The images doctor and the split on folders and damaged files that hypothesis invents."""

import io
import os
import tempfile
from collections import Counter
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
from fastai.data.transforms import get_image_files
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageDataLoaders
from folders import data, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image
from promises import state, untouched

from tutorial import check_folder, check_images, split_images
from tutorial.errors import FolderError, PictureError
from tutorial.folders.check import COLUMNS
from tutorial.folders.findings import PROBLEMS

# The same examples in every run, and nothing kept on disk: what is written at all goes elsewhere.
set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))
REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
A_PICTURE_IS_TO_BLAME = {"not an image", "truncated", "damaged", "far too huge"}


@pytest.fixture
def small_bombs(monkeypatch):
    """Pillow refuses a bomb already at 80,000 pixels, so that a wrong header eats no memory."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)


@cache
def picture(kind="PNG", mode="RGB", seed=0, **options):
    """The bytes of a small picture of noise."""
    return data(noise(seed, mode, size=(13, 9)), kind, **options)


def examine(root):
    """What `check_images` returns; it changes nothing, and prints what can be shown anywhere."""
    with untouched(root), redirect_stdout(io.StringIO()) as said:
        table = check_images(root)
    said.getvalue().encode("utf-8")
    assert list(table.columns) == COLUMNS
    assert set(table["problem"]) <= set(PROBLEMS)
    return table


# --- damaged bytes


@cache
def whole():
    """A picture of each format, in the variants that have decoders of their own."""
    exif = Image.Exif()
    exif.update({274: 6, 306: "2026:01:01 00:00:00"})
    exif = exif.tobytes()
    return [
        picture("JPEG"),
        picture("JPEG", progressive=True),
        picture("JPEG", "CMYK", exif=exif),
        picture("PNG"),
        picture("PNG", "P", transparency=b"\0\x80"),
        picture("PNG", "1"),
        picture("GIF", "P"),
        picture("WEBP"),
        picture("WEBP", lossless=True, exif=exif),
        picture("BMP"),
        picture("BMP", "P"),
        picture("TIFF"),
        picture("TIFF", compression="tiff_lzw", exif=exif),
    ]


@st.composite
def damaged(draw):
    """The bytes of a picture, cut short, flipped here and there, joined, or with another header."""
    content = bytearray(draw(st.sampled_from(whole())))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        early = min(place, draw(st.integers(0, 63)))
        match draw(st.sampled_from(["cut", "flip", "header", "splice", "drop", "grow"])):
            case "cut":
                del content[place:]
            case "flip":
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "header":
                content[early : early + 4] = draw(st.binary(min_size=4, max_size=4))
            case "splice":
                content[place:] = draw(st.sampled_from(whole()))[place:]
            case "drop":
                del content[place : place + draw(st.integers(1, 40))]
            case "grow":
                content[place:place] = draw(st.binary(max_size=40))
    return bytes(content)


@pytest.mark.filterwarnings("ignore")  # of Pillow, of what the doctor says in better words
@pytest.mark.usefixtures("small_bombs")
@settings(REPEATABLE, max_examples=60)
@given(st.lists(damaged(), min_size=1, max_size=12))
def test_of_damaged_files_those_stop_training_that_fastai_cannot_use(contents):
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, "train", "cat", f"{i}.jpg") for i in range(len(contents))]
        files[0].parent.mkdir(parents=True)
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        table = examine(place)
        blamed = table[table["problem"].isin(A_PICTURE_IS_TO_BLAME)]
        blamed = dict(zip(blamed["file"], blamed["problem"], strict=True))
        for file in files:
            problem = blamed.get(f"train/cat/{file.name}")
            try:
                Resize(224)(PILImage.create(file), split_idx=0)
            except PictureError as error:
                assert problem and f"{file}: {problem}. " in str(error)
            else:
                assert problem is None


# --- folders

ORDINARY = ["train", "valid", "test", "cat", "dog"]
ODD = ["Cat", "cat ", "狗", "🐶 and a blank", ".hidden", "__MACOSX", "val", "x.jpg", "a\nb"]
ODD += ["\xe9", "e\u0301"]  # é in one character and in two
names = st.one_of(
    st.sampled_from(ORDINARY),
    st.sampled_from(ORDINARY + ODD),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=9),
).map(lambda name: name if name not in ("", ".", "..") else "dot")
endings = st.sampled_from(["jpg", "JPEG", "png", "webp", "gif", "txt", "", "DS_Store"])
kinds = st.one_of(
    st.integers(0, 50),  # a picture; equal numbers are equal pictures
    st.sampled_from(["folder", "empty", "cut", "link", "hidden"]),
)
targets = st.sampled_from(["nowhere", ".", "..", "../..", "../dog", "../../train", "../../valid"])
entries = st.tuples(
    st.sampled_from(["train/cat", "train/dog", "valid/cat", "valid/dog", "train", "", "test"]),
    st.lists(names, max_size=3),
    names,
    endings,
    kinds,
    targets,
)


def plant(root, entry):
    """Put one thing into a folder, unless something else stands in its way."""
    base, above, name, ending, kind, target = entry
    place = root.joinpath(base, *above, f"{name}.{ending}" if ending else name)
    try:
        if kind == "folder":
            place.mkdir(parents=True)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            return
        if kind == "link":
            place.symlink_to(target)
        elif kind == "hidden":
            place.with_name(f".{place.name}").write_bytes(picture(seed=1))
        else:
            content = {"empty": b"", "cut": picture()[:-30]}.get(kind)
            place.write_bytes(picture(seed=kind) if content is None else content)
    except OSError:  # a file where a folder should be, or a name too long
        pass


@st.composite
def trees(draw, most=14):
    """A function that fills a folder: a sound one, a sound one with oddities, or oddities alone."""
    sound = draw(st.sampled_from([0, 8, 8]))
    odd = draw(st.lists(entries, max_size=most))

    def fill(root):
        for split in ("train", "valid"):
            for label in ("cat", "dog"):
                for i in range(sound):
                    seed = 100 + 20 * (split == "valid") + 10 * (label == "dog") + i
                    plant(root, (f"{split}/{label}", [], f"{i}", "png", seed, ""))
        for entry in odd:
            plant(root, entry)

    return fill


def taken(root):
    """What fastai would open: the pictures to train on, and those to test."""
    found = get_image_files(root, folders=["train", "valid"])
    found = [file for file in found if file.parent.parent.name in ("train", "valid")]
    return found + list(get_image_files(root / "test"))


@pytest.mark.slow
@settings(REPEATABLE, max_examples=150)
@given(trees())
def test_in_any_folder_the_doctor_says_what_fastai_will_do(fill):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "imgs")
        root.mkdir()
        fill(root)
        table = examine(root)
        with untouched(root):
            try:
                counts = check_folder(root)
            except FolderError as error:
                assert table["stops training"].any(), error
                return
        stopping = set(table["problem"][table["stops training"]])
        assert stopping <= A_PICTURE_IS_TO_BLAME | {"unreadable"}, "check_folder lets the rest pass"
        broken = set()
        for file in taken(root):
            try:
                PILImage.create(file)
            except PictureError:
                broken.add(file)
        assert bool(broken) == bool(stopping)
        if not stopping:
            dls = ImageDataLoaders.from_folder(root, item_tfms=Resize(8), bs=16, num_workers=0)
            assert set(dls.vocab) == set(counts["train"])
            for split, part in (("train", dls.train), ("valid", dls.valid)):
                assert Counter(file.parent.name for file in part.items) == counts[split]


# --- the split


def by_class(root, flat):
    """{class: Counter of the names and contents of its pictures} in a folder of classes."""
    found = {}
    for folder in root.iterdir():
        hidden = folder.name.startswith(".") or folder.name.lower() == "__macosx"
        if not folder.is_dir() or hidden or (flat and folder.name in ("train", "valid", "test")):
            continue
        files = [file for file in get_image_files(folder, recurse=False) if os.path.isfile(file)]
        if files:
            found[folder.name] = Counter((file.name, file.read_bytes()) for file in files)
    return found


@pytest.mark.slow
@settings(REPEATABLE, max_examples=100)
@given(trees(most=8), st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 3))
def test_a_split_loses_no_picture_and_leaves_nothing_half_done(fill, flat, share, seed):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "imgs")
        (root / "train").mkdir(parents=True)
        fill(root)
        if (root / "valid").is_dir():
            (root / "valid").rename(root / "spare")
        source = root / "train"
        before = state(root)
        try:
            with redirect_stdout(io.StringIO()) as said:
                new = split_images(source if flat else root, Path(place, "new"), share, seed)
        except FolderError:
            assert os.listdir(place) == ["imgs"]
            assert state(root) == before
            return
        said.getvalue().encode("utf-8")
        assert sorted(os.listdir(place)) == ["imgs", "new"]
        assert state(root) == before
        if not by_class(source, flat):  # then the folders beside train were the classes
            source, flat = root, True
        sides = [by_class(new / side, False) for side in ("train", "valid")]
        assert set(sides[0]) == set(sides[1])
        whole = by_class(source, flat)
        assert {label: sides[0][label] + sides[1][label] for label in sides[0]} == whole
        train, valid = ({content for c in side.values() for _, content in c} for side in sides)
        assert not train & valid, "equal pictures stay on one side"
        assert not any(path.is_symlink() for path in new.rglob("*"))
