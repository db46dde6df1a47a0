"""The one reading of a folder of pictures: which of them fastai will take, and what is odd there.

It goes by names alone and opens no file.
"""

import os
import unicodedata
from collections import defaultdict
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

    def classes(self):
        """Return the pictures that lie directly in each folder, {class: files}."""
        return {folder.place.name: folder.pictures for folder in self.folders if folder.pictures}


def read_folder(path):
    """Read a folder of pictures.

    The classes lie in `train` or, where no class there has a picture, side by side in `path`. That
    stops training, but `split_images` can use them.

    Parameters
    ----------
    path : Path or str
        As `check_folder` takes it.

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
            f"{path} {kind}. Name the folder that holds train and valid. The notebook takes its"
            " from IMGS=folder."
        )
    root = read(path, lambda name: name in SPLITS)
    there = {folder.place.name: folder for folder in root.folders}
    train, valid, test = (there.get(name, Folder(path / name)) for name in SPLITS)
    findings = [*inner_splits(train), *inner_splits(valid)]
    if not train.classes():
        beside = read(path, lambda name: name not in SPLITS)
        if beside.classes() or "train" not in there:
            findings.append(Finding(path, "no train folder"))
            train, root = beside, Folder(path, folders=[beside, *root.folders])
    if "valid" not in there:
        findings.append(Finding(path, "no valid folder"))
    findings += [finding for folder in root.below() for finding in folder.findings]
    odd = {finding.place for finding in findings if finding.stops}
    findings += [*around_classes(train, odd), *around_classes(valid, odd)]
    if train.classes() or "train" in there:
        findings += compare_classes(train, there.get("valid"))
    pictures = [
        Picture(split, label, file)
        for split, folder in (("train", train), ("valid", valid))
        for label, files in folder.classes().items()
        for file in files
    ]
    for file in test.all_pictures():
        pictures.append(Picture("test", true_class(file, train.classes()), file))
        if pictures[-1].label is None:
            findings.append(Finding(file, "test picture without a class"))
    return pictures, findings


def read(place, wanted=None, above=()):
    """Return a `Folder`, read with all below it; links that lead back `above` are not followed.

    `wanted` is for the folder at the top: tells by their names which folders in it are read. Other
    files beside these, such as a README, are nobody's mistake.
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
        hidden, is_folder = one.name.startswith("."), os.path.isdir(one)
        if is_folder and not hidden and (wanted is None or wanted(one.name)):
            inner = read(one, above=(*above, real))
            if one.name.lower() not in LITTER or inner.all_pictures():
                folder.folders.append(inner)
                continue
        if one.name.lower() in LITTER or one.name.startswith("._"):
            folder.findings.append(Finding(one, "stray file"))
        elif not hidden and not is_folder:
            if f".{one.name.split('.')[-1].lower()}" in image_extensions:
                folder.pictures.append(one)
            elif wanted is None:
                folder.findings.append(Finding(one, "passed over"))
    return folder


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


def compare_classes(train_folder, valid_folder):
    """Yield what is odd about the classes of train and, if there is such a Folder, of valid."""
    home, train = train_folder.place, {k: len(v) for k, v in train_folder.classes().items()}
    others = valid_folder.classes() if valid_folder else {}
    if len(train) < 2:
        yield Finding(home, "fewer than two classes", ", ".join(train))
    if sum(train.values()) < BATCH:
        yield Finding(home, "too few pictures", str(sum(train.values())))
    if train and max(train.values()) > UNEVEN * min(train.values()):
        most, least = max(train, key=train.get), min(train, key=train.get)
        yield Finding(home, "imbalance", f"{most} {train[most]} : {least} {train[least]}")
    for label in sorted(train.keys() - others) if valid_folder else ():
        yield Finding(home / label, "class only in train")
    for label in sorted(others.keys() - train):
        yield Finding(valid_folder.place / label, "class only in valid")
    alike = defaultdict(list)
    for label in sorted(train | others):
        alike[unicodedata.normalize("NFKC", label).casefold().strip()].append(label)
    for names in alike.values():
        if len(names) > 1:
            yield Finding(home, "names almost alike", ", ".join(names))


def by_class(pictures, split):
    """Return the files of each class in "train" or "valid", {class: files}."""
    classes = {}
    for one in pictures:
        if one.split == split:
            classes.setdefault(one.label, []).append(one.file)
    return classes


def count(pictures):
    """Return how many pictures each class has, {"train": {class: number}, "valid": ...}."""
    splits = {split: by_class(pictures, split) for split in ("train", "valid")}
    return {split: {k: len(files) for k, files in splits[split].items()} for split in splits}
