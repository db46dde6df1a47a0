"""What each learner of the tutorial has besides fastai's own line, set once, in step 1.

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
    """Let a frozen body stand wholly still, its batch norms too.

    These even out what passes through them, by averages of each batch, which fastai lets them learn
    even where all else is frozen. Without that the body sees the same in a picture every time, and
    training is faster. `BnFreeze` keeps their averages; ``train_bn=False`` their other numbers.
    Once all layers learn, so do they.
    """

    def after_create(self):  # comes before `vision_learner` freezes the body
        self.learn.train_bn = False


class TidyMemory(Callback):
    """Give memory that training has freed back to the system; only Linux needs it.

    There, what Python has freed lies in gaps between small things that stay. In a long training
    more and more gaps are too narrow for the next tensor, and gigabytes would be kept.
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
