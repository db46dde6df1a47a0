"""What is said of a folder: each finding made and found, nothing changed, nothing raised."""

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fastai.vision.core import PILImage
from folders import data, found, make, noise, put, told
from PIL import Image
from promises import keeps, state, untouched

from tutorial import check_folder, check_images, split_images
from tutorial.errors import FolderError
from tutorial.folders import split
from tutorial.folders.findings import PROBLEMS


@pytest.fixture
def imgs(tmp_path):
    """A sound folder of two classes, 9 and 3 pictures of each."""
    return make(tmp_path / "imgs")


def exif(orientation):
    """A photo whose mark says how the camera was held."""
    marks = Image.Exif()
    marks[274] = orientation
    return data(90, exif=marks)


def grey16():
    """A picture of 16-bit greys from black to white."""
    return Image.fromarray(np.linspace(0, 65535, 80 * 70).reshape(70, 80).astype(np.uint16))


def see_through():
    """A picture, half of it fully transparent."""
    image = noise(91, "RGBA")
    image.paste((200, 0, 0, 0), (0, 0, 40, 70))
    return image


def two_frames(kind):
    """An animation."""
    return data(92, kind, save_all=True, append_images=[noise(93)])


JPEG, PNG, BMP = (data(94, kind) for kind in ("JPEG", "PNG", "BMP"))
LONG_BMP = BMP[:22] + (2_000_000).to_bytes(4, "little") + BMP[26:]  # says 160 million pixels
BAD_PNG = PNG[:300] + bytes([PNG[300] ^ 255]) + PNG[301:]
HEIC = b"\0\0\0\x18ftypheic" + bytes(60)
FADED = data(noise(98, "P"), "PNG", transparency=bytes(256))
ODD_FILES = {
    "a web page named like a picture": ("web.jpg", b"<html>404</html>", "not an image"),
    "an empty file named like a picture": ("empty.png", b"", "not an image"),
    "a HEIC photo from a phone": ("phone.heic", HEIC, "not an image"),
    "an SVG drawing": ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "a picture cut short": ("half.jpg", JPEG[: len(JPEG) // 2], "truncated"),
    "a picture that lacks its last bytes": ("nearly.jpg", JPEG[:-40], "truncated"),
    "a PNG cut short": ("half.png", PNG[: len(PNG) // 2], "truncated"),
    "a PNG with a wrong byte": ("flipped.png", BAD_PNG, "damaged"),
    "a PNG named .jpg": ("lie.jpg", PNG, "wrong extension"),
    "a JPEG named .heic": ("lie.heic", JPEG, "wrong extension"),
    "a picture 30 pixels high": ("tiny.jpg", data(noise(95, size=(200, 30))), "tiny"),
    "a picture of one pixel": ("dot.jpg", data(noise(95, size=(1, 1))), "tiny"),
    "a picture in printing colours (CMYK)": ("print.jpg", data(noise(96, "CMYK")), "CMYK"),
    "a picture of 16 bits": ("deep.png", data(grey16(), "PNG"), "16-bit or more"),
    "a picture of decimal numbers": ("f.tif", data(noise(97, "F"), "TIFF"), "16-bit or more"),
    "an animated GIF": ("moving.gif", two_frames("GIF"), "animated"),
    "an animated WebP": ("moving.webp", two_frames("WEBP"), "animated"),
    "a picture that is half transparent": ("glass.png", data(see_through(), "PNG"), "transparent"),
    "a palette of transparent colours": ("glass8.png", FADED, "transparent"),
    "a photo that an EXIF mark turns upright": ("turned.jpg", exif(6), "rotated"),
    "a picture of 30 million pixels": (
        "wide.png",
        data(Image.new("1", (6000, 5000)), "PNG"),
        "huge",
    ),
    "a header that promises more pixels than there are": ("too wide.bmp", LONG_BMP, "truncated"),
    "a decompression bomb": (
        "bomb.png",
        data(Image.new("1", (20000, 9000)), "PNG"),
        "far too huge",
    ),
    "a text file in a class": ("notes.txt", b"Rex is the brown one", "passed over"),
    "a picture named .txt": ("renamed.jpg.txt", JPEG, "passed over"),
    "a Mac's .DS_Store in a class": (".DS_Store", b"litter", "stray file"),
    "Windows' Thumbs.db in a class": ("Thumbs.db", b"litter", "stray file"),
    "Windows' desktop.ini in a class": ("desktop.ini", b"litter", "stray file"),
    "the second half of a Mac's file (._0.jpg)": ("._0.jpg", b"litter", "stray file"),
}


def test_the_tutorial_s_own_pictures_are_in_order(capsys):
    assert check_images(ROOT / "imgs").empty
    said = capsys.readouterr().out
    assert "319 pictures: train 280, valid 33, test 6" in said
    assert "Nothing here stops training" in said
    assert "没有会让训练停下的问题" in said


@pytest.mark.filterwarnings("ignore")  # of Pillow, of what the doctor says in better words
@pytest.mark.parametrize("case", ODD_FILES)
def test_an_odd_file_is_found_and_judged_as_fastai_judges_it(tmp_path, case, capsys):
    name, content, problem = ODD_FILES[case]
    file = put(tmp_path / "train" / "dog" / name, content)
    kinds = {kind for kind, place in found(tmp_path) if place.endswith(name)}
    assert kinds == {problem}
    keeps(case, capsys.readouterr().out)
    if problem not in ("passed over", "stray file"):
        try:
            PILImage.create(file)
        except Exception:
            assert PROBLEMS[problem].stops
        else:
            assert not PROBLEMS[problem].stops


@pytest.mark.parametrize(
    "content",
    [
        data(noise(94, "RGBA"), "PNG"),  # a screenshot: a channel for transparency, none used
        data(94, "MPO", save_all=True, append_images=[noise(95)]),  # many phones
        exif(1),
    ],
    ids=["opaque-alpha", "mpo", "upright"],
)
def test_what_is_harmless_is_not_reported(imgs, content):
    put(imgs / "train" / "dog" / ("x.png" if content.startswith(b"\x89PNG") else "x.jpg"), content)
    assert found(imgs) == set()


def test_the_advice_is_true_of_fastai(tmp_path):
    def opened(name, content):
        return np.asarray(PILImage.create(put(tmp_path / name, content))).astype(float)

    assert (opened("deep.png", data(grey16(), "PNG")) == 255).mean() > 0.95, "turns white"
    glass = opened("glass.png", data(see_through(), "PNG"))
    assert np.abs(glass[:, :40] - (200, 0, 0)).max() == 0, "the hidden colour shows"
    assert opened("turned.jpg", exif(6)).shape == (70, 80, 3), "the mark is ignored"
    moving = opened("moving.webp", two_frames("WEBP"))
    assert (moving == np.asarray(Image.open(tmp_path / "moving.webp").convert("RGB"))).all()


ODD_FOLDERS = {  # what is taken away, what is put in, and what is found then
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
    "a class of hidden files only": (
        [],
        ["train/emu/.0.jpg", "valid/emu/.0.jpg"],
        {("empty class", "train/emu"), ("empty class", "valid/emu")},
    ),
    "fewer than 16 pictures": (
        [f"train/{label}/{i}.jpg" for label in ("cat", "dog") for i in range(3)],
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
        ["train/x.jpg", "README.txt"],
        {("outside a class", "train/x.jpg")},
    ),
    "a folder inside a class": (
        [],
        ["train/cat/more/x.jpg"],
        {("nested folder", "train/cat/more")},
    ),
    "a folder named like a picture in a class": (
        [],
        ["train/cat/x.jpg/y.jpg"],
        {("nested folder", "train/cat/x.jpg")},
    ),
    "a folder named train inside a class": (
        [],
        ["train/cat/train/dog/x.jpg"],
        {("split inside a class", "train/cat/train/dog")},
    ),
    "a folder named valid inside train": (
        [],
        ["train/valid/cat/x.jpg"],
        {("split inside a class", "train/valid/cat"), ("empty class", "train/valid")},
    ),
    "a class folder named like a picture": ([], ["train/a.jpg/1.jpg", "valid/a.jpg/1.jpg"], set()),
    "a test picture of an unknown class": (
        [],
        ["test/emu.1.jpg"],
        {("test picture without a class", "test/emu.1.jpg")},
    ),
    "litter of Jupyter's and the system's": (
        [],
        [
            "train/.ipynb_checkpoints/x.jpg",
            "train/cat/.ipynb_checkpoints/x.jpg",
            "Thumbs.db",
        ],
        {
            ("stray file", "train/.ipynb_checkpoints"),
            ("stray file", "train/cat/.ipynb_checkpoints"),
            ("stray file", "Thumbs.db"),
        },
    ),
}
FOLLOWS = {"too few pictures", "test picture without a class", "imbalance"}  # from what was done


@pytest.mark.parametrize("case", ODD_FOLDERS)
def test_an_odd_folder_is_found_by_both(imgs, case, capsys):
    gone, new, expected = ODD_FOLDERS[case]
    for one in gone:
        place = imgs / one
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    for seed, one in enumerate(new):
        if one.endswith("/"):
            (imgs / one).mkdir()
        else:
            put(imgs / one, data(200 + seed))
    findings = found(imgs)
    assert expected <= findings
    assert {finding for finding in findings - expected if finding[0] not in FOLLOWS} == set()
    said = told(imgs, capsys)
    keeps(case, said)
    raised = said.splitlines()[-1].endswith("check_images(path) tells more.")
    assert raised == any(PROBLEMS[problem].stops for problem, _ in findings)


def test_names_that_differ_in_capitals(imgs, capsys):
    (imgs / "valid" / "dog").rename(imgs / "valid" / "Dog")
    table = check_images(imgs).set_index("problem")
    assert table.loc["names almost alike", "detail"] == "Dog, dog"
    assert {"class only in train", "class only in valid"} <= set(table.index)
    keeps("a class named with capitals in valid only", told(imgs, capsys))


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
    for case in ("a copy in the same class", "a copy in another class", "a copy in another split"):
        keeps(case, said)


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
    os.mkfifo(cat / "pipe.jpg")
    put(cat / "两行\n名字.jpg", b"")
    put(cat / os.fsdecode(b"\xff.jpg"), b"")
    findings = found(imgs)
    assert {f"train/cat/{name}.jpg" for name in ("gone", "self", "pipe")} == {
        file for problem, file in findings if problem == "unreadable"
    }
    assert ("not an image", "train/cat/两行\\n名字.jpg") in findings
    said = capsys.readouterr().out
    said.encode()
    keeps("a link to a file that is gone", said)
    keeps("a link to itself", said)
    keeps("a pipe named like a picture", said)
    keeps("a file name that can't be printed", said)


def test_links_in_a_circle_are_not_followed(imgs, capsys):
    for place in ("train/cat/round", "test/round", "test/again"):
        (imgs / place).symlink_to("..")  # with two, fastai would see 2 ** 40 folders
    circles = {file for problem, file in found(imgs) if problem == "link in a circle"}
    assert circles == {"train/cat/round", "test/again", "test/round"}
    said = told(imgs, capsys)
    assert "train 18, valid 6, test 1" in said
    keeps("links to folders in a circle", said)


def test_two_folders_that_link_to_each_other(imgs, capsys):
    (imgs / "train" / "cat" / "more").symlink_to("../dog")
    (imgs / "train" / "dog" / "more").symlink_to("../cat")
    keeps("two folders that link to each other", told(imgs, capsys))


def test_valid_as_a_link_to_train(imgs, capsys):
    shutil.rmtree(imgs / "valid")
    (imgs / "valid").symlink_to("train")
    keeps("valid as a link to train", told(imgs, capsys))
    assert check_folder(imgs)["valid"] == {"cat": 9, "dog": 9}


def test_the_only_errors(tmp_path):
    cases = {"a path that does not exist": "no", "a path that is a file": "one.jpg"}
    put(tmp_path / "one.jpg", JPEG)
    for case, name in cases.items():
        for check in (check_images, check_folder):
            with pytest.raises(FolderError) as error:
                check(tmp_path / name)
            keeps(case, str(error.value))


def test_every_finding_is_said_in_both_languages(tmp_path, capsys):
    for name, content, _ in ODD_FILES.values():
        put(tmp_path / "train" / "cat" / name, content)
    table = check_images(tmp_path)
    said = capsys.readouterr().out
    english = [line for line in said.splitlines() if line.strip("✗•").isascii()]
    assert max(map(len, english)) <= 96
    said = " ".join(said.split())  # long lines are broken, between two words
    for problem in set(table["problem"]):
        chinese, stops, advice, advice_zh = PROBLEMS[problem]
        number = (table["problem"] == problem).sum()
        english = f"{'✗' if stops else '•'} {problem} ({number}): {advice}"
        at = said.index(f"{english} {chinese}（{number}）：{advice_zh}")
        assert (at > said.index("GOOD TO KNOW 仅供参考")) != stops
    for chinese, _, advice, advice_zh in PROBLEMS.values():
        assert advice.isascii() and not advice_zh.isascii() and chinese


# --- the split


@pytest.fixture
def unsplit(tmp_path):
    """Ten different pictures of each of three classes and copies of some, no valid."""
    root = tmp_path / "mine"
    for k, label in enumerate(("cat", "dog", "鸟")):
        for i in range(10):
            put(root / "train" / label / f"{i}.jpg", data(100 * k + i))
        for i in range(3):
            shutil.copy(root / "train" / label / "0.jpg", root / "train" / label / f"copy{i}.jpg")
    shutil.copy(root / "train" / "cat" / "1.jpg", root / "train" / "dog" / "cat.jpg")
    put(root / "train" / "cat" / ".DS_Store", b"litter")
    put(root / "test" / "cat.1.jpg", data(999))
    return root


def contents(root):
    """{name below root: bytes} of all files."""
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.mark.parametrize("layout", ["train", "flat"])
def test_a_split_copies_all_and_can_be_trained_on(unsplit, tmp_path, layout):
    (tmp_path / "new").mkdir()  # an empty folder is filled
    with untouched(unsplit):
        new = split_images(unsplit if layout == "train" else unsplit / "train", tmp_path / "new")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mine", "new"]
    for label in ("cat", "dog", "鸟"):
        sides = {side: contents(new / side / label) for side in ("train", "valid")}
        assert len(sides["valid"]) >= 2
        whole = contents(unsplit / "train" / label)
        whole.pop(".DS_Store", None)
        assert sides["train"] | sides["valid"] == whole
    assert (new / "test" / "cat.1.jpg").exists() == (layout == "train")
    assert set(check_folder(new)["valid"]) == {"cat", "dog", "鸟"}
    assert not check_images(new)["stops training"].any()


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
    monkeypatch.setattr(split, "draw", lambda *_: dict.fromkeys(files, Path("train/cat/0.jpg")))
    with pytest.raises(FolderError, match="both be named") as refused:
        split_images(unsplit, tmp_path / "new")
    keeps("split_images of names that this disk takes for one", str(refused.value))
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


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
