"""The callbacks that every learner of the tutorial has, set once, in step 1.

fastai gives every new learner the callbacks in ``fastai.learner.defaults.callbacks``, a list made
to be added to. With ours in it, the line that builds a learner is plain fastai, as in the article.
"""

import ctypes
import sys

import numpy as np
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.training import BnFreeze
from fastai.learner import defaults

from .precision import NativePrecision

__all__ = ["OURS", "FitLog", "StillBody", "TidyMemory", "fast_defaults"]

TIDY_EVERY = 100  # batches of training between two times that freed memory is given back


class StillBody(BnFreeze):
    """Freeze the batch norms of a frozen body, too, which fastai would go on training.

    Then the body gives the same features for a picture every time, and training is faster.
    `BnFreeze` keeps the running statistics, ``train_bn=False`` the weights and biases. Once the
    body is unfrozen, its batch norms learn as usual.
    """

    def after_create(self):  # comes before `vision_learner` freezes the body
        self.learn.train_bn = False


class TidyMemory(Callback):
    """Return the memory that training has freed to the system; only Linux needs it.

    There, freed memory lies between small blocks in use. In a long training more and more of the
    gaps are too narrow for the next tensor, and the process would keep gigabytes.
    """

    def after_batch(self):
        if self.training and self.train_iter % TIDY_EVERY == 0:
            _give_memory_back()

    def after_fit(self):
        if not hasattr(self.learn, "gather_preds"):  # predictions need little, and come in rows
            _give_memory_back()


def _give_memory_back():
    """Return what has been freed to the system, where the C library can do it: glibc can."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


class FitLog(Callback):
    """Note each training of a learner, for the record of step 28, and export it with the learner.

    Attributes
    ----------
    fits : list of dict
        Of each training (`lr_find` is none): ``layers``, in words, those that learned; ``epochs``
        that were trained, fewer than ``planned`` if it was stopped; ``rates``, the highest of the
        first and of the last of these layers; ``one_cycle``, whether they rose to it and fell.
    """

    def __init__(self):
        self.fits, self.begun = [], False

    def before_fit(self):
        self.begun = False

    def before_train(self):  # which a prediction never comes to
        if not self.begun and not hasattr(self.learn, "lr_finder"):
            self.begun = True
            self.fits.append(self._describe())

    def after_train(self):
        if self.begun:
            self.fits[-1]["epochs"] = self.epoch + 1  # those before a stop count, too

    def _describe(self):
        """Describe the training that begins; it has no epoch yet."""
        groups = len(self.opt.hypers)
        frozen = min(self.opt.frozen_idx, groups - 1)
        rates = self._rates()[:, [frozen, -1]]
        layers = f"the last {groups - frozen} of {groups} groups of layers"
        if frozen in (0, groups - 1):
            layers = "the head" if frozen else "all layers"
        return {
            "layers": layers,
            "epochs": 0,
            "planned": self.n_epoch,
            "rates": [float(f"{rate:.6g}") for rate in rates.max(axis=0)],
            "one_cycle": bool(max(rates[0, 1], rates[-1, 1]) < rates[:, 1].max()),
        }

    def _rates(self):
        """Return the rates in the course of training: a thousand moments, a column each group."""
        rates = [[group["lr"] for group in self.opt.hypers]]
        for cb in self.learn.cbs:  # the plan, as the steps of a short training leave out the peak
            if isinstance(cb, ParamScheduler) and "lr" in cb.scheds:
                plan = (cb.scheds["lr"](step / 1000) for step in range(1001))
                rates = [np.broadcast_to(rate, len(self.opt.hypers)) for rate in plan]
        return np.array(rates)


OURS = (NativePrecision, TidyMemory, StillBody, FitLog)


def fast_defaults():
    """Give each learner that is made from now on the callbacks of this tutorial.

    To call it again changes nothing; to have a learner without one of them, write
    ``learn.remove_cb(StillBody)``, for example.
    """
    for callback in OURS:
        if callback not in defaults.callbacks:
            defaults.callbacks.append(callback)
