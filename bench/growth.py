"""Whether a picture costs the same among many, and whether memory stays level.

Each folder is trained on in a process of its own: one epoch of the head, then a look at valid.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.recipes.run import peak
from bench.report import ROOT, table

# Pictures to train on, and classes.
SIZES = ((300, 2), (3000, 2), (3000, 20), (3000, 200), (20000, 2))
FLAT = 0.15  # how far the seconds a picture, or the peaks, may lie apart, as a share


def copies(path, number, classes):
    """Fill a folder with pictures of imgs, again and again under other names.

    The class says nothing about the picture: what is measured is time. A copy is a
    link, so that it takes no room on the disk (on Windows that wants the developer mode).

    Parameters
    ----------
    path : Path
    number : int
        Of pictures to train on; a tenth as many lie in valid, at least one a class.
    classes : int
    """
    pictures = itertools.cycle(sorted((ROOT / "imgs" / "train").rglob("*.jpg")))
    for split, many in (("train", number), ("valid", max(number // 10, classes))):
        for i in range(many):
            folder = path / split / f"class{i % classes:03}"
            folder.mkdir(parents=True, exist_ok=True)
            os.symlink(next(pictures), folder / f"{i}.jpg")


def train(path):
    """Train the head for one epoch as the notebook does; to be called in a fresh process.

    Returns
    -------
    dict
        load (seconds until the loaders stand), seconds (of the epoch), pictures (trained on), and
        peak (of the process, in bytes, or None).
    """
    from fastai.vision.all import ShortEpochCallback, set_seed

    from tutorial import recipe
    from tutorial.defaults import OURS

    start = time.perf_counter()
    set_seed(42, reproducible=True)
    dls = recipe.loaders(Path(path))
    load = time.perf_counter() - start
    learn = recipe.learner(dls, cbs=OURS)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=ShortEpochCallback(1.5 / len(dls.train)))  # the first steps are slow
        start = time.perf_counter()
        learn.fit_one_cycle(1, recipe.HEAD.rate)
        seconds = time.perf_counter() - start
    pictures = len(dls.train) * dls.train.bs
    return {"load": load, "seconds": seconds, "pictures": pictures, "peak": peak()}


def in_a_process(path):
    """Call `train` in a fresh process."""
    program = (
        "import json, sys; from bench.growth import train; print(json.dumps(train(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def flat(what, values):
    """Say whether values stay level with more pictures, and with more classes.

    Parameters
    ----------
    what : str
    values : dict of (int, int) to float
        By pictures and classes.
    """
    fewest = min(classes for _, classes in values) if values else 0
    groups = {
        "pictures": [value for (_, classes), value in values.items() if classes == fewest],
        "classes": [value for (pictures, _), value in values.items() if pictures == 3000],
    }
    said = []
    for name, group in groups.items():
        if len(group) > 1:
            apart = max(abs(value / statistics.median(group) - 1) for value in group)
            verdict = "flat" if apart <= FLAT else "NOT flat"
            said.append(f"with more {name} {verdict}, at most {apart:.0%} from the median")
    return f"{what}: {'; '.join(said)} (flat means {FLAT:.0%})." if said else ""


def section(found):
    """Return the section of the report, line by line.

    Parameters
    ----------
    found : dict of (int, int) to dict
        By pictures and classes, from `train`.
    """
    costs = {key: run["seconds"] / run["pictures"] * 1000 for key, run in found.items()}
    peaks = {key: run["peak"] / 1e6 for key, run in found.items() if run["peak"]}
    rows = [
        (
            f"{pictures:,}",
            classes,
            f"{run['load']:.1f}",
            f"{run['seconds']:.0f}",
            f"{costs[pictures, classes]:.1f}",
            f"{run['peak'] / 1e6:,.0f}" if run["peak"] else "-",
        )
        for (pictures, classes), run in found.items()
    ]
    return [
        "One epoch of the head, with the validation after it, on copies of our pictures (a tenth as"
        f" many for validation). {flat('The milliseconds a picture', costs)}"
        f" {flat('The peak of memory', peaks)}",
        "",
        table(("pictures", "classes", "s, loaders", "s, epoch", "ms a picture", "peak MB"), rows),
    ]


def measure(rounds, tell):
    """Measure each folder once, whatever `rounds` says; `tell` gets the section after each."""
    found = {}
    for pictures, classes in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            copies(Path(folder), pictures, classes)
            found[pictures, classes] = in_a_process(folder)
        print(f"{pictures} pictures, {classes} classes: {found[pictures, classes]}", flush=True)
        tell(section(found))
