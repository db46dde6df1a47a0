"""Cheap rivals: what a program without any network makes of the same pictures."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from fastai.learner import Learner
from fastai.vision.core import PILImage
from fastcore.basics import noop
from fastprogress.fastprogress import progress_bar
from torch import nn

from .precision import native_precision
from .verdict import wilson

MANY = 1000  # pictures, from which on a progress bar is shown
BINS = 8  # of hue, of saturation and of value: 512 kinds of colour


def mean_colour(file):
    """Return a picture's mean red, green and blue, shape (3,), each between 0 and 1."""
    return np.asarray(PILImage.create(file).convert("RGB")).mean((0, 1)) / 255


def colour_histogram(file):
    """Return the shares of 8 x 8 x 8 hue, saturation and value bins, shape (512,).

    The square root of each share is taken, so that a small patch of a rare colour counts as well.
    """
    hsv = np.asarray(PILImage.create(file).convert("RGB").resize((128, 128)).convert("HSV"))
    counts, _ = np.histogramdd(hsv.reshape(-1, 3), bins=BINS, range=[(0, 256)] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def frozen_features(learn, pictures):
    """Ask a learner's body what it sees in each picture.

    The body works as in a prediction: no augmentation, batch norms at rest. So each picture has
    to be looked at only once, and any number of small models can learn from the answers.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`.
    pictures : list of Path or of PILImage

    Returns
    -------
    Tensor of shape (n, f)
        The body's maps, pooled as the head pools them: f is 1024 for a resnet34.
    """
    return features_of(learn, learn.dls.test_dl(pictures))


def features_of(learn, dl):
    """Return the same of the pictures of a data loader, as it gives them, perhaps augmented."""
    eye = nn.Sequential(learn.model[0], learn.model[1][:2])  # the head's first two layers pool
    looker = Learner(learn.dls, eye, loss_func=nn.CrossEntropyLoss(), cbs=native_precision())
    with looker.no_bar():
        features, _ = looker.get_preds(dl=dl, act=noop)
    return features.float()


def class_numbers(files, vocab):
    """Return the place of each file's class, the name of its folder, in `vocab`, shape (n,)."""
    return torch.tensor([vocab.o2i[Path(file).parent.name] for file in files])


def rival(dls, model, describe):
    """Teach a small model from a description of each training picture, and test it on valid.

    Parameters
    ----------
    dls : DataLoaders
    model : scikit-learn classifier
    describe : callable
        From a picture's file to its numbers, shape (f,).

    Returns
    -------
    int
        How many validation pictures it gets right.
    """
    sets = (dls.train_ds.items, dls.valid_ds.items)
    bars = (progress_bar(files, leave=False, display=len(files) > MANY) for files in sets)
    x, x_valid = (np.stack([describe(file) for file in bar]) for bar in bars)
    y, y_valid = (class_numbers(files, dls.vocab).numpy() for files in sets)
    return int((model.fit(x, y).predict(x_valid) == y_valid).sum())


def show_rivals(rights, total):
    """Draw each rival's share of right answers as a bar, with its 95 % interval as a line.

    Parameters
    ----------
    rights : dict of str to int
        From a rival's name to how many it got right.
    total : int
        Of pictures, the same for all.
    """
    _, ax = plt.subplots(figsize=(8, 0.5 * len(rights) + 0.8))
    for place, (name, right) in enumerate(reversed(rights.items())):
        low, high = wilson(right, total)
        colour = "#6baed6" if "network" in name else "#bdbdbd"
        ax.barh(place, right / total, color=colour)
        ax.plot([low, high], [place, place], color="black", marker="|")
        ax.text(1.02, place, f"{right} of {total}", va="center")
        ax.text(0.01, place, name, va="center")
    ax.set(xlim=(0, 1), yticks=[], xlabel="share right on valid, with 95 % interval")
    ax.spines[["top", "right", "left"]].set_visible(False)
    plt.show()
