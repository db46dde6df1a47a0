"""How fastai goes through a folder of pictures, and where it would lose its way."""

import os
from pathlib import Path

from fastai.data.transforms import image_extensions


def picked(file):
    """Tell whether fastai takes a file for a picture: by its extension, and no hidden files."""
    name = Path(file).name
    return not name.startswith(".") and f".{name.split('.')[-1].lower()}" in image_extensions


def odd_folders(path):
    """Find folders that fastai would leave out unseen, never leave, or take for another split.

    Parameters
    ----------
    path : Path
        Holds `train`, `valid` and perhaps `test`.

    Yields
    ------
    folder : Path
    problem : str
        "unreadable", "link in a circle" or "split inside a class", which are keys of `FINDINGS`.
    """
    todo = [(path, ())]
    while todo:
        folder, above = todo.pop()
        below = folder.relative_to(path).parts
        real = os.path.realpath(folder)
        if real in above:
            yield folder, "link in a circle"
            continue
        try:
            names = sorted(os.listdir(folder), reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a missing split is somebody else's finding
        except OSError:
            yield folder, "unreadable"
            continue
        if not below:
            names = [name for name in names if name in ("train", "valid", "test")]
        inside = [folder / name for name in names if not name.startswith(".")]
        folders = [one for one in inside if os.path.isdir(one)]
        todo += [(one, (*above, real)) for one in folders]
        # fastai goes by the last two folders of a file's path, whatever stands before them.
        if len(below) > 2 and below[0] != "test" and below[-2] in ("train", "valid"):
            if any(map(picked, set(inside) - set(folders))):
                yield folder, "split inside a class"
