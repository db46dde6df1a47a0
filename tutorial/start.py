"""The notebook's first words: what it found on this computer, and how long Run All takes here."""

import platform
import time
from functools import cache

import fastai
import psutil
import torch
from fastai.torch_core import default_device
from torchvision.models import resnet34 as plain_resnet34

from .backbone import body_in_use
from .draw import use_chinese_fonts
from .folders.check import usable_pictures
from .folders.findings import BATCH
from .folders.layout import count
from .folders.reading import examine
from .hints import explain_skipped_steps
from .precision import best_dtype, describe_device

MOST_CLASSES = 20  # beyond this the figures are no longer read
SAMPLE = 8  # pictures are looked at, whether they are too large to be read fast
MEMORY_GB = 2  # that Run All takes on top of what this kernel has when it says hello
FINDER_STEPS = 50  # of the learning-rate finder in step 25
# Seconds for starting, figures, decoding: all that is not the network.
OVERHEAD, OVERHEAD_AFTER = 15, 40  # in Part I, and in Parts II and III


@cache
def train_rate(size=224, batch=BATCH):
    """Measure how many pictures a second this computer can train on, in one short step.

    Parameters
    ----------
    size : int
        Side of the pictures, in pixels.
    batch : int
        Pictures in a step.

    Returns
    -------
    float
        Pictures a second, forward and backward through a whole resnet34.
    """
    device = default_device()
    last = {"device": device, "memory_format": torch.channels_last}
    # Measured once a kernel, so it must use up no chance: a second Run All would meet another one.
    with torch.random.fork_rng(devices=[]):
        model = plain_resnet34().to(**last)
        pictures = torch.randn(batch, 3, size, size).to(**last)
    dtype = best_dtype(device)
    for _ in range(2):  # the first step also sets things up; the second one counts
        start = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            out = model(pictures)
        out.float().sum().backward()
        model.conv1.weight.grad.sum().item()  # a GPU works in the background: wait for it
    return batch / (time.perf_counter() - start)


def seconds_for(train, valid, epochs, frozen):
    """Estimate the seconds of `epochs` epochs: a look at a picture costs a third of a step.

    With a frozen body a step is hardly more than a look.
    """
    step = 0.4 if frozen else 1
    return epochs * (step * train + 0.33 * valid) / train_rate()


def in_words(seconds):
    """Say a time as a person would: "about 40 seconds", "about 3 minutes"."""
    if seconds < 95:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    return f"about {round(seconds / 60)} minutes"


def hello(path, head_epochs, tune_epochs):
    """Print one plain sentence for each thing that a run depends on.

    Parameters
    ----------
    path : Path
        As `check_folder` takes it.
    head_epochs, tune_epochs : int
        Of the trainings in steps 5 and 12, to estimate how long Run All takes.

    Raises
    ------
    FolderError
        If `check_folder` finds that the folder can't be used.
    BodyError
        If the body that BODY asks for can't be had.
    """
    explain_skipped_steps()
    use_chinese_fonts()
    pictures = usable_pictures(path)
    counts = count(pictures)
    device, precision = describe_device()
    train, valid = (sum(counts[split].values()) for split in ("train", "valid"))
    tests = len(pictures) - train - valid
    print(f"Python is {platform.python_version()}.")
    print(f"fastai is {fastai.__version__}, on PyTorch {torch.__version__.split('+')[0]}.")
    print(f"The device is {device}.")
    print(f"The precision is {precision}.")
    print(body_in_use())
    print(
        f"Pictures found: {train} for training, {valid} for validation, {tests} for testing;"
        f" the classes are {', '.join(counts['train'])}."
    )
    sample = pictures[:: max(1, len(pictures) // SAMPLE)]
    if large := [f for one in sample for f in examine(one.file) if f.problem == "huge"]:
        print(large[0])
    if len(counts["train"]) > MOST_CLASSES:
        print(
            f"{len(counts['train'])} classes are more than the {MOST_CLASSES} that this tutorial is"
            " made for: expect long waits, and drawings too large to read."
        )
    part_1 = OVERHEAD + seconds_for(train, valid, head_epochs, frozen=True)
    part_1 += seconds_for(train, valid, tune_epochs, frozen=False)
    part_1 += seconds_for(0, 5 * valid + 2 * tests, 1, frozen=False)  # the looks between
    # Then: fine-tuning twice more and one epoch done wrongly, another body's head, the rate finder,
    # more looks.
    rest = OVERHEAD_AFTER + seconds_for(train, valid, 2 * tune_epochs + 1, frozen=False)
    rest += seconds_for(train, valid, head_epochs, frozen=True)
    rest += seconds_for(BATCH * FINDER_STEPS, 2 * train + 11 * valid, 1, frozen=True)
    free = psutil.virtual_memory().available / 1e9
    if free < MEMORY_GB:
        print(
            f"Only {free:.1f} GB of memory are free, and Run All takes about {MEMORY_GB} more:"
            " close other programs, or stop after Part I."
        )
    print(f"Run All takes {in_words(part_1 + rest)} here, {in_words(part_1)} of it for Part I.")


def how_long(dls, epochs, frozen=True):
    """Return a sentence saying how long a training of `epochs` epochs takes on this computer."""
    seconds = seconds_for(len(dls.train_ds), len(dls.valid_ds), epochs, frozen)
    return f"Training takes {in_words(seconds)} on this computer."


def trainable_share(learn):
    """Return a sentence saying how many of the network's numbers training may change now."""
    sizes = [(p.numel(), p.requires_grad) for p in learn.model.parameters()]
    total, free = sum(n for n, _ in sizes), sum(n for n, on in sizes if on)
    return f"Of the network's {total:,} numbers, {free:,} may change ({free / total:.1%})."
