"""Time four epochs of the notebook's recipe against the same in plain float32 fastai.

Both run in this process, on the same pictures, from the same body and seed, in turns, so that a
busy machine slows both alike; the figure to read is the ratio.
"""

import os
import platform
import statistics
import time
from pathlib import Path

os.environ["BODY"] = "bundled"  # a download is not what is measured

import fastai
import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)

from tutorial import StillBatchNorm, describe_device, native_precision, resnet34

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3


def train(native):
    """Train four epochs as the notebook does: one of the head, three of all layers.

    Parameters
    ----------
    native : bool
        With the notebook's `native_precision()` and still batch norms, or as stock fastai does it.

    Returns
    -------
    seconds, accuracy : float
        Time of all epochs, and the share of right answers on the validation set after them.
    """
    set_seed(42, reproducible=True)
    dls = ImageDataLoaders.from_folder(
        ROOT / "imgs",
        valid="valid",
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
        bs=16,
        num_workers=0,
    )
    own = {"train_bn": False, "cbs": [native_precision(), StillBatchNorm]} if native else {}
    learn = vision_learner(dls, resnet34, metrics=accuracy, **own)
    with learn.no_bar(), learn.no_logging():
        start = time.perf_counter()
        learn.fit_one_cycle(1, 3e-3)
        learn.unfreeze()
        learn.fit_one_cycle(3, slice(1e-4, 1e-3))
        seconds = time.perf_counter() - start
        return seconds, learn.validate()[1]


def processor():
    """Return the processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].split(":")[1].strip()
    return platform.processor() or platform.machine()


def hardware():
    """Return a line that says what was measured on, and with which versions."""
    device, precision = describe_device()
    return (
        f"Hardware: {processor()}; {device}; precision {precision}."
        f" Python {platform.python_version()}, fastai {fastai.__version__},"
        f" PyTorch {torch.__version__.split('+')[0]}. Body: bundled."
    )


def report(times, scores):
    """Return the table as Markdown."""
    rows = [
        f"| {name} | {statistics.median(times[name]):.1f} | {min(times[name]):.1f} |"
        f" {max(times[name]):.1f} | {statistics.mean(scores[name]):.3f} |"
        for name in times
    ]
    stock, ours = times["stock fastai, float32"], times["the notebook"]
    ratios = [a / b for a, b in zip(stock, ours, strict=True)]
    return "\n".join(
        [
            "# Measured by `make bench`",
            "",
            "Four epochs, one of the head and three of all layers at the notebook's rates, against"
            f" the same in plain float32 fastai; in turns in one process, rounds: {ROUNDS}.",
            "",
            hardware(),
            "",
            "| training cells | median s | min s | max s | accuracy on valid |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Speed-up, round by round: {', '.join(f'{r:.2f}' for r in ratios)};"
            f" median {statistics.median(ratios):.2f}.",
            "",
        ]
    )


def main():
    """Measure in turns, print the table and write it to bench/results.md."""
    times = {"stock fastai, float32": [], "the notebook": []}
    scores = {name: [] for name in times}
    for turn in range(ROUNDS):
        for name in times:
            seconds, score = train(native=name == "the notebook")
            times[name].append(seconds)
            scores[name].append(score)
            print(f"round {turn + 1} of {ROUNDS}: {name}, {seconds:.1f} s", flush=True)
    text = report(times, scores)
    (ROOT / "bench" / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
