"""How long it takes until something is on the screen: imports, a kernel, and the set-up."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.report import ROOT, table
from tools.dev.browser import install_browser
from tools.dev.lab_page import browsing, chromium_at, serving

IMPORTS = "import tutorial\nfrom fastai.vision.all import *\nfrom tutorial import *\n"
KERNEL = """
import sys
from jupyter_client.manager import start_new_kernel
start_new_kernel(kernel_name="python3")[0].shutdown_kernel(now=True)
"""
SHOWN = 12  # packages in the report, those that take longest
FIRST_PICTURE = "batch"  # the cell that shows it
CELL_S = 600  # seconds that a cell before it may take


def seconds_of(command, **how):
    """Run a command and return its seconds.

    Raises
    ------
    RuntimeError
        If it fails, with what it said.
    """
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **how)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return time.perf_counter() - start


def import_times(said):
    """Sum up what `python -X importtime` said, by package.

    Returns
    -------
    Counter
        Seconds of each package, without what it loads of others.
    """
    spent = Counter()
    for own, name in re.findall(r"(?m)^import time: +(\d+) \| +\d+ \| *(\S+)", said):
        spent[name.split(".")[0]] += int(own) / 1e6
    return spent


def compiler_time(said):
    """Return the seconds of PyTorch's compiler, with all that it loads first, from the same."""
    whole = re.findall(r"(?m)^import time: +\d+ \| +(\d+) \| *torch\._dynamo", said)
    return max(map(int, whole), default=0) / 1e6


def imports(rounds):
    """Measure the imports and a kernel's start; each figure is the middle one of the rounds.

    Returns
    -------
    Counter, float, float, float, float
        Seconds by package; of PyTorch's compiler among them; of a Python that does nothing, one
        with the imports, and a kernel that does nothing.
    """
    found, compiler = [], []
    for _ in range(rounds):
        said = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", IMPORTS],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stderr
        found.append(import_times(said))
        compiler.append(compiler_time(said))
    typical = Counter({name: statistics.median(one[name] for one in found) for name in found[0]})
    nothing = [seconds_of([sys.executable, "-c", "pass"]) for _ in range(rounds)]
    whole = [seconds_of([sys.executable, "-c", IMPORTS], cwd=ROOT) for _ in range(rounds)]
    kernel = [seconds_of([sys.executable, "-c", KERNEL], cwd=ROOT) for _ in range(rounds)]
    return typical, *map(statistics.median, (compiler, nothing, whole, kernel))


def first_picture(clone, python, chromium, folder):
    """Start JupyterLab and press Shift+Enter down to the first picture.

    Parameters
    ----------
    clone : Path
        The project.
    python : Path
        That of its environment.
    chromium : callable
        From ``chromium_at``.
    folder : Path
        For all that JupyterLab and Chromium keep.

    Returns
    -------
    float
        Seconds from JupyterLab's start until the picture is on the screen.
    """
    start = time.perf_counter()
    kept = {"BODY": "bundled", "OUT": str(folder / "out")}
    with (
        serving(clone, folder / "jupyter", python, **kept) as server,
        browsing(chromium, server, folder / "chromium", "demo.ipynb") as lab,
    ):
        lab.cell(0).click()
        for place in range(lab.place[FIRST_PICTURE] + 1):
            lab.step(place, CELL_S)
        lab.cell(FIRST_PICTURE).locator(".jp-OutputArea-output img").evaluate("i => i.decode()")
        return time.perf_counter() - start


def set_up():
    """Measure a fresh clone up to the first picture, without and with what pip and uv keep.

    Returns
    -------
    dict of str to (float, float)
        For "cold" and "warm": seconds of `make setup`, and from there to the first picture.

    Raises
    ------
    RuntimeError
        If there is no Chromium, or a command fails.
    """
    path, reason = install_browser()
    if not path:
        raise RuntimeError(f"The set-up is not measured: {reason}.")
    found = {}
    with tempfile.TemporaryDirectory() as folder, chromium_at(path) as chromium:
        folder = Path(folder)
        kept = {"PIP_CACHE_DIR": str(folder / "pip"), "UV_CACHE_DIR": str(folder / "uv")}
        env = {**os.environ, **kept}
        env.pop("VIRTUAL_ENV", None)
        for way in ("cold", "warm"):
            clone = folder / way
            seconds_of(["git", "clone", "--quiet", str(ROOT), str(clone)])
            make = seconds_of(["make", "setup"], cwd=clone, env=env)
            python = clone / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
            found[way] = make, first_picture(clone, python, chromium, folder / f"{way} page")
            shutil.rmtree(clone)
    return found


def section(typical, compiler, nothing, whole, kernel, clones=None):
    """Return the section of the report, line by line."""
    shown = typical.most_common(SHOWN)
    rest = ("all else", sum(typical.values()) - sum(seconds for _, seconds in shown))
    lines = [
        f"Plain Python starts and ends in {nothing:.1f} s; with the first cell's imports it takes"
        f" {whole:.1f} s. A kernel that does nothing starts in {kernel:.1f} s.",
        "",
        "Where the imports' time goes, by Python's own measure (which itself costs some), each"
        " package without the others that it loads:",
        "",
        table(("package", "s"), [(name, f"{s:.2f}") for name, s in [*shown, rest]]),
        "",
        f"{compiler:.1f} s of these go to PyTorch's compiler, `torch._dynamo`, and what it loads."
        " The notebook compiles nothing: torchvision loads it to ask whether one of its operators"
        " (`roi_align`) could be compiled, and only a trick could keep it out.",
    ]
    if clones:
        rows = [
            (way, f"{make:.0f}", f"{first:.0f}", f"{make + first:.0f}")
            for way, (make, first) in clones.items()
        ]
        lines += [
            "",
            "A fresh clone, until JupyterLab shows the first picture of one's own (step 3), in a"
            " Chromium where Shift+Enter is pressed as soon as a cell is done. Cold: nothing is"
            " downloaded yet, and the index is as fast as it was that day; warm: with what the"
            " set-up keeps.",
            "",
            table(("", "s, set-up", "s, to the first picture", "s, together"), rows),
        ]
    return lines


def measure(rounds, tell):
    """Measure, and hand the section to `tell`."""
    found = imports(rounds)
    tell(section(*found))
    tell(section(*found, set_up()))
