"""Divide pictures into train and valid, as copies in a new folder."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from sklearn.model_selection import GroupShuffleSplit

from ..download import sha256
from ..errors import FolderError
from .findings import printable
from .layout import by_class, read_folder


def split_images(path, new_folder, share=0.2, seed=42):
    """Copy pictures into a new folder, divided into `train` and `valid`; step 23.

    Each class is divided at random, by scikit-learn's `GroupShuffleSplit`; files that are equal
    byte for byte stay on one side. Pictures in `test` are copied along, as they lie.

    Parameters
    ----------
    path : Path or str
        Holds one folder a class, either in its folder `train` or directly. No file is changed.
    new_folder : Path or str
        Is made here, outside `path`, in a folder that exists.
    share : float
        Part of each class's different pictures that goes to `valid`, between 0 and 1.
    seed : int
        The same seed draws the same pictures again.

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    FolderError
        If `path` has no classes or has pictures in `valid` already, if a class has too few
        different pictures, if `new_folder` holds anything, or if copying fails. In each case
        nothing new is left behind.
    """
    path, new = Path(path), Path(new_folder)
    pictures = [one for one in read_folder(path)[0] if os.path.isfile(one.file)]
    try:
        check_place(path, new)
        copies = draw(classes_to_split(pictures, path), share, seed)
        tests = [one.file for one in pictures if one.split == "test"]
        copies |= {file: file.relative_to(path) for file in tests}
        copy_all_or_nothing(copies, new)
    except OSError as error:
        raise FolderError(f"Copying stopped: {error}. Nothing was left behind.") from error
    sides = [to.parts[0] for to in copies.values()]
    train, valid, name = sides.count("train"), sides.count("valid"), printable(new.name)
    print(f"{name} now holds copies: {train} pictures in train, {valid} in valid.")
    print(f"{name} 里是复制好的图片：train {train} 张，valid {valid} 张。")
    return new


def check_place(path, new):
    """Refuse a place for the new folder where anything could be overwritten or mixed up."""
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise FolderError(f"{new} exists and is not empty. Name a new folder.")
    if Path(os.path.realpath(new)).is_relative_to(os.path.realpath(path)):
        raise FolderError(f"{new} lies inside {path}. Name a new folder outside of it.")
    if not new.absolute().parent.is_dir():
        raise FolderError(f"There is no folder {new.absolute().parent} to put {new.name} in.")


def classes_to_split(pictures, path):
    """Return the pictures of each class, {class: files}."""
    if by_class(pictures, "valid"):
        raise FolderError(f"{path / 'valid'} already holds pictures, so nothing needs a split.")
    classes = by_class(pictures, "train")
    if len(classes) < 2:
        raise FolderError(f"{path} holds fewer than two folders of pictures; a split needs two.")
    return classes


def draw(classes, share, seed):
    """Decide where each file goes, {file: place below the new folder}."""
    side, copies = {}, {}
    for label, files in classes.items():
        keys, chosen = [sha256(file) for file in files], []
        with suppress(ValueError):  # a single picture, or a share that leaves one side empty
            splitter = GroupShuffleSplit(1, test_size=float(share), random_state=seed)
            _, chosen = next(splitter.split(files, groups=keys))
        drawn = set(chosen)
        for i, (file, key) in enumerate(zip(files, keys, strict=True)):
            # A picture that another class has, too, goes where that one went.
            split = side.setdefault(key, "valid" if i in drawn else "train")
            copies[file] = Path(split, label, file.name)
        if {side[key] for key in keys} != {"train", "valid"}:
            raise FolderError(
                f"{label} has {len(set(keys))} different pictures, which share={share} does not"
                " divide: train and valid need one each. The share lies between 0 and 1."
            )
    return copies


def copy_all_or_nothing(copies, new):
    """Copy into a folder beside `new`, which gets its name only when all is there."""
    with tempfile.TemporaryDirectory(prefix=".split-", dir=new.absolute().parent) as place:
        unfinished = Path(place) / "copy"
        for file, to in copies.items():
            (unfinished / to).parent.mkdir(parents=True, exist_ok=True)
            if (unfinished / to).exists():
                raise FileExistsError(f"two files would both be named {to}")
            shutil.copyfile(file, unfinished / to)
        if new.exists():
            new.rmdir()  # it is empty
        unfinished.rename(new)
