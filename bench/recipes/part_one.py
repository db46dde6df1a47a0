"""Run Part I of demo.ipynb, cell by cell as it stands there, figures included."""

import contextlib
import io
import os
import re
import sys
import time
import warnings
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent.parent
LAST = "summary"  # the cell that ends Part I
SEED = "set_seed(42,"  # as the first cell writes it
# What the notebook adds to plain fastai: without it, this is stock fastai in float32.
ADDED = "fast_defaults()\n"


def part_one(last=LAST):
    """Return id, heading and code of each code cell of demo.ipynb, up to the one with id `last`."""
    heading, cells = "", []
    for cell in nbformat.read(ROOT / "demo.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"(?m)^#+ (.+)$", cell.source) or [heading])[0]
        else:
            cells.append((cell.id, heading, cell.source))
            if cell.id == last:
                return cells
    raise ValueError(f"demo.ipynb has no cell {last}.")


def changed(code, old, new):
    """Return a cell with `old` replaced, and raise ValueError if it does not hold it once."""
    if code.count(old) != 1:
        raise ValueError(f"A cell should say {old!r} once: {code}")
    return code.replace(old, new)


def train(path, epochs, seed, notes, stock=False):
    """Run the cells; the epochs are the notebook's own, so `epochs` is not read."""
    os.environ.update(IMGS=str(path), BODY="bundled", MPLBACKEND="agg")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    names = {}
    for id, heading, code in part_one():
        if id == "import":
            code = changed(code, SEED, f"set_seed({seed},")
            if stock:
                code = changed(code, ADDED, "")
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, id, "exec"), names)
            draw_all(names["plt"])
        notes.steps[heading] = notes.steps.get(heading, 0) + time.perf_counter() - start
        if id == "learn":
            names["learn"].add_cb(teller(names["learn"], notes))


def draw_all(plt):
    """Draw the open figures into memory, as a notebook does after each cell, and close them."""
    for number in plt.get_fignums():
        plt.figure(number).savefig(io.BytesIO(), bbox_inches="tight")
    plt.close("all")


def teller(learn, notes):
    """Return a fastai callback that notes how each epoch's validation went."""
    from fastai.callback.core import Callback

    class Tell(Callback):
        order = 99  # after the recorder, which knows the accuracy

        def after_epoch(self):
            if hasattr(learn, "gather_preds"):  # a prediction, no training
                return
            total = len(learn.dls.valid_ds)
            notes(round(learn.recorder.values[-1][-1] * total), total)

    return Tell()
