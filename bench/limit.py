"""The notebook's training cells against stock fastai's, and against the arithmetic alone.

Stock fastai trains the same epochs on the same pictures in float32. The bare loop pushes pictures
that lie in memory already through the same network in the same precision: forward and backward, no
reading, no augmentation, no optimizer, no metrics. What training takes beyond it is what could be
saved at most.
"""

import random
import statistics
import time

import torch
from fastai.torch_core import default_device, set_seed

from bench.report import ROOT, table
from tutorial import recipe
from tutorial.defaults import OURS
from tutorial.precision import best_dtype
from tutorial.recipe import ALL, HEAD

BAR = 1.3  # times the bare loop
REST = ("the optimizer's step", "reading a batch", "augmenting a batch")
STEPS = 7  # of each kind that the bare loop takes; the middle one counts


def train(dls, cbs=OURS, seed=42):
    """Train as the notebook does, with what it adds to fastai or, if `cbs` is empty, without.

    Returns
    -------
    seconds : float
    found : list of (float, float)
        Loss on valid and accuracy there, after the head and after all layers.
    """
    set_seed(seed, reproducible=True)
    dls.train.rng = random.Random(seed)  # whoever trains meets the pictures in the same order
    learn, found = recipe.learner(dls, cbs=cbs), []
    with learn.no_bar(), learn.no_logging():
        start = time.perf_counter()
        for stage in recipe.stages(learn):
            learn.fit_one_cycle(stage.epochs, stage.rate)
            found.append(tuple(map(float, learn.recorder.values[-1][-2:])))
        return time.perf_counter() - start, found


def clock(do, times=STEPS):
    """Return the typical seconds of something, after one time that does not count."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def bare(dls):
    """Measure the pieces of training one by one, on one batch.

    Returns
    -------
    dict of str to float
        Seconds of a step of the head, of a step of all layers, and of a look without gradients;
        of reading a batch, of augmenting it, and of the optimizer's step.
    """
    device = default_device()
    learn = recipe.learner(dls, cbs=OURS)
    x, y = dls.train.one_batch()
    x = x.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last)
    y = y.as_subclass(torch.Tensor)
    model = learn.model.to(device, memory_format=torch.channels_last).train()
    dtype = best_dtype(device)

    def forward():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(x)

    def step():
        loss = torch.nn.functional.cross_entropy(forward().float(), y)
        loss.backward()
        loss.item()  # a GPU works in the background: wait for it

    def look():
        model.eval()
        with torch.no_grad():
            forward().sum().item()

    learn.freeze()
    model[0].eval()  # as StillBody does: batch norms keep their averages
    found = {"a step of the head": clock(step)}
    learn.unfreeze()
    model.train()
    found["a step of all layers"] = clock(step)
    found["a look"] = clock(look)
    found["the optimizer's step"] = clock(learn.opt.step)
    learn.opt.zero_grad()
    items = [dls.train.dataset[i] for i in range(dls.train.bs)]
    found["reading a batch"] = clock(
        lambda: [dls.train.after_item(dls.train.create_item(i)) for i in range(dls.train.bs)]
    )
    batch = dls.train.before_batch([dls.train.after_item(item) for item in items])
    batch = dls.train.create_batch(batch)
    found["augmenting a batch"] = clock(lambda: dls.train.after_batch(batch))
    return found


def limit(dls, pieces):
    """Work out the seconds that the bare loop would take for all epochs, validation included."""
    steps, looks = len(dls.train), len(dls.valid_ds) / dls.train.bs
    head, whole = pieces["a step of the head"], pieces["a step of all layers"]
    epochs = HEAD.epochs, ALL.epochs
    return steps * (epochs[0] * head + epochs[1] * whole) + sum(epochs) * looks * pieces["a look"]


def section(rounds):
    """Return the section of the report, line by line.

    Parameters
    ----------
    rounds : list of (float, float, float, dict)
        Seconds of training, of stock fastai's, of the bare loop, and of the pieces.
    """
    middle = statistics.median(training / least for training, _, least, _ in rounds)
    faster = statistics.median(stock / training for training, stock, _, _ in rounds)
    most = statistics.median(stock / least for _, stock, least, _ in rounds)
    rows = [
        [f"{s:.1f}" for s in (ours, stock, least)] + [f"{stock / ours:.2f}", f"{ours / least:.2f}"]
        for ours, stock, least, _ in rounds
    ]
    pieces = {name: statistics.median(found[name] for *_, found in rounds) for name in rounds[0][3]}
    whole = pieces["a step of all layers"]
    rest = sum(pieces[name] for name in REST) / whole
    return [
        f"{HEAD.epochs} epochs of the head and {ALL.epochs} of all layers, with validation:"
        f" {faster:.2f} times as fast as stock fastai in float32, and {middle:.2f} times as long as"
        f" the bare loop (bar: {BAR}, {'met' if middle <= BAR else 'NOT met'}).",
        "",
        table(("training, s", "stock, s", "bare loop, s", "faster", "times the loop"), rows),
        "",
        "The pieces, for one batch of 16 pictures:",
        "",
        table(
            ("piece", "s", "of a step of all layers"),
            [(name, f"{s:.3f}", f"{s / whole:.0%}") for name, s in pieces.items()],
        ),
        "",
        f"Reading, augmenting and the optimizer come to {rest:.0%} of the arithmetic of a step of"
        " all layers. Whoever does the same arithmetic in the same precision can be no more than"
        f" {middle:.2f} times as fast as the notebook, and so {most:.2f} times as fast as stock"
        " fastai.",
    ]


def measure(rounds, tell):
    """Measure so many rounds; `tell` gets the section after each."""
    dls, found = recipe.loaders(ROOT / "imgs"), []
    bare(dls)  # the first steps of a process are slow: not counted
    for n in range(rounds):
        pieces = bare(dls)
        turns = [OURS, ()] if n % 2 == 0 else [(), OURS]
        seconds = {cbs: train(dls, cbs)[0] for cbs in turns}
        found.append((seconds[OURS], seconds[()], limit(dls, pieces), pieces))
        training, stock, least, _ = found[-1]
        print(
            f"round {n + 1}: training {training:.1f} s, stock {stock:.1f} s, bare {least:.1f} s",
            flush=True,
        )
        tell(section(found))
