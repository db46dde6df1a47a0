"""Baselines: what simple models make of the same pictures (step 16)."""

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

MANY = 1000  # with more pictures a progress bar is shown
BINS = 8  # each of hue, saturation and value: 512 in all


def mean_colour(file):
    """Return a picture's mean red, green and blue, shape (3,), between 0 and 1; step 16."""
    return np.asarray(PILImage.create(file).convert("RGB")).mean((0, 1)) / 255


def colour_histogram(file):
    """Return a picture's histogram of hue, saturation and value, shape (512,); step 16.

    Each of the 8 x 8 x 8 bins holds the square root of its share of the pixels, so that a small
    patch of a rare colour counts, too.
    """
    hsv = np.asarray(PILImage.create(file).convert("RGB").resize((128, 128)).convert("HSV"))
    counts, _ = np.histogramdd(hsv.reshape(-1, 3), bins=BINS, range=[(0, 256)] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def frozen_features(learn, pictures):
    """Compute the features that the body of a network gives for each picture; step 16.

    The body runs as in a prediction, without augmentation and with fixed batch-norm statistics.
    So one pass over the pictures is enough to train any number of small models on the features.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`.
    pictures : list of Path or of PILImage

    Returns
    -------
    Tensor of shape (n, f)
        Pooled as by fastai's head, average beside maximum: f is 1024 for a resnet34.
    """
    return features_of(learn, learn.dls.test_dl(pictures))


def features_of(learn, dl):
    """Compute the same features for the batches of a data loader, as it augments them."""
    encoder = nn.Sequential(learn.model[0], learn.model[1][:2])  # the head's first two layers pool
    asked = Learner(learn.dls, encoder, loss_func=nn.CrossEntropyLoss(), cbs=native_precision())
    with asked.no_bar():
        features, _ = asked.get_preds(dl=dl, act=noop)
    return features.float()


def class_numbers(files, vocab):
    """Return the index in `vocab` of each file's class, its folder's name, shape (n,); step 16."""
    return torch.tensor([vocab.o2i[Path(file).parent.name] for file in files])


def rival(dls, model, describe):
    """Train a baseline on the training pictures, and test it on the validation pictures; step 16.

    Parameters
    ----------
    dls : DataLoaders
    model : scikit-learn classifier
    describe : callable
        From a picture's file to its features, shape (f,).

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
    """Draw the accuracy of each model as a bar, with its 95 % Wilson interval; step 16.

    Parameters
    ----------
    rights : dict of str to int
        From a model's name to how many pictures it gets right. Names of networks contain "network".
    total : int
        Number of pictures.
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
