"""The notebook's Part I against what a learner would otherwise run, on the same pictures and body.

Each recipe runs in a process of its own, all in turns, so that a busy machine slows all alike; a
round has the same seed for all. The figures to read are the ratios.
"""

import ast
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench.recipes.part_one import ADDED, changed, part_one
from bench.report import ROOT, spread, table
from tutorial import wilson
from tutorial.precision import best_dtype
from tutorial.recipe import ALL, HEAD

RECIPES = ROOT / "bench" / "recipes"
HOME = ROOT / "out" / "peers"  # an environment with what the peers need
OURS = "the notebook, Part I"
STOCK = "stock fastai, the same cells"
OUR_EPOCHS = HEAD.epochs, ALL.epochs
# Name: file, and epochs (of the head and of all layers, or of all layers alone).
RACE = {
    OURS: ("part_one", OUR_EPOCHS),
    STOCK: ("stock_fastai", OUR_EPOCHS),
    "PyTorch's tutorial, our epochs": ("pytorch_tutorial", (sum(OUR_EPOCHS),)),
    "Keras' guide, our epochs": ("keras_guide", OUR_EPOCHS),
    "Keras' guide": ("keras_guide", (2, 1)),
    "Transformers' guide, our epochs": ("hf_trainer", (sum(OUR_EPOCHS),)),
    "Transformers' guide": ("hf_trainer", (3,)),
    "PyTorch's tutorial": ("pytorch_tutorial", (25,)),
}
ONCE = "PyTorch's tutorial"  # its 25 epochs take as long as all the others together
KEEP_THE_BEST = ("pytorch_tutorial", "hf_trainer")  # epoch, and not the last one
BARS = {STOCK: 2.5}  # times sooner than this one; than all others 1
PART_ONE = 60  # seconds that Part I may take, on two cores that compute in bfloat16
# The notebook's cells that train; the others look at pictures, answers and curves.
TRAINING = ("import", "hello", "dls", "learn", "fit-head", "rates", "fit-all")


def peers_python():
    """Return the Python of an environment with the peers' packages on top of ours; made once.

    A line in a .pth file lets it see the packages of this environment, so PyTorch is not installed
    a second time, and uv adds only what is missing.
    """
    python = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = (RECIPES / "requirements.txt").read_text(encoding="utf-8")
    ours = next(Path(p) for p in sys.path if (Path(p) / "torch").is_dir())
    mark, wanted = HOME / "made-of.txt", f"{wanted}\n{ours}\n{sys.version}\n"
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return python
    print("Installing what the peers need into out/peers ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", HOME], check=True)
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    there = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    (there / "ours.pth").write_text(f"{ours}\n", encoding="utf-8")
    # uv, since an environment made on Debian has no pip of its own
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    subprocess.run([*uv, "-r", RECIPES / "requirements.txt"], check=True)
    mark.write_text(wanted, encoding="utf-8")
    return python


def run(name, seed, python, imgs=ROOT / "imgs"):
    """Train by one recipe in a process of its own.

    Returns
    -------
    dict
        seen (list of seconds since the process began, right, total), steps (seconds by heading),
        whole (seconds) and peak (bytes or None).
    """
    recipe, epochs = RACE[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "notes.json"
        command = [python, RECIPES / "run.py", recipe, "--imgs", imgs, "--seed", seed]
        command += ["--epochs", *epochs, "--out", out]
        done = subprocess.run(
            [str(word) for word in command], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr}")
        return json.loads(out.read_text(encoding="utf-8"))


def lines_of(code):
    """Count the lines of a program without docstrings, comments and empty ones."""
    tree, told = ast.parse(code), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            told |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line.strip() for n, line in enumerate(code.splitlines(), 1) if n not in told]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def lines_to_read(name):
    """Count the lines that a learner reads until the network is trained."""
    recipe, _ = RACE[name]
    if name in (OURS, STOCK):
        cells = {id: code for id, _, code in part_one() if id in TRAINING}
        if name == STOCK:
            cells["import"] = changed(cells["import"], ADDED, "")
        return sum(map(lines_of, cells.values()))
    return lines_of((RECIPES / f"{recipe}.py").read_text(encoding="utf-8"))


def reached(seen, right):
    """Return the seconds until so many answers were right for the first time, or None."""
    return next((seconds for seconds, found, _ in seen if found >= right), None)


def best(seen):
    """Return the most right answers of a run."""
    return max(right for _, right, _ in seen)


def accuracy(runs, keeps_the_best=False):
    """Say the accuracy of all runs together at their end, and the interval of the middle one."""
    last = sorted(best(run["seen"]) if keeps_the_best else run["seen"][-1][1] for run in runs)
    total, middle = runs[0]["seen"][-1][2], last[len(last) // 2]
    low, high = wilson(middle, total)
    mean = statistics.mean(last) / total
    return f"{mean:.1%}; {middle} of {total} is {low:.0%} to {high:.0%}"


def ratios(ours, theirs):
    """Return, round by round, how many times sooner we are at the best accuracy of another.

    Where we never come so far in a round, that is 0.
    """
    found = []
    for our, their in zip(ours, theirs, strict=False):  # the last round may not be over
        goal = best(their["seen"])
        sooner = reached(our["seen"], goal)
        found.append(reached(their["seen"], goal) / sooner if sooner else 0)
    return found


def race(name, ours, theirs):
    """Return a row: the other, its best accuracy, how often and how much sooner we are there."""
    sooner = ratios(ours, theirs)
    goal = statistics.mean(best(run["seen"]) / run["seen"][0][2] for run in theirs)
    bar, times = BARS.get(name, 1), statistics.median(sooner)
    verdict = f"{bar}: {'met' if times > bar else 'NOT met'}"
    came = sum(times > 0 for times in sooner)
    return name, f"{goal:.1%}", f"{came} of {len(sooner)}", spread(sooner, "{:.1f}"), verdict


def whole_sentence(ours, theirs):
    """Say how many times as long the same cells take with stock fastai."""
    times = [their["whole"] / our["whole"] for our, their in zip(ours, theirs, strict=False)]
    return (
        "With stock fastai in float32 the same cells, imports included, take"
        f" {spread(times, '{:.1f}')} times as long. When a best accuracy is reached, a picture more"
        " or less right in an early epoch decides, so that the times above waver much more. Where"
        " the time goes, the steps below and *Against the bare arithmetic* tell."
    )


def part_one_sentence(ours):
    """Say how long Part I takes, and where the bar holds, whether it is met."""
    whole = statistics.median(run["whole"] for run in ours)
    if best_dtype(torch.device("cpu")) != torch.bfloat16:
        return (
            f"Part I takes {whole:.0f} s. (The bar of {PART_ONE} s is for two cores that compute in"
            " bfloat16, which this processor does not.)"
        )
    verdict = "met" if whole <= PART_ONE else "NOT met"
    return f"Part I takes {whole:.0f} s (bar: {PART_ONE}, {verdict})."


def section(runs):
    """Return the section of the report, line by line.

    Parameters
    ----------
    runs : dict of str to list of dict
        The rounds of each recipe, from `run`.
    """
    rounds = len(runs[OURS])
    rows, races = [], []
    for name, found in runs.items():
        epochs = " + ".join(map(str, RACE[name][1]))
        to_best = [reached(run["seen"], best(run["seen"])) for run in found]
        peaks = [run["peak"] / 1e6 for run in found if run["peak"]]
        rows.append(
            (
                name,
                epochs,
                spread([run["seen"][0][0] for run in found]),
                spread(to_best),
                spread([run["whole"] for run in found]),
                accuracy(found, RACE[name][0] in KEEP_THE_BEST),
                spread(peaks, "{:,.0f}") if peaks else "-",
                lines_to_read(name),
            )
        )
        if name != OURS:
            races.append(race(name, runs[OURS], found))
    head = ("recipe", "epochs", "s, first accuracy", "s, best accuracy", "s, whole")
    head += ("accuracy at the end", "peak MB", "lines")
    steps = {
        heading: [run["steps"][heading] for run in runs[OURS]] for heading in runs[OURS][0]["steps"]
    }
    once = f"; {ONCE} ran in the first alone" if rounds > len(runs.get(ONCE, [])) > 0 else ""
    waiting = ", ".join(
        f"{name} with {' + '.join(map(str, epochs))} epochs"
        for name, (_, epochs) in RACE.items()
        if name not in runs
    )
    return [
        f"Rounds: {rounds}, each with a seed of its own{once}. Seconds are since the process began,"
        " median (least to most); Part I's include its figures, tables and estimates. Accuracy at"
        " the end: mean over the rounds, and the middle round with its 95 % interval; of those that"
        " keep their best epoch (PyTorch's, Transformers'), that one. Peak: of the process itself,"
        " without the workers that read pictures for some. Lines: of code, up to the trained"
        " network; for the notebook those of the cells that train.",
        "",
        table(head, rows),
        *(["", f"Not measured: {waiting}."] if waiting else []),
        "",
        "How many times sooner the notebook is at the other's best accuracy, 0 where it never comes"
        f" so far. Many epochs are many chances at {runs[OURS][0]['seen'][0][2]} pictures, so a"
        " best accuracy flatters whoever looks often. The guides of Keras and Transformers were"
        " written for thousands of pictures: of a few hundred, their large batches make few steps,"
        " and few steps learn little.",
        "",
        table(("than", "its best, mean", "reached in rounds", "times sooner", "bar"), races),
        "",
        *([whole_sentence(runs[OURS], runs[STOCK]), ""] if STOCK in runs else []),
        part_one_sentence(runs[OURS]),
        "",
        "Part I, step by step, as plain Python runs it (a kernel's start is measured below):",
        "",
        table(("step", "s"), [(step, spread(s, "{:.1f}")) for step, s in steps.items()]),
    ]


def measure(rounds, tell):
    """Run all recipes in turns, so many times all but `ONCE`; `tell` gets each new section."""
    python, runs = peers_python(), {}
    for seed in range(rounds):
        for name in RACE:
            if name == ONCE and seed > 0:
                continue
            found = run(name, seed, python)
            runs.setdefault(name, []).append(found)
            right, total = found["seen"][-1][1:]
            print(
                f"round {seed + 1}, {name}: {right} of {total}, {found['whole']:.0f} s", flush=True
            )
            tell(section(runs))
