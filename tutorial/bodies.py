"""Compare two pretrained bodies: accuracy, number of parameters, inference time (step 24)."""

import textwrap
import time

import numpy as np
from scipy.stats import binomtest

from .record import name_of
from .verdict import what_it_proves

SOME = 32  # pictures to time the inference on


def compare_bodies(learners, probs, truth):
    """Print accuracy, parameters and inference time of two networks, and which is better.

    Step 24 calls it.

    Parameters
    ----------
    learners : list of Learner, length 2
        Trained on the same `DataLoaders`.
    probs : list of Tensor, each of shape (n, c)
        Predictions of each on the same validation pictures.
    truth : Tensor of shape (n,)
        Indices of the true classes.
    """
    names = [name_of(learn.arch) for learn in learners]
    hits = [(p.argmax(dim=1) == truth).numpy() for p in probs]
    for learn, name, hit in zip(learners, names, hits, strict=True):
        parameters = sum(p.numel() for p in learn.model.parameters())
        many, seconds = time_to_look(learn)
        print(f"{name}: {what_it_proves(int(hit.sum()), len(hit))}")
        print(f"    {parameters:,} numbers; {seconds:.1f} s to look at {many} pictures.")
    print(textwrap.fill(which_is_better(names, hits), 96))


def time_to_look(learn):
    """Time predictions on up to `SOME` validation pictures; return their number and the seconds."""
    files = learn.dls.valid_ds.items[:SOME]
    start = time.perf_counter()
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(files))
    return len(files), time.perf_counter() - start


def which_is_better(names, hits):
    """Say whether one of two networks is significantly better on the same pictures.

    Only pictures that exactly one of them gets right count: an exact sign test at the 5 % level,
    which is McNemar's test.

    Parameters
    ----------
    names : list of str, length 2
    hits : list of ndarray of bool, each of shape (n,)
        Which pictures each network gets right.

    Returns
    -------
    str
        One or two sentences.

    References
    ----------
    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947.
    """
    first, second = int(np.sum(hits[0] & ~hits[1])), int(np.sum(hits[1] & ~hits[0]))
    if first + second == 0:
        return "Both are right on the same pictures, so these can't tell which is better."
    words = (
        f"Right alone: {names[0]} on {first}, {names[1]} on {second} of {len(hits[0])} pictures."
    )
    if binomtest(first, first + second).pvalue >= 0.05:
        return f"{words} So few pictures, or so evenly parted, can't tell which is better."
    return f"{words} That is hard to put down to chance: {names[second > first]} is better here."
