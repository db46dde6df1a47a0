"""The one reading of a folder of pictures: which of them fastai will take, and what is odd there.

It goes by names alone and opens no file.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fastai.data.transforms import image_extensions

from ..errors import FolderError
from ..verdict import true_class
from .findings import BATCH, UNEVEN, Finding

SPLITS = ("train", "valid", "test")
LITTER = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".ipynb_checkpoints", "__macosx"}


class Picture(NamedTuple):
    """A file that fastai will take for a picture, and where it found it."""

    split: str
    label: str | None
    file: Path


@dataclass
class Folder:
    """A folder as fastai sees it: it takes pictures by their extension, and nothing hidden."""

    place: Path
    pictures: list = field(default_factory=list)
    folders: list = field(default_factory=list)
    findings: list = field(default_factory=list)

    def below(self):
        """Yield this folder and all folders below it."""
        yield self
        for folder in self.folders:
            yield from folder.below()

    def all_pictures(self):
        """Return the pictures in this folder and in all folders below it."""
        return [file for folder in self.below() for file in folder.pictures]


def read_folder(path):
    """Read a folder of pictures.

    The classes lie in `train` or, where no class there has a picture, side by side in `path`. That
    stops training, but `split_images` can use them.

    Parameters
    ----------
    path : Path or str
        Holds `train` and `valid`, each with one folder a class, and perhaps `test`.

    Returns
    -------
    pictures : list of Picture
        Those of train, of valid, then of test.
    findings : list of Finding

    Raises
    ------
    FolderError
        If `path` does not exist or is no folder.
    """
    path = Path(path)
    if not os.path.isdir(path):  # unlike Path.is_dir, it never raises
        kind = "is a file, not a folder" if os.path.exists(path) else "does not exist"
        raise FolderError(
            f"{path} {kind}. Name the folder that holds train and valid, as path or in IMGS."
        )
    root = read(path, SPLITS.__contains__)
    there = {folder.place.name: folder for folder in root.folders}
    train, valid, test = (there.get(name, Folder(path / name)) for name in SPLITS)
    tops, findings = [root], [*inner_splits(train), *inner_splits(valid)]
    if not any(folder.pictures for folder in train.folders):
        beside = read(path, lambda name: name not in SPLITS)
        if any(folder.pictures for folder in beside.folders) or "train" not in there:
            tops, train = [beside, *root.folders], beside
            findings.append(Finding(path, "no train folder"))
    if "valid" not in there:
        findings.append(Finding(path, "no valid folder"))
    for folder in (folder for top in tops for folder in top.below()):
        # A README beside the classes is nobody's mistake.
        findings += [
            f for f in folder.findings if folder.place != path or f.problem != "passed over"
        ]
    odd = {finding.place for finding in findings if finding.stops}
    findings += [*around_classes(train, odd), *around_classes(valid, odd)]
    pictures = [
        Picture(split, folder.place.name, file)
        for split, top in (("train", train), ("valid", valid))
        for folder in top.folders
        for file in folder.pictures
    ]
    if pictures or "train" in there:
        findings += compare_classes(count(pictures), train.place, there.get("valid"))
    findings += names_alike(pictures, path)
    classes = count(pictures)["train"]
    tests = [Picture("test", true_class(file, classes), file) for file in test.all_pictures()]
    findings += [Finding(p.file, "test picture without a class") for p in tests if p.label is None]
    return pictures + tests, findings


def read(place, wanted=lambda name: True, above=()):
    """Read a folder and all below it, each once.

    Parameters
    ----------
    place : Path
    wanted : callable
        Tells by its name whether a folder directly in `place` is to be read.
    above : tuple of str
        The real paths of the folders above: a link that leads back to one is not followed.

    Returns
    -------
    Folder
    """
    real = os.path.realpath(place)
    if real in above:
        return Folder(place, findings=[Finding(place, "link in a circle")])
    try:
        inside = [place / name for name in sorted(os.listdir(place))]
    except OSError as error:
        return Folder(place, findings=[Finding(place, "unreadable", error.strerror or "")])
    folder = Folder(place)
    for one in inside:
        hidden = one.name.startswith(".")
        litter = one.name.lower() in LITTER or one.name.startswith("._")
        if os.path.isdir(one) and not hidden and wanted(one.name):
            inner = read(one, above=(*above, real))
            if not litter or inner.all_pictures():
                folder.folders.append(inner)
                continue
        if litter:
            folder.findings.append(Finding(one, "stray file"))
        elif hidden or os.path.isdir(one):
            continue
        elif f".{one.name.split('.')[-1].lower()}" in image_extensions:
            folder.pictures.append(one)
        else:
            folder.findings.append(Finding(one, "passed over"))
    return folder


def count(pictures):
    """Return how many pictures each class has, {"train": {class: number}, "valid": ...}."""
    counts = {"train": Counter(), "valid": Counter()}
    for split, label, _ in pictures:
        if split in counts:
            counts[split][label] += 1
    return {split: dict(numbers) for split, numbers in counts.items()}


def inner_splits(split):
    """Yield the folders inside classes that fastai would take for classes of a split.

    It goes by the last two folders of a file's path, whatever stands before them.
    """
    for folder in split.below():
        if folder is not split and folder.place.name in ("train", "valid"):
            for inner in folder.folders:
                if inner.pictures:
                    yield Finding(inner.place, "split inside a class")


def around_classes(split, odd):
    """Yield what fastai passes over beside and inside the classes, but for `odd` places."""
    for file in split.pictures:
        yield Finding(file, "outside a class")
    for folder in split.folders:
        if not folder.pictures and folder.place not in odd:
            yield Finding(folder.place, "empty class")
        for inner in folder.folders:
            if odd.isdisjoint(one.place for one in inner.below()):
                yield Finding(inner.place, "nested folder", str(len(inner.all_pictures())))


def compare_classes(counts, home, valid):
    """Yield what is odd about the classes in `home`, and in the Folder `valid`, if there is one."""
    train, others = counts["train"], counts["valid"]
    if len(train) < 2:
        yield Finding(home, "fewer than two classes", ", ".join(train))
    if sum(train.values()) < BATCH:
        yield Finding(home, "too few pictures", str(sum(train.values())))
    if train and max(train.values()) > UNEVEN * min(train.values()):
        most, least = max(train, key=train.get), min(train, key=train.get)
        yield Finding(home, "imbalance", f"{most} {train[most]} : {least} {train[least]}")
    for label in sorted(train.keys() - others) if valid else ():
        yield Finding(home / label, "class only in train")
    for label in sorted(others.keys() - train):
        yield Finding(valid.place / label, "class only in valid")


def names_alike(pictures, path):
    """Yield the class names that a person would take for one."""
    alike = defaultdict(list)
    for label in sorted({picture.label for picture in pictures}):
        alike[unicodedata.normalize("NFKC", label).casefold().strip()].append(label)
    for names in alike.values():
        if len(names) > 1:
            yield Finding(path, "names almost alike", ", ".join(names))
