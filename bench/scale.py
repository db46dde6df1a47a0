"""Measure `tutorial.train` in one and in two processes, and work out what more would give.

    python -m bench.scale --seeds 5        writes bench/scale.md

Each seed goes through all ways in turn, so that a busy machine slows all alike.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from fastai.vision.all import PILImage, Resize, get_image_files

from bench.report import ROOT, hardware, mean_sd, table
from tutorial import check_folder
from tutorial.files import write_whole

REPORT = ROOT / "bench" / "scale.md"
IMGS = ROOT / "imgs"
# Name: processes, cores for each, and whether all its epochs are trained or one of each kind.
WAYS = {
    "one process, one core": (1, 1, False),
    "one process, two cores": (1, 2, True),
    "two processes, one core each": (2, 1, True),
}
# For the calculation: an assumed machine. None of these four is measured.
RATE = 1000  # pictures a second that one GPU learns from
BATCH = 64  # pictures a step and GPU
GRADIENTS = 21.8e6 * 4  # bytes: the network's numbers, in float32
LINKS = {  # bytes a second that a process can send, in practice
    "inside one machine, 20 GB/s": 20e9,
    "network of 100 Gbit/s, 10 GB/s": 10e9,
    "network of 10 Gbit/s, 1 GB/s": 1e9,
}
COMPANIES = (2, 4, 8, 16)


def train(way, seed, folder):
    """Train once by one of `WAYS`; results go into `folder`.

    Returns
    -------
    dict
        seconds (list of float, one an epoch of all layers), head and tuned (accuracy, 0 to 1).
    """
    processes, cores, whole = WAYS[way]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--standalone", "-m", "tutorial.train", str(IMGS), f"--out={folder}"]
    command += [f"--seed={seed}"] if whole else ["--head-epochs=1", "--all-epochs=1"]
    threads = {"OMP_NUM_THREADS": str(cores), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, **threads}, check=True, stdout=subprocess.DEVNULL
    )
    figures = json.loads((folder / "run.json").read_text(encoding="utf-8"))["figures"]
    head, tuned = (figures[f"validation, after {name}"] for name in ("the head", "all layers"))
    return {
        "seconds": [epoch["seconds"] for epoch in figures["epochs of all layers"]],
        "head": head["share"],
        "tuned": tuned["share"],
    }


def reading_rate(number=100):
    """Measure how many pictures a second one core reads, decodes and scales to 224 pixels."""
    files, resize = get_image_files(IMGS / "train")[:number], Resize(224)
    start = time.perf_counter()
    for file in files:
        resize(PILImage.create(file))
    return len(files) / (time.perf_counter() - start)


def gain(processes, link):
    """Work out how many times faster so many GPUs are than one, at worst and at best.

    Gradients are averaged in a ring: each process sends ``2 (n - 1) / n`` times their size in a
    step. At worst that comes after the computation, at best it is hidden behind it. `link` is the
    bytes a second that a process can send.

    References
    ----------
    P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations", Journal of Parallel and Distributed Computing 69 (2009), 117-124.
    """
    compute = BATCH / RATE
    send = 2 * (processes - 1) / processes * GRADIENTS / link
    return processes * compute / (compute + send), processes * compute / max(compute, send)


def measured(runs):
    """Return the section on what was measured, line by line."""
    pictures = sum(check_folder(IMGS)["train"].values())
    typical = {
        way: statistics.median(s for r in rows for s in r["seconds"]) for way, rows in runs.items()
    }
    one, both, two = (typical[way] for way in WAYS)
    rows = []
    for way, found in runs.items():
        seconds = [s for run in found for s in run["seconds"]]
        wide, rate = f"{min(seconds):.1f} to {max(seconds):.1f}", pictures / typical[way]
        rights = [mean_sd([run[when] for run in found]) for when in ("head", "tuned")]
        rights = rights if WAYS[way][2] else ["-", "-"]
        rows.append([way, f"{typical[way]:.1f}", wide, f"{rate:.1f}", *rights])
    head = ["way", "seconds", "least to most", "pictures a second"]
    head += ["accuracy, head", "accuracy, all"]
    return [
        f"Seconds of an epoch of all layers on {pictures} pictures, with the validation after it,"
        " and the accuracy on valid (mean and standard deviation over the seeds). One core alone"
        " trained two epochs only, so it has no accuracy.",
        "",
        table(head, rows),
        "",
        f"Two processes with a core each are {one / two:.2f} times as fast as one process with one"
        f" core, and {both / two:.2f} times as fast as one process that uses both.",
    ]


def worked_out(rate):
    """Return the section on what was not measured, line by line."""
    rows = [
        (name, *("{:.1f} to {:.1f}".format(*gain(n, link)) for n in COMPANIES))
        for name, link in LINKS.items()
    ]
    return [
        f"Assumed, not measured: a GPU that learns from {RATE:,} pictures a second, {BATCH}"
        f" pictures a step and GPU, all GPUs alike, pictures read as fast as they are wanted, and"
        f" {GRADIENTS / 1e6:.0f} MB of gradients averaged in a ring after each step. The lower"
        " figure has the GPUs wait for the averaging, the higher one hides it behind the"
        " computation as far as it goes. PyTorch sends the last layers' gradients while it computes"
        " the first layers', so the truth lies between the two.",
        "",
        table(("times as fast as one GPU", *(f"{n} GPUs" for n in COMPANIES)), rows),
        "",
        f"Pictures must come as fast as they are learned from. One core of this machine reads"
        f" {rate:.0f} pictures of `imgs` a second, so a GPU such as that one would want"
        f" {math.ceil(RATE / rate)} cores to read for it; where there are fewer, these set the"
        " pace.",
    ]


def main(argv=None):
    """Measure, write bench/scale.md, and return the exit status."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the report names the processor, which trains
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many (5); 0 only calculates")
    args = parser.parse_args(argv)
    if args.seeds < 0:
        parser.error("--seeds must not be negative")
    runs = {way: [] for way in WAYS}
    for seed, way in itertools.product(range(args.seeds), WAYS):
        with tempfile.TemporaryDirectory() as folder:
            runs[way].append(train(way, seed, Path(folder)))
        print(f"seed {seed}, {way}: {runs[way][-1]}", flush=True)
    lines = [
        f"# Measured by `python -m bench.scale --seeds {args.seeds}`",
        "",
        f"{hardware()} Date: {date.today()}.",
        "",
        "## Measured: two cores",
        "",
        *(measured(runs) if args.seeds else ["Not measured: `--seeds 0` only calculates."]),
        "",
        "## Worked out: several GPUs",
        "",
        *worked_out(reading_rate()),
    ]
    write_whole(REPORT, "\n".join(lines) + "\n")
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
