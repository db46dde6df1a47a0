"""Run Part I of the notebook with many seeds, and count how often its story holds.

    python -m bench.stability --seeds 20        writes bench/stability.md

Finished seeds are kept in out/stability.jsonl, so an interrupted run goes on where it stopped.
"""

import argparse
import io
import os
import statistics
import sys
import time
import warnings
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from bench.kept import Kept
from bench.recipes.part_one import SEED, changed
from bench.recipes.part_one import part_one as cells_until
from bench.report import ROOT, hardware, table
from tutorial import wilson
from tutorial.files import write_whole

LAST = "verdict-tuned"  # the cell that ends what is repeated
WHEN = ("before", "after")  # fine-tuning
KEPT = ROOT / "out" / "stability.jsonl"
REPORT = ROOT / "bench" / "stability.md"


def part_one():
    """Return id and code of each cell of demo.ipynb, from the first to the second verdict."""
    return [(id, code) for id, _, code in cells_until(LAST)]


def with_seed(cells, seed):
    """Return the cells with another seed in place of 42."""
    (first, code), *others = cells
    return [(first, changed(code, SEED, f"set_seed({seed},")), *others]


def run(cells, seed):
    """Run the cells as the notebook does, and note what the network says.

    The figures are drawn too, though nobody sees them: drawing a batch uses up random numbers, so
    seed 42 gives the very numbers of the notebook.

    Returns
    -------
    dict
        Ready for JSON: seconds, total (of valid), valid (right before and after), and test (before
        and after, for each file: right or not, and the probability of its true class).
    """
    begin, names = time.perf_counter(), {}
    for id, code in with_seed(cells, seed):
        with redirect_stdout(io.StringIO()):
            exec(compile(code, id, "exec"), names)
        plt.close("all")
    tests = {}
    for when, said, probs in zip(WHEN, ("first", "second"), ("probs", "probs_tuned"), strict=True):
        columns = [list(names["dls"].vocab).index(truth) for truth in names[said].truth]
        chances = names[probs][range(len(columns)), columns].tolist()
        rights = (names[said].verdict == "right").tolist()
        files = [Path(file).name for file in names[said].index]
        tests[when] = dict(zip(files, zip(rights, chances, strict=True), strict=True))
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "total": len(names["valid_truth"]),
        "valid": {"before": names["right"], "after": names["tuned_right"]},
        "test": tests,
    }


def wrong(row, when):
    """Return the names of the test pictures that a run gets wrong."""
    return [name for name, (right, _) in row["test"][when].items() if not right]


def share(hits, total):
    """Say a share and its 95 % interval."""
    low, high = wilson(hits, total)
    return f"{hits} of {total} runs, {hits / total:.0%} (95 % interval {low:.0%} to {high:.0%})"


def accuracies(rows, when):
    """Return each run's share right on valid."""
    return [row["valid"][when] / row["total"] for row in rows]


def sentences(rows):
    """Say in plain sentences what the runs show."""
    n = len(next(iter(rows))["test"]["before"])
    said = []
    for when in WHEN:
        all_right = sum(not wrong(row, when) for row in rows)
        said.append(
            f"{when.capitalize()} fine-tuning, all {n} test pictures are right in"
            f" {share(all_right, len(rows))}."
        )
    gains = [row["valid"]["after"] - row["valid"]["before"] for row in rows]
    up, down = (sum(sign * gain > 0 for gain in gains) for sign in (1, -1))
    said.append(
        f"Runs in which fine-tuning raised the accuracy on valid: {up}; lowered it: {down}; left it"
        f" alike: {gains.count(0)}."
    )
    mended = sum(bool(set(wrong(r, "before")) - set(wrong(r, "after"))) for r in rows)
    spoiled = sum(bool(set(wrong(r, "after")) - set(wrong(r, "before"))) for r in rows)
    said.append(
        f"Runs in which it put a wrong test picture right: {mended}; spoiled a right one:"
        f" {spoiled}."
    )
    for when in WHEN:
        names = statistics.multimode(name for row in rows for name in wrong(row, when))
        often = sum(names[0] in wrong(row, when) for row in rows) if names else 0
        worst = f"{' and '.join(names)} (runs: {often})" if names else "none, in any run"
        said.append(f"Most often wrong {when} fine-tuning: {worst}.")
    return said


def report(rows):
    """Return the tables and sentences as Markdown."""
    spread = []
    for when in WHEN:
        values = accuracies(rows, when)
        deviation = f"{statistics.stdev(values):.1%}" if len(values) > 1 else "-"
        all_right = sum(not wrong(row, when) for row in rows)
        wide = [f"{share:.1%}" for share in (min(values), max(values))]
        mean = f"{statistics.mean(values):.1%}"
        spread.append([when, mean, deviation, *wide, f"{all_right} of {len(rows)}"])
    pictures = []
    for name in rows[0]["test"]["before"]:
        often = [sum(name in wrong(row, when) for row in rows) for when in WHEN]
        least = [f"{min(row['test'][when][name][1] for row in rows):.1%}" for when in WHEN]
        pictures.append([name, *often, *least])
    runs = []
    for row in rows:
        cells = [f"{row['valid'][when]} of {row['total']}" for when in WHEN]
        for when in WHEN:
            chances = row["test"][when]
            right = len(chances) - len(wrong(row, when))
            least = min(chances, key=lambda name: chances[name][1])
            cells.append(f"{right} of {len(chances)}; {least} {chances[least][1]:.1%}")
        runs.append([row["seed"], *cells])
    return "\n".join(
        [
            f"# Measured by `python -m bench.stability --seeds {len(rows)}`",
            "",
            "Part I of demo.ipynb, cell by cell as it stands there, with the seeds"
            f" {rows[0]['seed']} to {rows[-1]['seed']} in place of 42. An interval speaks of other"
            " seeds on these same pictures; of other pictures it says nothing.",
            "",
            f"{hardware()} Date: {date.today()}.",
            "",
            *(f"- {sentence}" for sentence in sentences(rows)),
            "",
            "## Accuracy on valid, over the runs",
            "",
            table(
                "fine-tuning,mean,standard deviation,lowest,highest,all tests right".split(","),
                spread,
            ),
            "",
            "## Each test picture",
            "",
            "In how many runs it is wrong, and the lowest probability that any run gave its true"
            " class.",
            "",
            table(
                "picture,wrong before,wrong after,lowest before,lowest after".split(","), pictures
            ),
            "",
            "## Seed by seed",
            "",
            "Of the test pictures: how many are right, and the one whose true class got the lowest"
            " probability.",
            "",
            table("seed,valid before,valid after,test before,test after".split(","), runs),
            "",
        ]
    )


def measure(seeds):
    """Run the seeds that are not yet done, keep each at once, and return all in order."""
    cells, times = part_one(), []
    kept = Kept(KEPT, cells)
    todo = [seed for seed in seeds if seed not in kept.rows]
    print(f"{len(seeds) - len(todo)} of {len(seeds)} seeds are done already.", flush=True)
    for seed in todo:
        row = run(cells, seed)
        kept.add(seed, row)
        times.append(row["seconds"])
        left = statistics.mean(times) * (len(todo) - len(times)) / 60
        tests = [len(row["test"][when]) - len(wrong(row, when)) for when in WHEN]
        print(
            f"seed {seed} ({len(times)} of {len(todo)}): valid {row['valid']['before']}, then"
            f" {row['valid']['after']} of {row['total']}; test {tests[0]}, then {tests[1]} right;"
            f" {row['seconds']:.0f} s; minutes left: about {left:.0f}",
            flush=True,
        )
    return [kept.rows[seed] for seed in seeds]


def main(argv=None):
    """Measure, write bench/stability.md, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0 on (default 20)")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    os.chdir(ROOT)  # the cells look for imgs here
    os.environ.pop("IMGS", None)
    matplotlib.use("agg")
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    try:
        rows = measure(range(args.seeds))
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on after the last finished seed.")
        return 130
    text = report(rows)
    write_whole(REPORT, text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
