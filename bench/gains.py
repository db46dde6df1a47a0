"""What each choice of the notebook brings: the same training with one of them undone.

A choice that costs nothing and brings something is in the notebook; what brought nothing is listed
as well, so that nobody need try it again.
"""

import io
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.torch_core import default_device
from fastai.vision.all import OptimWrapper, PILImage, Resize, set_seed
from PIL import Image

from bench.growth import copies
from bench.limit import clock
from bench.report import ROOT, table
from tutorial import recipe
from tutorial.defaults import OURS, StillBody, TidyMemory
from tutorial.precision import NativePrecision, best_dtype

PICTURES = 96  # to train on: six steps of 16
PHOTO, COPY = (4032, 3024), (500, 375)  # pixels, as phones and `resize_images` make them
AS_IT_IS = "as it is"


class ColoursFirst(NativePrecision):
    """Ours, but with pictures and network in the order in which fastai makes them."""

    def before_fit(self):
        super().before_fit()
        self.channels_last = False
        self.model.to(memory_format=torch.contiguous_format)


class Float32(NativePrecision):
    """Ours, but in the precision that every machine has."""

    def before_fit(self):
        super().before_fit()
        self.dtype = torch.float32


class KeptGradients(NativePrecision):
    """Ours, but with gradients that fastai makes zero after a step."""

    def after_step(self):
        MixedPrecision.after_step(self)


def ways():
    """Return what is tried: by name, what loaders and learner get that is not the notebook's."""
    found = {
        AS_IT_IS: ({}, {}),
        "colours first, as fastai keeps pictures, not last": ({}, cbs(ColoursFirst)),
        "batch norms that learn in the frozen body, too": ({}, cbs(still=())),
        "two helpers that read pictures": ({"num_workers": 2}, {}),
        "no augmentation at all": ({"augment": False}, {}),
        "PyTorch's fused AdamW in place of fastai's Adam": (
            {},
            {"opt_func": partial(OptimWrapper, opt=torch.optim.AdamW, fused=True)},
        ),
        "gradients that are made zero, not dropped": ({}, cbs(KeptGradients)),
    }
    if best_dtype(default_device()) != torch.float32:
        found["float32"] = ({}, cbs(Float32))
    return found


def cbs(precision=NativePrecision, still=(StillBody,)):
    """Return what `recipe.learner` takes to have other callbacks than the notebook's."""
    return {"cbs": [precision, TidyMemory, *still]}


def train(path, loaders, learner):
    """Train the head for an epoch, then all layers for one.

    Returns
    -------
    (float, float)
        Seconds of each, with the validation after it.
    """
    set_seed(42, reproducible=True)
    dls = recipe.loaders(Path(path), **loaders)
    learn, taken = recipe.learner(dls, **{"cbs": OURS, **learner}), []
    with learn.no_bar(), learn.no_logging():
        for stage in recipe.stages(learn):
            start = time.perf_counter()
            learn.fit_one_cycle(1, stage.rate)
            taken.append(time.perf_counter() - start)
    return tuple(taken)


def photos():
    """Return the seconds to read a phone's photo: from a copy that was made small, and whole."""
    picture, resize = Image.open(ROOT / "imgs" / "test" / "walle.113.jpg"), Resize(224)

    def seconds(size):
        content = io.BytesIO()
        picture.resize(size).save(content, "JPEG", quality=92)
        return clock(
            lambda: resize(PILImage.create(io.BytesIO(content.getvalue())), split_idx=1), 5
        )

    return seconds(COPY), seconds(PHOTO)


def section(found, reading):
    """Return the section of the report, line by line.

    Parameters
    ----------
    found : dict of str to list of (float, float)
        By way, the rounds' seconds of an epoch of the head and of one of all layers.
    reading : (float, float)
        From `photos`.
    """
    rows = []
    for name, rounds in found.items():
        row = [name]
        for stage in (0, 1):
            seconds = statistics.median(one[stage] for one in rounds)
            times = [
                one[stage] / ours[stage] for one, ours in zip(rounds, found[AS_IT_IS], strict=True)
            ]
            row += [f"{seconds:.1f}", f"{statistics.median(times):.2f}"]
        rows.append(row)
    head = ("with this in its place", "s, head", "times", "s, all layers", "times")
    copy, whole = reading
    return [
        f"An epoch of the head and one of all layers on {PICTURES} pictures, each with a look at a"
        " few others, with one choice of the notebook undone at a time. Times: as long as the"
        " notebook's way, the middle of the rounds; above 1, the notebook's way is faster. No"
        " cheaper augmentation can bring more than none at all. Helpers that read meanwhile take"
        " time from the cores that compute: they pay where there are cores to spare.",
        "",
        table(head, rows),
        "",
        f"A copy of {COPY[0]} by {COPY[1]} pixels, as fastai's `resize_images` makes it of a photo,"
        f" is read in {copy * 1000:.0f} ms; the photo itself, {PHOTO[0]} by {PHOTO[1]} pixels, in"
        f" {whole * 1000:.0f} ms, {whole / copy:.1f} times as long. The pictures of `imgs` are"
        " small.",
    ]


def measure(rounds, tell):
    """Measure all ways so many times in turns; `tell` gets the section after each round."""
    found, reading = {}, photos()
    with tempfile.TemporaryDirectory() as folder:
        copies(Path(folder), PICTURES, 2)
        train(folder, *ways()[AS_IT_IS])  # the first training of a process is slow: not counted
        for n in range(rounds):
            for name, how in ways().items():
                found.setdefault(name, []).append(train(folder, *how))
                print(f"round {n + 1}, {name}: {found[name][-1]}", flush=True)
            tell(section(found, reading))
