"""Train by one recipe, in a process of its own, and write down when it knew what.

    python bench/recipes/run.py pytorch_tutorial --epochs 5 --seed 0 --out times.json

Not a part of the package `bench`: that would load fastai, whose loading no other recipe has to pay.
"""

import argparse
import importlib
import json
import re
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent


class Notes:
    """When each validation was over, and how many answers were right.

    Attributes
    ----------
    seen : list of (float, int, int)
        Seconds since this process began, right answers, and all answers.
    steps : dict of str to float
        Seconds of each part, for a recipe that tells them.
    """

    def __init__(self):
        self.seen, self.steps = [], {}

    def __call__(self, right, total):
        self.seen.append((seconds(), int(right), total))
        print(f"{seconds():.0f} s: {int(right)} of {total}", flush=True)


def seconds():
    """Return the seconds since this process began, its imports included."""
    return time.time() - psutil.Process().create_time()


def peak(pid="self"):
    """Return the peak of a process' resident memory in bytes, as Linux noted it, or None."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def main(argv=None):
    """Train, and write the notes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a file of this folder, without .py")
    parser.add_argument("--imgs", type=Path, default=ROOT / "imgs")
    parser.add_argument("--epochs", type=int, nargs="+", help="of the head and of all, or of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    notes = Notes()
    train = importlib.import_module(args.recipe).train
    train(args.imgs, args.epochs, args.seed, notes)
    found = {"seen": notes.seen, "steps": notes.steps, "whole": seconds(), "peak": peak()}
    args.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
