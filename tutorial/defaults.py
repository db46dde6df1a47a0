"""The callbacks that every learner of the tutorial has, set once, in step 1.

fastai gives every new learner the callbacks in ``fastai.learner.defaults.callbacks``, a list made
to be added to. With ours in it, the line that builds a learner is plain fastai, as in the article.
"""

import ctypes
import sys

from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze
from fastai.learner import defaults

from .precision import NativePrecision

__all__ = ["OURS", "StillBody", "TidyMemory", "fast_defaults"]

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


OURS = (NativePrecision, TidyMemory, StillBody)


def fast_defaults():
    """Give each learner that is made from now on the three callbacks of this tutorial.

    They are `NativePrecision`, `TidyMemory` and `StillBody`. To call it again changes nothing; to
    have a learner without one of them, write ``learn.remove_cb(StillBody)``, for example.
    """
    for callback in OURS:
        if callback not in defaults.callbacks:
            defaults.callbacks.append(callback)
