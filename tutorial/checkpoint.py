"""Go on after a training that was stopped, as if it had not been, at the last whole epoch."""

import os
import random
import time

import torch
from accelerate.utils import broadcast_object_list, gather_object
from fastai.callback.core import Callback
from fastai.torch_core import get_model, rank_distrib, set_seed, to_device
from fastcore.foundation import L

from .errors import TutorialError
from .files import written_whole

__all__ = ["Checkpoint", "SeedEachEpoch", "read_checkpoint", "take_up"]


class SeedEachEpoch(Callback):
    """Set the seed before each epoch, so that an epoch is the same after a stop.

    It is made of `seed`, a text, the epoch and the process: the processes of a training alter their
    pictures each in its own way. (In which order they come, the first one decides.)
    """

    def __init__(self, seed):
        self.seed = seed

    def before_epoch(self):
        number = random.Random(f"{self.seed} {self.epoch} {rank_distrib()}").randrange(2**32)
        set_seed(number)
        loader = self.dls.train
        loader = getattr(loader, "dl", loader)  # with several processes it is wrapped
        loader.rng = random.Random(number)


class Checkpoint(Callback):
    """Write after each epoch all that is needed to go on from there.

    Parameters
    ----------
    file : Path
        Written by the first process.
    settings : dict
        Stored, to be compared by `read_checkpoint`.
    lines : list of list of float
        Training loss, validation loss, accuracy and seconds of each epoch so far; grows.
    tell : callable
        Called with `lines` after each epoch.
    mean : (int, float), optional
        The running mean of the training loss in fastai's recorder: steps, and uncorrected value.
    """

    order = 65  # after fastai's recorder

    def __init__(self, file, settings, lines, tell, mean=(0, 0.0)):
        self.file, self.settings, self.lines, self.tell = file, settings, lines, tell
        self.mean = mean

    def before_fit(self):
        smooth = self.recorder.smooth_loss
        smooth.count, smooth.val = self.mean[0], torch.tensor(self.mean[1])

    def before_epoch(self):
        self.start = time.monotonic()

    def after_epoch(self):
        if self.epoch < len(self.lines):  # done before the stop, and skipped now
            return
        seconds = time.monotonic() - self.start
        self.lines.append([*map(float, self.recorder.values[-1]), seconds])
        if rank_distrib() == 0:
            _write(self._content(), self.file)
        self.tell(self.lines)

    def _content(self):
        opt = self.opt.state_dict()
        hypers = [{key: float(value) for key, value in group.items()} for group in opt["hypers"]]
        return {
            "model": get_model(self.model).state_dict(),
            # Nothing but numbers, lists and dicts: to read it runs no code that it might hold.
            "opt": {"state": list(opt["state"]), "hypers": hypers},
            "settings": self.settings,
            "lines": self.lines,
            "mean": (self.recorder.smooth_loss.count, float(self.recorder.smooth_loss.val)),
            "fits": self.fit_log.fits,
        }


def read_checkpoint(file, settings):
    """Return what `Checkpoint` wrote, or None if there is nothing; the same in every process.

    One process of each machine looks for the file: it may lie on any one, since the first process
    may have been on another before the stop. The one with most epochs counts, and the first process
    keeps a copy. `settings` are those of the training that wants to go on.

    Raises
    ------
    TutorialError
        If the file is damaged, or if it was written with other settings.
    """
    first_here = int(os.environ.get("LOCAL_RANK", 0)) == 0
    mine = _read(file, settings) if first_here and file.exists() else None
    wrong = mine if isinstance(mine, TutorialError) else None
    for error in filter(None, gather_object([wrong])):
        raise error
    epochs = gather_object([len(mine["lines"]) if mine else 0])
    holder = epochs.index(max(epochs))
    found = broadcast_object_list([mine], from_process=holder)[0]
    if holder != 0 and rank_distrib() == 0:
        _write(found, file)
    return found


def _write(content, file):
    """Write a checkpoint."""
    then = "make room, and type the same command again; the epochs before are kept"
    with written_whole(file, then) as part:
        torch.save(content, part)


def _read(file, settings):
    """Return the content of a checkpoint, or the error that all processes shall raise."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        had = found["settings"]
    except Exception:  # PyTorch has half a dozen kinds
        return TutorialError(f"{file} is damaged: delete it, and its stage begins anew.")
    other = [
        f"{key} was {had.get(key)} and is {now}"
        for key, now in settings.items()
        if had.get(key) != now
    ]
    if other:
        return TutorialError(
            f"{file} belongs to another training ({'; '.join(other)}): name another folder with"
            " --out."
        )
    return found


def take_up(learn, saved):
    """Put the numbers of a checkpoint into a learner's network and optimizer, and what it noted."""
    learn.model.load_state_dict(saved["model"])
    # The training that goes on is noted anew, with the epochs that it has had.
    learn.fit_log.fits = [fit for fit in saved["fits"] if fit["epochs"] == fit["planned"]]
    if not learn.opt:
        learn.create_opt()
    opt = saved["opt"]
    state = to_device(opt["state"], learn.dls.device)
    learn.opt.load_state_dict({"state": state, "hypers": L(opt["hypers"])})
