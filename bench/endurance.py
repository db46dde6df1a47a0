"""Measure how much memory Run All takes, and whether it keeps taking more.

    python -m bench.endurance                     one Run All: its peak, and that of each cell
    python -m bench.endurance --runs 10           ten Run All in one kernel: does memory grow?
    python -m bench.endurance --pictures 20000    so many generated pictures, through the runner
    python -m bench.endurance --pictures 20000 --side 32
                                  the same in a fraction of the time: every picture is read and
                                  every cell runs, but the network gets 32 px, not 224

Each writes its own section of bench/endurance.md and leaves the others as they are. With `--small`
the first two take a small part of imgs: what a run leaves behind does not depend on the number of
pictures, but its peak does, so that one small Run All is only printed and not written.
"""

import argparse
import copy
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import numpy as np
import psutil
from PIL import Image, ImageDraw
from scipy import stats

from bench.recipes.run import peak
from bench.report import ROOT, put_section, table
from tools.run_notebook import as_text
from tutorial.files import write_whole

REPORT = ROOT / "bench" / "endurance.md"
START = (
    "# Measured by `python -m bench.endurance`\n\nResident memory, looked at every 0.2 s; a MB is a"
    " million bytes. With its processes: the kernel, and what these share with nobody (USS)."
)
TITLES = ("One Run All", "Run All again and again in one kernel", "A large folder")
PART_ONE = "summary"  # the cell that ends Part I
LIMIT = 3e9  # bytes that one Run All should stay under
EVERY = 0.2  # seconds between two looks
WARM_UP = 2  # first runs that fill caches, and don't count as growth
STEADY = 0.05  # a drift of less than this share counts as none
SMALL = {"train": 8, "valid": 4}  # pictures of each class, in a small part of imgs
SIDE = 160  # pixels of a generated picture
NOTEBOOK_SIDE = 224  # pixels of a picture for the network, as demo.ipynb makes them


class Watch(threading.Thread):
    """Note the memory of the kernel that a process starts, five times a second.

    Parameters
    ----------
    pid : int
        Of that process.

    Attributes
    ----------
    looks : list of (float, int, int, int)
        Seconds, number of the cell (from 0), resident bytes of the kernel, and these together with
        what the processes that it started share with nobody.
    highest : int or None
        The kernel's own record of its peak, in bytes (Linux only).
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.looks, self.highest, self.cell = [], None, None
        self._pid, self._kernel, self._over = pid, None, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self.join()

    def run(self):
        while not self._over.wait(EVERY):
            self.look()

    def look(self):
        """Look once; a kernel that is not there yet, or no more, gives nothing."""
        if self.cell is None:
            return
        with suppress(psutil.Error, OSError):
            self._kernel = self._kernel or kernel_below(self._pid)
            own = self._kernel.memory_info().rss if self._kernel else 0
            if not own:  # one that has ended holds nothing, until its parent asks how it ended
                return
            below = sum(map(alone, self._kernel.children(recursive=True)))
            self.looks.append((time.monotonic(), self.cell, own, own + below))
            self.highest = peak(self._kernel.pid) or self.highest

    def hear(self, text):
        """Read in the runner's output, `[ 3/46] heading ... 1.2 s`, which cell it is at."""
        self.look()  # the last moment of the cell before
        numbers = re.findall(r"\[ *(\d+)/\d+\]", text)
        if re.search(r"([\d.]+ s|failed)\s*$", text):
            self.cell = None  # over; a kernel that is about to end tells nothing
        elif numbers:
            self.cell = int(numbers[-1]) - 1

    def of(self, cells):
        """The looks at these cells (a range of numbers)."""
        return [look for look in self.looks if look[1] in cells]


def alone(process):
    """Return the bytes that a process shares with no other: what its end would set free."""
    return process.memory_full_info().uss


def kernel_below(pid):
    """Return the notebook kernel among the processes that a process has started, or None."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # one that ends meanwhile is none
            if "ipykernel_launcher" in child.cmdline():
                return child
    return None


def code_ids(nb):
    """Return the ids of the code cells."""
    return [cell.id for cell in nb.cells if cell.cell_type == "code"]


def run_all(nb, **variables):
    """Run a notebook by tools/run_notebook.py, as `make run` does, with environment variables.

    Returns
    -------
    Watch, int
        What was seen, and the runner's exit status.
    """
    env = {name: value for name, value in os.environ.items() if name != "IMGS"}
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder, "demo.ipynb")
        write_whole(notebook, as_text(nb))
        runner = subprocess.Popen(
            [sys.executable, "tools/run_notebook.py", str(notebook)],
            cwd=ROOT,
            env={**env, **variables, "OUT": str(Path(folder, "out"))},
            stdout=subprocess.PIPE,
        )
        with Watch(runner.pid) as watch:
            while piece := os.read(runner.stdout.fileno(), 4096):  # comes in mid-line, too
                watch.hear(piece.decode(errors="replace"))
                print(piece.decode(errors="replace"), end="", flush=True)
            return watch, runner.wait()


def small_folder(path):
    """Copy a small part of imgs, and two pictures to test."""
    for split, most in SMALL.items():
        for folder in sorted((ROOT / "imgs" / split).iterdir()):
            (path / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.glob("*.jpg"))[:most]:
                shutil.copy(file, path / split / folder.name)
    (path / "test").mkdir()
    tests = sorted((ROOT / "imgs" / "test").glob("*.jpg"))
    for file in (tests[0], tests[-1]):
        shutil.copy(file, path / "test")


def generated_picture(number, shape):
    """Draw a disc or a square of any size, place and colour before a blurred patchwork."""
    rng = np.random.default_rng(number)
    patches = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    picture = patches.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    half = int(rng.integers(SIDE // 6, SIDE // 3))
    x, y = (int(place) for place in rng.integers(half, SIDE - half, 2))
    draw = ImageDraw.Draw(picture)
    paint = draw.ellipse if shape == "disc" else draw.rectangle
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    paint((x - half, y - half, x + half, y + half), fill=colour, outline="black", width=2)
    return picture


def generated_folder(path, number):
    """Fill a folder with generated pictures of two classes, the same every time.

    Of so many, nine of ten are to train on, one to check on. Six more are to test.
    """
    shapes = ("disc", "square")
    for i in range(number + 6):
        shape, place = shapes[i % 2], i // 2
        split = "test" if i >= number else "valid" if place % 10 == 9 else "train"
        folder = path / split / ("" if split == "test" else shape)
        folder.mkdir(parents=True, exist_ok=True)
        generated_picture(i, shape).save(folder / f"{shape}.{place}.jpg", quality=85)


def with_side(nb, side):
    """Return the notebook with pictures of another size than 224 px for the network."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace(f"Resize({NOTEBOOK_SIDE})", f"Resize({side})")
    return nb


def mb(number):
    """Say a number of bytes in MB (a million bytes)."""
    return f"{number / 1e6:,.0f} MB"


def per_cell(watch, ids):
    """Return (id, seconds, kernel's peak, all processes' peak) of each cell, in order."""
    found = []
    for i, id in enumerate(ids):
        if looks := watch.of([i]):
            peaks = [max(look[place] for look in looks) for place in (2, 3)]
            found.append((id, looks[-1][0] - looks[0][0], *peaks))
    return found


def drift(watch, cell):
    """Return the typical memory in the last third of a cell, less that in its middle third."""
    own = [look[2] for look in watch.of([cell])]
    third = len(own) // 3
    return statistics.median(own[-third:]) - statistics.median(own[third : -third or None])


def growth(after):
    """Return how much more each run leaves, by least squares, and the 95 % interval of that.

    `after` is the resident memory after each run, five runs or more. The first two don't count.
    """
    counted = after[WARM_UP:]
    line = stats.linregress(range(len(counted)), counted)
    wide = stats.t.ppf(0.975, len(counted) - 2) * line.stderr
    return line.slope, line.slope - wide, line.slope + wide


def growth_sentence(after):
    """Say whether memory grows from run to run."""
    if len(after) < WARM_UP + 3:
        return "Too few runs to tell whether memory grows: take five or more."
    slope, low, high = (value / 1e6 for value in growth(after))
    measured = f"{slope:+.1f} MB a run (95 % interval {low:+.1f} to {high:+.1f})"
    counted = f"over the last {len(after) - WARM_UP} runs, by least squares: {measured}"
    if low > 0:
        return f"It grows: {counted}; a hundred more runs would add about {100 * slope:,.0f} MB."
    return f"No growth is seen {counted}."


def peak_sentence(watch):
    """Say the peak, and on which side of the limit it lies."""
    own, tree = (max(look[place] for look in watch.looks) for place in (2, 3))
    most = max(own, tree, watch.highest or 0)
    noted = f", {mb(watch.highest)} by the system's own record (VmHWM)" if watch.highest else ""
    return (
        f"Peak: {mb(own)} in the kernel{noted}; {mb(tree)} with the processes that it starts."
        f" The largest of these is {'under' if most < LIMIT else 'OVER'} {mb(LIMIT)}."
    )


def peak_section(watch, ids):
    """Return the section on one Run All, line by line."""
    cells = per_cell(watch, ids)
    until = [id for id, *_ in cells].index(PART_ONE) + 1
    first = max(tree for *_, tree in cells[:until])
    rows = [
        (id, f"{s:.0f}", mb(own), mb(tree))
        for id, s, own, tree in sorted(cells, key=lambda row: -row[3])[:5]
    ]
    head = ("cell", "seconds", "kernel's peak", "with its processes")
    said = f"{peak_sentence(watch)} Part I alone: {mb(first)}."
    return [said, "", "The five cells that need most:", "", table(head, rows)]


def runs_section(watch, ids, runs, small=False):
    """Return the section on many Run All, on imgs or on a small part of it, line by line."""
    pictures = 2 * SMALL["train"] if small else "all"
    rows, after = [], []
    for n in range(runs):
        looks = watch.of(range(n * len(ids), (n + 1) * len(ids)))
        after.append(looks[-1][2])
        peak = max(look[3] for look in looks)
        rows.append((n + 1, f"{looks[-1][0] - looks[0][0]:.0f}", mb(after[-1]), mb(peak)))
    head = ("run", "seconds", "kernel, after it", "peak, with its processes")
    on = f"On {pictures} pictures of imgs to train on."
    return [on, growth_sentence(after), peak_sentence(watch), "", table(head, rows)]


def large_section(watch, ids, number, status, side=NOTEBOOK_SIDE):
    """Return the section on a large folder, line by line."""
    cells = per_cell(watch, ids)
    longest = sorted(cells, key=lambda row: -row[1])[:10]
    rows = []
    for id, seconds, own, tree in longest:
        moved = drift(watch, ids.index(id)) if seconds > 30 else None
        drifted = "-" if moved is None else f"{moved / 1e6:+,.0f} MB"
        rows.append((id, f"{seconds:.0f}", mb(own), mb(tree), drifted))
    seconds = sum(row[1] for row in cells)
    ended = f"ended with status {status}" + (f", in the cell {cells[-1][0]}" if status else "")
    head = ("cell", "seconds", "kernel's peak", "with its processes", "drift")
    return [
        f"{number:,} generated pictures of {SIDE} px, made {side} px for the network: the run"
        f" {ended}, after {seconds / 60:.0f} minutes.",
        steady_sentence(watch, ids.index(longest[0][0]), *longest[0][:2]),
        peak_sentence(watch),
        "",
        "The ten longest cells. Drift: what the kernel typically holds in the last third of a cell,"
        " less what it held in the middle third.",
        "",
        table(head, rows),
    ]


def steady_sentence(watch, cell, id, seconds):
    """Say whether memory kept its level in the longest cell."""
    moved = drift(watch, cell)
    level = statistics.median(look[2] for look in watch.of([cell]))
    word = "steady" if abs(moved) < STEADY * level else "NOT steady"
    return (
        f"In the longest cell, {id} ({seconds / 60:.1f} minutes), memory was {word}: it moved by"
        f" {moved / 1e6:+,.0f} MB at a level of {mb(level)} (steady means less than {STEADY:.0%})."
    )


def main(argv=None):
    """Measure one part, write its section of bench/endurance.md, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--runs", type=int, default=1, help="Run All so many times in one kernel")
    what.add_argument("--pictures", type=int, help="generate so many, and run on those")
    parser.add_argument("--small", action="store_true", help="on a few pictures of imgs")
    parser.add_argument("--side", type=int, help="with --pictures: pixels for the network")
    args = parser.parse_args(argv)
    if args.side is not None and (args.pictures is None or args.side < 32):
        parser.error("--side goes with --pictures, and must be at least 32")
    if args.runs < 1 or (args.pictures is not None and args.pictures < 100):
        parser.error("--runs must be at least 1, --pictures at least 100")
    nb = nbformat.read(ROOT / "demo.ipynb", as_version=4)
    ids, cells = code_ids(nb), nb.cells
    nb.cells = [cell for _ in range(args.runs) for cell in copy.deepcopy(cells)]
    with tempfile.TemporaryDirectory() as folder:
        path, where = Path(folder), {}
        if args.pictures:
            begin = time.monotonic()
            generated_folder(path, args.pictures)
            print(f"{args.pictures} pictures drawn in {time.monotonic() - begin:.0f} s", flush=True)
        elif args.small:
            small_folder(path)
        if args.pictures or args.small:
            where = {"IMGS": folder}
        side = args.side or NOTEBOOK_SIDE
        try:
            watch, status = run_all(with_side(nb, side), **where)
        except KeyboardInterrupt:
            print("\nInterrupted; nothing was written.", file=sys.stderr)
            return 130
    if args.pictures:
        title, lines = TITLES[2], large_section(watch, ids, args.pictures, status, side)
    elif status:
        return status
    elif args.runs > 1:
        title, lines = TITLES[1], runs_section(watch, ids, args.runs, args.small)
    else:
        title, lines = TITLES[0], peak_section(watch, ids)
    print(*lines, sep="\n")
    if args.runs > 1 or not args.small:
        words = " ".join(sys.argv[1:] if argv is None else argv)
        command = f"python -m bench.endurance {words}".strip()
        put_section(REPORT, START, TITLES, title, lines, command)
    return status


if __name__ == "__main__":
    sys.exit(main())
