"""Seed variance: how much accuracy varies from one training to the next (steps 18 and 19)."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import apply_init, set_seed
from fastai.vision.learner import create_head
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from .precision import NativePrecision


def train_head(train, valid, seed, epochs, rate, bs=16):
    """Train a new head on frozen features, as fastai would on the pictures; step 18.

    Parameters
    ----------
    train, valid : tuple of Tensor
        Features (n, f), from `frozen_features`, and class indices (n,).
    seed : int
        Of the head's initial weights and of the order of the pictures.
    epochs, rate : int, float
        For `fit_one_cycle`.
    bs : int, default 16
        Batch size.

    Returns
    -------
    head : nn.Module
        From features to one logit for each class.
    right : ndarray of bool, shape (n_valid,)
        Which validation pictures it gets right.
    """
    set_seed(seed)
    learn = head_learner(TensorDataset(*train), TensorDataset(*valid), int(train[1].max()) + 1, bs)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, rate)
        outputs, truth = learn.get_preds()
    return learn.model, (outputs.argmax(1) == truth).numpy()


def head_learner(train, valid, classes, bs=16):
    """Return a learner of a new head alone, initialised as by `vision_learner`.

    Parameters
    ----------
    train, valid : Dataset
        Each item is the features of a picture (f,), from `frozen_features`, and its class index.
    classes : int
        Number of classes.
    bs : int, default 16
        Batch size.

    Returns
    -------
    Learner
    """
    cpu = torch.device("cpu")
    dls = DataLoaders.from_dsets(train, valid, bs=bs, num_workers=0, device=cpu)
    features, _ = train[0]
    head = create_head(len(features) // 2, classes)[2:]  # without the two layers that pool
    apply_init(head, nn.init.kaiming_normal_)  # as vision_learner does
    learn = Learner(dls, head, loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
    return learn.remove_cb(NativePrecision)  # for so small a network it would only cost time


def show_luck(heads, before, after):
    """Plot the accuracies of repeated trainings, and say whether fine-tuning helped; step 18.

    Parameters
    ----------
    heads : list of ndarray of bool, each of shape (n_valid,)
        Which validation pictures each head gets right, one for each seed.
    before, after : list of ndarray of bool, each of shape (n_valid,)
        The same before and after fine-tuning, one for each run, in the same order.
    """
    _, ax = plt.subplots(figsize=(7, 3))
    ax.plot(np.linspace(-0.1, 0.1, len(heads)), [h.mean() for h in heads], "o", color="#6baed6")
    for a, b, place in zip(before, after, np.linspace(-0.1, 0.1, len(before)), strict=True):
        ax.plot([1 + place, 2 + place], [a.mean(), b.mean()], "s-", color="#e6550d")
    ax.set(xticks=[0, 1, 2], ylabel="share right on valid", xlim=(-0.4, 2.4))
    ax.set_xticklabels([f"head,\n{len(heads)} seeds", "before\nfine-tuning", "after\nfine-tuning"])
    plt.show()
    spread = [h.mean() for h in heads]
    print(f"The head alone: {min(spread):.0%} to {max(spread):.0%} right, by luck of the seed.")
    print(textwrap.fill(is_it_real(before, after), 96))


def is_it_real(before, after):
    """Say whether fine-tuning made a significant difference, by a sign test over pictures.

    A picture counts for fine-tuning if more runs get it right after than before, and against it if
    fewer do. The unit is the picture: more runs on the same pictures are no new evidence about
    other pictures. Parameters as in `show_luck`; returns one or two sentences.
    """
    change = np.sum(after, 0) - np.sum(before, 0)
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    words = (
        f"Over {len(before)} runs, fine-tuning did better on {better} of {len(change)} pictures"
        f" and worse on {worse}"
    )
    if better + worse == 0:
        return words + ": no difference to explain."
    p = binomtest(better, better + worse).pvalue
    share = f"{p:.0%}" if p >= 0.01 else "less than 1%"
    words += f"; a coin would part {better + worse} at least so unevenly in {share} of cases."
    if p >= 0.05:
        return words + " These pictures do not show that fine-tuning made a difference."
    did = "helped" if better > worse else "done harm"
    return words + f" That is hard to put down to chance: it seems to have {did}."


def learning_curve(train, valid, sizes, draws=10):
    """Score logistic regression on frozen features of more and more pictures; step 19.

    Parameters
    ----------
    train, valid : tuple of Tensor
        Features (n, f), from `frozen_features`, and class indices (n,).
    sizes : iterable of int
        Training pictures of each class; all of a class that has fewer.
    draws : int, default 10
        Random subsets of each size.

    Returns
    -------
    dict of int to list of float
        From a size to the validation accuracy of each draw.
    """
    rng, (x, y) = np.random.default_rng(0), (part.numpy() for part in train)
    scores = {}
    for size in sizes:
        scores[size] = []
        for _ in range(draws):
            some = [rng.permutation(np.flatnonzero(y == one))[:size] for one in np.unique(y)]
            some = np.concatenate(some)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
            scores[size].append(model.fit(x[some], y[some]).score(*(p.numpy() for p in valid)))
    return scores


def show_learning_curve(scores):
    """Plot the mean of `learning_curve` at each size, and the range of the draws; step 19."""
    sizes, values = list(scores), np.array(list(scores.values()))
    _, ax = plt.subplots(figsize=(7, 3.2))
    ax.fill_between(sizes, values.min(1), values.max(1), color="#c6dbef", label="worst to best")
    ax.plot(sizes, values.mean(1), "o-", color="#2171b5", label="mean")
    ax.set(xscale="log", xlabel="pictures a class to learn from", ylabel="share right on valid")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    plt.show()
