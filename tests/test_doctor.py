"""The images doctor: each finding made and found, nothing changed, nothing raised."""

import errno
import io
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fastai.vision.core import PILImage
from PIL import Image
from promises import keeps, state, untouched

from tutorial import check_folder, check_images, split_images
from tutorial.errors import FolderError
from tutorial.folders import split
from tutorial.folders.findings import PROBLEMS

CLASSES = ("cat", "dog")


def picture(seed, mode="RGB", size=(80, 70)):
    """A picture of noise, another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def data(image, kind="JPEG", **options):
    """The bytes of a picture's file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def imgs(tmp_path):
    """A healthy folder: 9 and 3 pictures of each class, and one test picture."""
    root = tmp_path / "imgs"
    places = [
        root / split / label / f"{i}.jpg"
        for split, n in (("train", 9), ("valid", 3))
        for label in CLASSES
        for i in range(n)
    ]
    for seed, place in enumerate([*places, root / "test" / "cat.1.jpg"]):
        put(place, data(picture(seed)))
    return root


def put(place, content):
    """Write a file, and the folders it needs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def found(root):
    """The findings as {(problem, file)}; asserts that looking has changed nothing."""
    with untouched(root):
        table = check_images(root)
    return set(zip(table["problem"], table["file"], strict=True))


def rotated(orientation=6):
    """A picture whose mark says that the camera was held upright."""
    marks = Image.Exif()
    marks[274] = orientation
    return data(picture(90), exif=marks)


def grey16():
    """A picture of 16-bit greys from black to white."""
    return Image.fromarray(np.linspace(0, 65535, 80 * 70).reshape(70, 80).astype(np.uint16))


def see_through():
    """A picture, half of it fully transparent."""
    image = picture(91, "RGBA")
    image.paste((200, 0, 0, 0), (0, 0, 40, 70))
    return image


def two_frames(kind):
    """An animation."""
    return data(picture(92), kind, save_all=True, append_images=[picture(93)])


JPEG = data(picture(94))
PNG = data(picture(94), "PNG")
BMP = data(picture(94), "BMP")
ODD_FILES = {
    "web.jpg": (b"<html>404 Not Found</html>", "not an image", "a web page named like a picture"),
    "empty.png": (b"", "not an image", "an empty file named like a picture"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "not an image", "a HEIC photo from a phone"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image", "an SVG drawing"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated", "a picture cut short"),
    "nearly.jpg": (JPEG[:-40], "truncated", "a picture that lacks its last bytes"),
    "half.png": (PNG[: len(PNG) // 2], "truncated", "a PNG cut short"),
    "flipped.png": (
        PNG[:300] + bytes([PNG[300] ^ 255]) + PNG[301:],
        "damaged",
        "a PNG with a wrong byte",
    ),
    "lie.jpg": (PNG, "wrong extension", "a PNG named .jpg"),
    "lie.heic": (JPEG, "wrong extension", "a JPEG named .heic"),
    "tiny.jpg": (data(picture(95, size=(200, 30))), "tiny", "a picture 30 pixels high"),
    "print.jpg": (data(picture(96, "CMYK")), "CMYK", "a picture in printing colours (CMYK)"),
    "deep.png": (data(grey16(), "PNG"), "16-bit or more", "a picture of 16 bits"),
    "float.tif": (data(picture(97, "F"), "TIFF"), "16-bit or more", "a picture of decimal numbers"),
    "moving.gif": (two_frames("GIF"), "animated", "an animated GIF"),
    "moving.webp": (two_frames("WEBP"), "animated", "an animated WebP"),
    "glass.png": (data(see_through(), "PNG"), "transparent", "a picture that is half transparent"),
    "glass.png8.png": (
        data(picture(98, "P"), "PNG", transparency=bytes(256)),
        "transparent",
        "a palette of transparent colours",
    ),
    "turned.jpg": (rotated(), "rotated", "a photo that an EXIF mark turns upright"),
    "wide.png": (
        data(Image.new("1", (6000, 5000)), "PNG"),
        "huge",
        "a picture of 30 million pixels",
    ),
    "far too wide.bmp": (  # says 130 million pixels, holds a few: Pillow only warns of so many
        BMP[:22] + (2_000_000).to_bytes(4, "little") + BMP[26:],
        "truncated",
        "a header that promises more pixels than there are",
    ),
    "bomb.png": (
        data(Image.new("1", (20000, 9000)), "PNG"),
        "far too huge",
        "a decompression bomb",
    ),
    "notes.txt": (b"Rex is the brown one", "passed over", "a text file in a class"),
    "renamed.jpg.txt": (JPEG, "passed over", "a picture named .txt"),
    ".DS_Store": (b"litter", "stray file", "a Mac's .DS_Store in a class"),
    "Thumbs.db": (b"litter", "stray file", "Windows' Thumbs.db in a class"),
    "desktop.ini": (b"litter", "stray file", "Windows' desktop.ini in a class"),
    "._0.jpg": (b"litter", "stray file", "the second half of a Mac's file (._0.jpg)"),
}


def test_a_healthy_folder_has_no_findings(imgs, capsys):
    assert found(imgs) == set()
    said = capsys.readouterr().out
    assert "25 pictures: train 18, valid 6, test 1" in said
    assert "Nothing here stops training" in said
    assert "没有会让训练停下的问题" in said


def test_the_tutorial_s_own_pictures_are_in_order():
    assert check_images(ROOT / "imgs").empty


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_is_found_and_judged_as_fastai_judges_it(imgs, name, capsys):
    content, problem, case = ODD_FILES[name]
    file = put(imgs / "train" / "dog" / name, content)
    assert found(imgs) == {(problem, f"train/dog/{name}")}
    keeps(case, capsys.readouterr().out)
    if problem not in ("passed over", "stray file"):
        assert PROBLEMS[problem].stops == fastai_stops(file)


def fastai_stops(file):
    """Whether fastai fails to open a picture."""
    try:
        PILImage.create(file)
    except Exception:
        return True
    return False


@pytest.mark.parametrize(
    "content",
    [
        data(picture(94, "RGBA"), "PNG"),  # a screenshot: a channel for transparency, none used
        data(picture(94), "MPO", save_all=True, append_images=[picture(95)]),  # many phones
        rotated(1),
    ],
    ids=["opaque-alpha", "mpo", "upright"],
)
def test_what_is_harmless_is_not_reported(imgs, content):
    put(imgs / "train" / "dog" / ("x.png" if content.startswith(b"\x89PNG") else "x.jpg"), content)
    assert found(imgs) == set()


def test_the_advice_is_true_of_fastai(tmp_path):
    def opened(name):
        return np.asarray(PILImage.create(put(tmp_path / name, ODD_FILES[name][0]))).astype(float)

    assert (opened("deep.png") == 255).mean() > 0.95, "turns white"
    assert np.abs(opened("glass.png")[:, :40] - (200, 0, 0)).max() == 0, "the hidden colour shows"
    assert opened("turned.jpg").shape == (70, 80, 3), "the mark is ignored"
    first = Image.open(tmp_path / "moving.webp") if opened("moving.webp").any() else None
    assert np.abs(opened("moving.webp") - np.asarray(first.convert("RGB"))).max() == 0


ODD_FOLDERS = {
    "no folder train": (["train"], [], {("no train folder", ".")}),
    "no folder valid": (["valid"], [], {("no valid folder", ".")}),
    "one class": (["train/dog", "valid/dog"], [], {("fewer than two classes", "train")}),
    "a class without pictures in valid": (
        ["valid/dog"],
        [],
        {("class only in train", "train/dog")},
    ),
    "a class without pictures in train": (
        [],
        ["valid/emu/1.jpg"],
        {("class only in valid", "valid/emu")},
    ),
    "an empty class folder": ([], ["train/emu/"], {("empty class", "train/emu")}),
    "fewer than 16 pictures": (
        [f"train/{c}/{i}.jpg" for c in CLASSES for i in range(3)],
        [],
        {("too few pictures", "train")},
    ),
    "one class much larger than another": (
        [],
        [f"train/cat/more{i}.jpg" for i in range(20)],
        {("imbalance", "train")},
    ),
    "a picture beside the class folders": (
        [],
        ["train/x.jpg"],
        {("outside a class", "train/x.jpg")},
    ),
    "a folder inside a class": (
        [],
        ["train/cat/more/x.jpg"],
        {("nested folder", "train/cat/more")},
    ),
    "a test picture of an unknown class": (
        [],
        ["test/emu.1.jpg"],
        {("test picture without a class", "test/emu.1.jpg")},
    ),
    "litter of Jupyter's and the system's": (
        [],
        ["train/.ipynb_checkpoints/x.jpg", "train/cat/.ipynb_checkpoints/x.jpg", "Thumbs.db"],
        {
            ("stray file", "train/.ipynb_checkpoints"),
            ("stray file", "train/cat/.ipynb_checkpoints"),
            ("stray file", "Thumbs.db"),
        },
    ),
}


@pytest.mark.parametrize("case", ODD_FOLDERS)
def test_an_odd_folder_is_found_and_judged_as_the_notebook_judges_it(imgs, case, capsys):
    gone, new, expected = ODD_FOLDERS[case]
    for one in gone:
        place = imgs / one
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    for seed, one in enumerate(new):
        if one.endswith("/"):
            (imgs / one).mkdir()
        else:
            put(imgs / one, data(picture(200 + seed)))
    findings = found(imgs)
    assert expected <= findings
    assert {problem for problem, _ in findings} - {problem for problem, _ in expected} <= {
        "too few pictures",
        "test picture without a class",
        "empty class",
    }
    stops, said = any(PROBLEMS[problem].stops for problem, _ in findings), capsys.readouterr().out
    try:
        check_folder(imgs)
    except FolderError as error:
        assert stops
        said += str(error)
    else:
        assert not stops
    keeps(case, said)


def test_names_that_differ_in_capitals(imgs, capsys):
    (imgs / "valid" / "dog").rename(imgs / "valid" / "Dog")
    table = check_images(imgs).set_index("problem")
    assert table.loc["names almost alike", "detail"] == "Dog, dog"
    assert {"class only in train", "class only in valid"} <= set(table.index)
    with pytest.raises(FolderError) as refused:
        check_folder(imgs)
    keeps("a class named with capitals in valid only", capsys.readouterr().out + str(refused.value))


def test_copies(imgs, capsys):
    first = (imgs / "train" / "cat" / "0.jpg").read_bytes()
    for place in ("train/cat/a.jpg", "train/dog/b.jpg", "valid/cat/c.jpg", "test/cat.2.jpg"):
        put(imgs / place, first)
    shutil.copy(imgs / "valid" / "dog" / "0.jpg", imgs / "valid" / "dog" / "z.jpg")
    table = check_images(imgs).set_index("file")
    assert table.loc["valid/dog/z.jpg", "detail"] == "= valid/dog/0.jpg"
    table = table.drop("valid/dog/z.jpg")
    assert dict(table["problem"]) == {
        "train/cat/a.jpg": "duplicate",
        "train/dog/b.jpg": "in two classes",
        "valid/cat/c.jpg": "in two splits",
        "test/cat.2.jpg": "in two splits",
    }
    assert set(table["detail"]) == {"= train/cat/0.jpg"}
    said = capsys.readouterr().out
    keeps("a copy in the same class", said)
    keeps("a copy in another class", said)
    keeps("a copy in another split", said)


def test_a_mac_s_folder_is_litter_unless_pictures_lie_in_it(imgs):
    put(imgs / "train" / "__MACOSX" / "cat" / "._0.jpg", b"litter")
    assert found(imgs) == {("stray file", "train/__MACOSX")}
    for place in ("train/__MACOSX/0.jpg", "test/__MACOSX/0.jpg"):  # fastai takes these
        put(imgs / place, b"no picture")
    assert {
        ("class only in train", "train/__MACOSX"),
        ("not an image", "train/__MACOSX/0.jpg"),
        ("not an image", "test/__MACOSX/0.jpg"),
    } <= found(imgs)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can make such names and pipes")
def test_links_pipes_and_strange_names(imgs, capsys):
    cat = imgs / "train" / "cat"
    (cat / "gone.jpg").symlink_to("nowhere.jpg")
    (cat / "self.jpg").symlink_to("self.jpg")
    (cat / "round").symlink_to("..")
    (imgs / "test" / "round").symlink_to("..")
    os.mkfifo(cat / "pipe.jpg")
    for one in ("train/cat.jpg", "valid/cat.jpg"):  # a class folder named like a picture
        put(imgs / one / "x.jpg", data(picture(len(one))))
    put(imgs / "test" / "cat.jpg", data(picture(300)))
    put(cat / "两行\n名字.jpg", b"")
    put(cat / os.fsdecode(b"\xff.jpg"), b"")
    findings = found(imgs)
    assert {"gone.jpg", "self.jpg", "pipe.jpg"} == {
        file.split("/")[-1] for problem, file in findings if problem == "unreadable"
    }
    assert ("not an image", "train/cat/两行\\n名字.jpg") in findings
    assert ("not an image", "train/cat/\\udcff.jpg") in findings
    assert ("link in a circle", "train/cat/round") in findings
    said = capsys.readouterr().out
    said.encode()
    keeps("a link to a file that is gone", said)
    keeps("a link to itself", said)
    keeps("a pipe named like a picture", said)
    keeps("a file name that can't be printed", said)
    keeps("a class folder named like a picture", said)


def test_links_in_a_circle_are_followed_once(imgs, capsys):
    (imgs / "train" / "cat" / "round").symlink_to("..")
    (imgs / "test" / "round").symlink_to("..")
    (imgs / "test" / "again").symlink_to("..")  # with two, fastai would see 2 ** 40 folders
    assert {file for problem, file in found(imgs) if problem == "link in a circle"} == {
        "train/cat/round",
        "test/again",
        "test/round",
    }
    said = capsys.readouterr().out
    assert "train 18, valid 6, test 25" in said
    with pytest.raises(FolderError) as refused:
        check_folder(imgs)
    keeps("links to folders in a circle", said + str(refused.value))


def test_folders_and_files_without_permission(imgs, monkeypatch):
    listdir, opener = os.listdir, open

    def refuse(place, *rest):
        if str(place).endswith(("dog", "0.jpg")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return (opener if rest else listdir)(place, *rest)

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(doctor, "open", refuse, raising=False)
    table = check_images(imgs)
    unreadable = set(table["file"][table["problem"] == "unreadable"])
    assert {"train/dog", "valid/dog", "train/cat/0.jpg", "valid/cat/0.jpg"} == unreadable


def test_the_only_errors(tmp_path):
    with pytest.raises(FolderError, match="does not exist") as gone:
        check_images(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="There is no folder") as unseen:
        check_folder(tmp_path / "nowhere")
    keeps("a path that does not exist", f"{gone.value} {unseen.value}")
    one = put(tmp_path / "one.jpg", JPEG)
    with pytest.raises(FolderError, match="is a file") as no_folder:
        check_images(one)
    with pytest.raises(FolderError, match="There is no folder") as unseen:
        check_folder(one)
    keeps("a path that is a file", f"{no_folder.value} {unseen.value}")
    table = check_images(tmp_path)
    assert "outside a class" in set(table["problem"])


def test_damaged_bytes_never_raise_and_stop_exactly_where_fastai_stops(tmp_path):
    chance = random.Random(7)
    whole = {
        "jpg": data(picture(1)),
        "progressive.jpg": data(picture(1), progressive=True),
        "png": data(picture(1), "PNG"),
        "palette.png": data(picture(1, "P"), "PNG", transparency=bytes(range(256))),
        "gif": data(picture(1, "P"), "GIF"),
        "bmp": data(picture(1), "BMP"),
        "webp": two_frames("WEBP"),
        "tif": data(picture(1), "TIFF", compression="tiff_lzw"),
        "exif.jpg": rotated(),
    }
    for kind, content in whole.items():
        for i in range(30):
            damaged = bytearray(content)
            if i % 2:
                damaged = damaged[: chance.randrange(len(content))]
            for _ in range(chance.choice([0, 1, 20]) if i % 2 else chance.choice([1, 5, 50])):
                if damaged:
                    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            put(tmp_path / "train" / "a" / f"{i}.{kind}", damaged)
    table = check_images(tmp_path)
    stopped = set(table["file"][table["stops training"]])
    files = list((tmp_path / "train" / "a").iterdir())
    expected = {f"train/a/{file.name}" for file in files if fastai_stops(file)}
    assert len(expected) > 50
    assert {file for file in stopped if "." in file.split("/")[-1][1:]} == expected


def test_every_finding_is_said_in_both_languages(imgs, capsys):
    for name, (content, _, _) in ODD_FILES.items():
        put(imgs / "train" / "cat" / name, content)
    table = check_images(imgs)
    said = capsys.readouterr().out
    english = [line for line in said.splitlines() if line.strip("✗•").isascii()]
    assert max(map(len, english)) <= 96
    said = " ".join(said.split())  # long lines are broken, between two words
    for problem in set(table["problem"]):
        chinese, stops, advice, 建议 = PROBLEMS[problem]
        number = (table["problem"] == problem).sum()
        english = f"{'✗' if stops else '•'} {problem} ({number}): {advice}"
        at = said.index(f"{english} {chinese}（{number}）：{建议}")
        assert (at > said.index("GOOD TO KNOW 仅供参考")) != stops
    assert list(table["stops training"]) == sorted(table["stops training"], reverse=True)
    for chinese, _, english, 建议 in PROBLEMS.values():
        assert english.isascii() and english.endswith(".")
        assert not 建议.isascii() and 建议.endswith("。") and chinese


@pytest.fixture
def unsplit(tmp_path):
    """Ten different pictures of each of three classes and copies of some, no valid."""
    root = tmp_path / "mine"
    for k, label in enumerate(("cat", "dog", "鸟")):
        for i in range(10):
            put(root / "train" / label / f"{i}.jpg", data(picture(100 * k + i)))
        for i in range(3):
            shutil.copy(root / "train" / label / "0.jpg", root / "train" / label / f"copy{i}.jpg")
    shutil.copy(root / "train" / "cat" / "1.jpg", root / "train" / "dog" / "cat.jpg")
    put(root / "train" / "cat" / ".DS_Store", b"litter")
    put(root / "test" / "cat.1.jpg", data(picture(999)))
    return root


def contents(root):
    """{name below root: bytes} of all files."""
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.mark.parametrize("layout", ["train", "flat"])
def test_a_split_copies_all_and_keeps_equal_ones_together(unsplit, tmp_path, layout):
    root = unsplit if layout == "train" else unsplit / "train"
    before = state(unsplit)
    new = split_images(root, tmp_path / "new")
    assert state(unsplit) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mine", "new"]
    for label in ("cat", "dog", "鸟"):
        sides = {side: contents(new / side / label) for side in ("train", "valid")}
        assert len(sides["valid"]) >= 2
        assert sides["train"] | sides["valid"] == {
            name: content
            for name, content in contents(unsplit / "train" / label).items()
            if name != ".DS_Store"
        }
    assert not set(contents(new / "train").values()) & set(contents(new / "valid").values())
    assert (new / "test" / "cat.1.jpg").exists() == (layout == "train")
    assert set(check_folder(new)["valid"]) == {"cat", "dog", "鸟"}
    assert not check_images(new)["stops training"].any()


def test_a_split_never_parts_equal_pictures_nor_leaves_a_side_empty(unsplit, tmp_path):
    for i in range(3):
        put(unsplit / "train" / "emu" / f"{i}.jpg", JPEG)
    put(unsplit / "train" / "emu" / "other.jpg", data(picture(998)))
    for seed in range(8):
        new = split_images(unsplit, tmp_path / str(seed), seed=seed)
        train, valid = (contents(new / side) for side in ("train", "valid"))
        assert not set(train.values()) & set(valid.values())
        assert {name.split(os.sep)[0] for name in valid} == {"cat", "dog", "emu", "鸟"}


def test_a_split_is_the_same_for_the_same_seed_and_follows_the_share(unsplit, tmp_path):
    names = {}
    for name, share, seed in (("a", 0.2, 1), ("b", 0.2, 1), ("c", 0.2, 2), ("d", 0.5, 1)):
        names[name] = set(contents(split_images(unsplit, tmp_path / name, share, seed) / "valid"))
    assert names["a"] == names["b"] != names["c"]
    assert len(names["d"]) > len(names["a"])


def test_a_split_refuses(unsplit, tmp_path):
    def refused(case, path=unsplit, new=tmp_path / "new", **options):
        with untouched(tmp_path), pytest.raises(FolderError) as error:
            split_images(path, new, **options)
        keeps(case, str(error.value))

    refused("split_images into a folder that holds something", new=unsplit)
    refused("split_images into a file", new=unsplit / "train" / "cat" / "0.jpg")
    refused("split_images into the folder itself", new=unsplit / "new")
    refused("split_images into a folder that is nowhere", new=tmp_path / "no" / "new")
    refused("split_images of a folder that does not exist", path=tmp_path / "no")
    for share in (0, 1, -1, float("nan")):
        refused("split_images with a share of 0, or of 1", share=share)
    refused("split_images of a folder without classes", path=unsplit / "test")
    put(unsplit / "train" / "emu" / "0.jpg", JPEG)
    refused("split_images of a class of one picture")
    shutil.rmtree(unsplit / "train" / "emu")
    put(unsplit / "valid" / "cat" / "0.jpg", JPEG)
    refused("split_images of a folder that has valid already")


def test_a_split_never_overwrites_one_copy_with_another(unsplit, tmp_path, monkeypatch):
    # Capitals alone tell no names apart on many disks; here both targets are simply the same.
    files = [unsplit / "train" / "cat" / f"{i}.jpg" for i in range(2)]
    monkeypatch.setattr(split, "_draw", lambda *_: dict.fromkeys(files, Path("train/cat/0.jpg")))
    with pytest.raises(FolderError, match="both be named") as refused:
        split_images(unsplit, tmp_path / "new")
    keeps("split_images of names that this disk takes for one", str(refused.value))
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


def test_a_split_fills_an_empty_folder(unsplit, tmp_path):
    (tmp_path / "new").mkdir()
    assert set(check_folder(split_images(unsplit, tmp_path / "new"))["train"]) >= {"cat"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_split_that_fails_half_way_leaves_nothing(unsplit, tmp_path, monkeypatch, error):
    copied, copyfile = [], shutil.copyfile

    def fail_late(source, target):
        assert tmp_path in target.parents, "beside the new folder, on the same disk"
        if len(copied) == 10:
            raise error
        copied.append(copyfile(source, target))

    before = state(tmp_path)
    monkeypatch.setattr(shutil, "copyfile", fail_late)
    kind = FolderError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as raised:
        split_images(unsplit, tmp_path / "new")
    if kind is FolderError:
        keeps("split_images when the disk is full", str(raised.value))
    else:
        keeps("split_images stopped half way")
    assert len(copied) == 10
    assert {k: v[0] for k, v in state(tmp_path).items()} == {k: v[0] for k, v in before.items()}
