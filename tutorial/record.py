"""What a paper must say about a run, collected by the run itself, for people and for programs.

A result that nobody can repeat is an anecdote. The record names all that a run depends on: the
pictures and the body down to the last bit (as hashes), the schedule, the precision, the device,
the versions and the seed; and it holds every figure, so that none is copied by hand.
"""

import hashlib
import json
import platform
import re
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from math import isclose
from numbers import Integral
from pathlib import Path

import pandas as pd
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.data.transforms import Normalize, get_image_files
from fastai.optimizer import Adam
from fastai.vision.augment import RandTransform, Resize

from .download import sha256
from .errors import TutorialError
from .files import write_whole
from .precision import NativePrecision, describe_device
from .verdict import wilson

__all__ = ["hash_pictures", "name_of", "run_record", "write_record"]

MADE_BY = "tutorial.record"
PACKAGES = "fastai torch torchvision timm numpy pillow scikit-learn safetensors".split()


def hash_pictures(files, root):
    """One SHA-256 for many files: it changes with any byte, name, addition or removal.

    It is the SHA-256 of the lines that ``sha256sum`` prints for the files, sorted by name, so that
    anybody can check it without this tutorial, on Linux from inside `root`, which may move:
    ``find train valid test -name '*.jpg' | LC_ALL=C sort | xargs sha256sum | sha256sum``.

    Raises
    ------
    TutorialError
        If a file does not lie in `root`.
    """
    root = Path(root).absolute()
    try:
        names = [(Path(f).absolute().relative_to(root).as_posix(), f) for f in files]
    except ValueError as error:
        raise TutorialError(f"{error}: give the folder that `dls` was made from.") from None
    # surrogateescape, for names that are no UTF-8
    names = sorted((name.encode("utf-8", "surrogateescape"), file) for name, file in names)
    lines = [sha256(file).encode() + b"  " + name + b"\n" for name, file in names]
    return hashlib.sha256(b"".join(lines)).hexdigest()


def run_record(dls, path, learn, seed, schedule=None, figures=None, processes=1):
    """Collect all that a run depends on, and all that came out of it; step 28 does it.

    Parameters
    ----------
    dls : DataLoaders
        From a folder, with `train` and `valid`.
    path : path
        That folder. Of its name only the last part is kept; pictures in its `test` count too.
    learn : Learner
        After training.
    seed : int or list of int
    schedule : list of (str, int, float or slice), optional
        Only for a learner that has noted no trainings (see `FitLog`), each of these in turn: which
        layers, how many epochs, and the highest rate, as given to `fit_one_cycle`; for example
        ``("the head", 3, 3e-3)``.
    figures : dict, optional
        Whatever was found, by name. A pair of whole numbers is right answers and answers in all,
        and gets its 95 % interval, as does a table from `verdict`. Other numbers, texts, lists,
        dicts, arrays, tensors and tables are kept as they are.
    processes : int, default 1
        That trained together, each with `dls.bs` pictures a step.

    Returns
    -------
    dict
        Of plain values only, so that JSON gives it back unchanged.

    Raises
    ------
    TutorialError
        If nobody knows how `learn` was trained, if the last training in `schedule` is not the last
        that it noted, if one of the figures is of a kind that JSON can't hold, or if a picture of
        `dls` lies outside `path`.
    """
    path = Path(path)
    train, valid = list(dls.train_ds.items), list(dls.valid_ds.items)
    test = list(get_image_files(path / "test"))
    transforms = [*dls.train.after_item.fs, *dls.train.after_batch.fs]
    return {
        "made_by": MADE_BY,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "pictures": {
            "folder": path.resolve().name,
            "sha256": hash_pictures([*train, *valid, *test], path),
            "train": _count(train),
            "valid": _count(valid),
            "test": len(test),
            "classes": [str(name) for name in dls.vocab],
        },
        "input": {
            "pixels": _size(transforms),
            "fitted": next((t.method for t in transforms[::-1] if isinstance(t, Resize)), None),
            "batch": dls.bs * processes,
            "normalised": any(isinstance(t, Normalize) for t in transforms),
            "augmentation": [name for t in transforms for name in _random_parts(t)],
        },
        "network": {
            "architecture": name_of(getattr(learn, "arch", "network")),
            "numbers": sum(p.numel() for p in learn.model.parameters()),
            "body": _body(learn),
        },
        "training": {
            "schedule": _fits(learn, schedule),
            "processes": processes,
            "optimizer": getattr(learn.opt_func, "__name__", "unknown"),
            "decoupled_weight_decay": learn.opt_func is Adam,
            "weight_decay": learn.opt.hypers[-1].get("wd") if learn.opt else None,
            "loss": str(learn.loss_func).removeprefix("FlattenedLoss of ").removesuffix("()"),
            "callbacks": [cb.name for cb in learn.cbs],
        },
        "device": describe_device()[0],
        "precision": _precision(learn),
        "versions": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cuda": torch.version.cuda,
            **{name: version(name) for name in PACKAGES},
        },
        "seed": _plain(seed, "seed"),
        "figures": {name: _figure(value, name, path) for name, value in (figures or {}).items()},
    }


def write_record(record, file):
    """Write a record of `run_record` to a file as JSON, whole or not at all; step 28 does it.

    Raises
    ------
    TutorialError
        If `file` exists and is something else, or if it can't be written to.
    """
    file = Path(file)
    if file.exists() and not _is_record(file):
        raise TutorialError(
            f"{file} was not written by this tutorial and is not overwritten: move it, or choose"
            " another name."
        )
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(file, text)


def _fits(learn, schedule):
    """Return the trainings of a learner as `FitLog` noted them, or else as `schedule` says."""
    noted = learn.fit_log.fits if hasattr(learn, "fit_log") else []
    said = [_stage(*one) for one in schedule or []]
    if not noted and not said:
        raise TutorialError(
            "`learn` has noted no training, as it was made before `fast_defaults()` or was not"
            ' trained: say how it was, such as schedule=[("the head", 3, 3e-3)].'
        )
    if noted and said:
        (had, peak), (says, high) = ((f[-1]["epochs"], f[-1]["rates"][1]) for f in (noted, said))
        if says != had or not isclose(high, peak, rel_tol=0.01):
            raise TutorialError(
                f"`schedule` says that the last training took {says} epochs at up to {high:g}, but"
                f" `learn` has noted {had} at up to {peak:g}: leave `schedule` out."
            )
    return [dict(fit) for fit in noted] or said


def _stage(layers, epochs, rate):
    """Return one training as `FitLog` notes it; `rate` is a number or a slice."""
    low, high = (rate.start, rate.stop) if isinstance(rate, slice) else (rate, rate)
    # fastai's slice(high), without a start, gives all groups but the last a tenth of it
    rates = [float(high / 10 if low is None else low), float(high)]
    had = {"epochs": int(epochs), "planned": int(epochs)}
    return {"layers": layers, **had, "rates": rates, "one_cycle": True}


def _count(files):
    """Return how many files lie in each folder, by the folder's name."""
    return dict(sorted(Counter(Path(file).parent.name for file in files).items()))


def _size(transforms):
    """Return the sides of the pictures as the last resizing makes them; None if there is none."""
    sizes = [t.size for t in transforms if getattr(t, "size", None)]
    if not sizes:
        return None
    size = sizes[-1]
    return [size, size] if isinstance(size, int) else [int(side) for side in size]


def _random_parts(transform):
    """Return the names of what a transform does at random; fastai joins several into one."""
    parts = [p for kind in ("aff_fs", "coord_fs", "fs") for p in getattr(transform, kind, [])]
    names = [getattr(getattr(p, "func", p), "__name__", type(p).__name__) for p in parts]
    if not names and isinstance(transform, RandTransform) and not isinstance(transform, Resize):
        names = [type(transform).__name__]  # an augmentation that stands alone
    return [re.sub(r"^_|_mat$|Coord$|Logit$", "", name).lower() for name in names]


def name_of(arch):
    """Return the name of an architecture, which may be a function or, of timm's, a name already."""
    return arch if isinstance(arch, str) else getattr(arch, "__name__", "network")


def _body(learn):
    """Return which trained body the learner started from, and the hash of its file."""
    for layer in learn.model.modules():
        if hasattr(layer, "trained_body"):  # noted when the network was built
            return layer.trained_body
    random = not getattr(learn, "pretrained", True)  # vision_learner notes it
    return {"which": "random" if random else "other", "sha256": None}


def _precision(learn):
    """Name the precision of a learner: that of the callback which came last, as that one counts."""
    callbacks = [cb for cb in learn.cbs if isinstance(cb, MixedPrecision)]
    if not callbacks:
        return "float32"
    ours = isinstance(callbacks[-1], NativePrecision)
    return describe_device()[1] if ours else "mixed precision"


def _figure(value, name, root):
    """Return a figure in plain values; counts and verdicts with their interval."""
    if isinstance(value, pd.DataFrame) and "verdict" in value:
        known = value[value.verdict != "unknown"]
        files = [Path(file) for file in value.index]
        files = [f.relative_to(root) if f.is_relative_to(root) else Path(f.name) for f in files]
        rows = value.assign(file=[f.as_posix() for f in files]).to_dict("records")
        counted = _counted(int((known.verdict == "right").sum()), len(known))
        return {**counted, "rows": _plain(rows, name)}
    if isinstance(value, tuple) and [isinstance(n, Integral) for n in value] == [True, True]:
        return _counted(*map(int, value))
    return _plain(value, name)


def _counted(right, total):
    """Return right answers, all answers, their share and its 95 % interval (Wilson, 1927)."""
    share, interval = (right / total, list(wilson(right, total))) if total else (None, None)
    return {"right": right, "total": total, "share": share, "interval_95": interval}


def _plain(value, name):
    """Return the same in the kinds that JSON can hold; NaN becomes None."""

    def plain(one):
        if isinstance(one, pd.DataFrame):
            return one.reset_index().to_dict("records")
        if isinstance(one, pd.Series):
            return one.to_dict()
        if hasattr(one, "tolist"):  # tensors, arrays, NumPy's numbers
            return one.tolist()
        if isinstance(one, Path):
            return one.as_posix()
        raise TutorialError(
            f"The figure {name!r} holds a {type(one).__name__}, which a record can't keep: give a"
            " number, a text, a list, a dict or a table."
        )

    return json.loads(json.dumps(value, default=plain), parse_constant=lambda _: None)


def _is_record(file):
    """Tell whether a file is a record that this module wrote."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(found, dict) and found.get("made_by") == MADE_BY
    except (OSError, ValueError):
        return False
