"""Two borrowed bodies side by side: what each gets right, its size, and how long it looks."""

import textwrap
import time

import numpy as np
from scipy.stats import binomtest

from .record import name_of
from .verdict import what_it_proves

SOME = 32  # pictures that are timed


def compare_bodies(learners, probs, truth):
    """Print what two networks get right on the same pictures, their size and time; step 24.

    Parameters
    ----------
    learners : list of Learner
        Two, whose `dls` hold the pictures to check on.
    probs : list of Tensor, each of shape (n, c)
        What each of them says about these pictures.
    truth : Tensor of shape (n,)
        Numbers of the true classes.
    """
    names = [name_of(learn.arch) for learn in learners]
    hits = [(p.argmax(dim=1) == truth).numpy() for p in probs]
    for learn, name, hit in zip(learners, names, hits, strict=True):
        numbers = sum(p.numel() for p in learn.model.parameters())
        many, seconds = time_to_look(learn)
        print(f"{name}: {what_it_proves(int(hit.sum()), len(hit))}")
        print(f"    {numbers:,} numbers; {seconds:.1f} s to look at {many} pictures.")
    print(textwrap.fill(which_is_better(names, hits), 96))


def time_to_look(learn):
    """Return how many pictures a learner was shown, and how many seconds that took."""
    files = learn.dls.valid_ds.items[:SOME]
    start = time.perf_counter()
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(files))
    return len(files), time.perf_counter() - start


def which_is_better(names, hits):
    """Say in a sentence or two whether the same pictures show which of two networks is better.

    Only those count that one of them gets right and the other does not; if the two were equally
    good, either would be as likely (a sign test, as McNemar's of 1947).

    Parameters
    ----------
    names : list of str
    hits : list of ndarray of bool, each of shape (n,)

    Returns
    -------
    str
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
