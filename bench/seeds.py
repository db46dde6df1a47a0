"""Whether the notebook's choices cost accuracy: its training and stock fastai's, seed by seed.

Both train the same epochs on the same pictures from the same body, stock fastai in float32. Ten
seeds, however many rounds are asked for: of three, a mean would say nothing.
"""

import inspect
import math
import statistics

from scipy.stats import ttest_1samp

from bench import limit
from bench.kept import Kept
from bench.limit import train
from bench.report import ROOT, mean_sd, table
from tutorial import recipe
from tutorial.defaults import OURS
from tutorial.recipe import ALL, HEAD

SEEDS = 10
MAKERS = {"the notebook's": OURS, "stock fastai": ()}  # with which callbacks
WHEN = ("after the head", "after all layers")
KEPT = ROOT / "out" / "seeds.jsonl"


def apart(rows, when, what):
    """Return ours less stock's: the mean over the seeds, and its interval.

    Parameters
    ----------
    rows : list of dict
        For each seed, what `train` returned for each of `MAKERS`.
    when : int
        0 after the head, 1 after all layers.
    what : int
        0 the loss, 1 the accuracy in points of a hundred.

    Returns
    -------
    tuple of float
        Mean, least and most; the last two are NaN where there is nothing to tell a spread from.
    """
    ours, stock = ([row[name][when][what] for row in rows] for name in MAKERS)
    scale = 100 if what else 1
    values = [scale * (a - b) for a, b in zip(ours, stock, strict=True)]
    if len(set(values)) < 2:
        return statistics.mean(values), math.nan, math.nan
    return statistics.mean(values), *ttest_1samp(values, 0).confidence_interval()


def section(rows):
    """Return the section of the report, line by line; `rows` as in `apart`."""
    spread = []
    for when, name in enumerate(WHEN):
        shares = [mean_sd([row[maker][when][1] for row in rows]) for maker in MAKERS]
        points = "{:+.1f} ({:+.1f} to {:+.1f})".format(*apart(rows, when, 1))
        losses = "{:+.3f} ({:+.3f} to {:+.3f})".format(*apart(rows, when, 0))
        spread.append([name, *shares, points, losses])
    each = [
        (n, *(f"{row[maker][when][1]:.1%}" for when in (0, 1) for maker in MAKERS))
        for n, row in enumerate(rows)
    ]
    mean, low, high = apart(rows, 1, 1)
    return [
        f"{HEAD.epochs} epochs of the head and {ALL.epochs} of all layers, with the seeds 0 to"
        f" {len(rows) - 1}."
        f" At the end, the notebook's accuracy is {mean:+.1f} points from stock fastai's; of other"
        f" seeds it would be {low:+.1f} to {high:+.1f} on average (95 % interval). Bar: no fall"
        f" that these seeds can show: {'NOT met' if high < 0 else 'met'}. (One picture of valid is"
        " 3 points.)",
        "",
        table(
            (
                "accuracy on valid",
                *(f"{maker}, mean ± sd" for maker in MAKERS),
                "apart, points",
                "loss apart",
            ),
            spread,
        ),
        "",
        table(
            ("seed", *(f"{maker}, {when}" for when in WHEN for maker in MAKERS)),
            each,
        ),
    ]


def measure(rounds, tell):
    """Measure ten seeds, whatever `rounds` says; `tell` gets the section after each."""
    kept = Kept(KEPT, inspect.getsource(limit))
    dls = recipe.loaders(ROOT / "imgs")
    for seed in range(SEEDS):
        if seed not in kept.rows:
            found = {name: train(dls, cbs, seed)[1] for name, cbs in MAKERS.items()}
            kept.add(seed, found)
            said = (f"{name} {found[name][1][1]:.1%}" for name in MAKERS)
            print(f"seed {seed}: {', '.join(said)}", flush=True)
        tell(section([kept.rows[n] for n in range(seed + 1)]))
