"""Plots that fastai lacks: layers with their learning rates, loss by epoch, weight changes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib import font_manager
from matplotlib.patches import FancyBboxPatch

# The blocks of a body in order: name, and what the block responds to.
BLOCKS = [
    ("stem", "edges,\ncolours"),
    ("layer1", "corners,\ntextures"),
    ("layer2", "patterns"),
    ("layer3", "parts"),
    ("layer4", "whole\nthings"),
]
# Their indices in a resnet's body, which has eight parts, and in that of efficientnet_lite0.
PLACES = {8: (0, 4, 5, 6, 7), 5: (0, 1, 2, 3, 4)}
COLOURS = ["#9ecae1", "#6baed6", "#fdae6b"]

# Fonts with Chinese glyphs, for class names: Linux, Windows, macOS.
CHINESE = ["Noto Sans CJK SC", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB"]


def use_chinese_fonts():
    """Let plots fall back on a Chinese font, if one is installed; step 1."""
    known = font_manager.get_font_names()
    plt.rcParams["font.family"] = ["sans-serif", *(name for name in CHINESE if name in known)]


def blocks_of(body):
    """Split a body into blocks.

    Parameters
    ----------
    body : nn.Module
        The first part of a network from `vision_learner`.

    Returns
    -------
    list of (str, nn.Module, str)
        Name, layers, and what they respond to. A body of an unknown architecture is one block.
    """
    parts = list(body.children())
    if len(parts) not in PLACES:
        return [("body", body, "edges to\nthings")]
    places = PLACES[len(parts)]
    return [(name, parts[at], sees) for (name, sees), at in zip(BLOCKS, places, strict=True)]


def group_of(module, opt):
    """Return the index of the optimizer's parameter group that a module belongs to."""
    wanted = next(module.parameters())
    groups = [any(p is wanted for p in group) for group in opt.param_lists]
    return groups.index(True)


def draw_layers(learn):
    """Draw the network's blocks, coloured by parameter group, with the learning rates; step 11.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`; groups and rates are those of `learn.opt`.
    """
    blocks = [*blocks_of(learn.model[0]), ("head", learn.model[1], "our\nclasses")]
    _, ax = plt.subplots(figsize=(10, 2.6))
    boxes = {}
    for place, (name, module, sees) in enumerate(blocks):
        group = group_of(module, learn.opt)
        boxes.setdefault(group, []).append(place)
        style = {"boxstyle": "round,pad=0.05", "ec": "#333333", "fc": COLOURS[group % 3]}
        ax.add_patch(FancyBboxPatch((place, 0), 0.8, 1, **style))
        ax.text(place + 0.4, 0.74, name, ha="center", va="center", weight="bold")
        ax.text(place + 0.4, 0.34, sees, ha="center", va="center", fontsize=9)
        ax.annotate("", (place, 0.5), (place - 0.15, 0.5), arrowprops={"arrowstyle": "->"})
    for group, places in boxes.items():
        left, right = places[0], places[-1] + 0.8
        ax.plot([left, left, right, right], [-0.18, -0.26, -0.26, -0.18], color="#333333")
        rate = learn.opt.hypers[group]["lr"]
        ax.text((left + right) / 2, -0.34, f"rate {rate:.1e}", ha="center", va="top")
    ax.text(-0.2, 0.5, "picture", ha="right", va="center")
    ax.set(xlim=(-0.9, len(blocks)), ylim=(-0.55, 1.1))
    ax.axis("off")
    plt.show()


def epoch_losses(recorder):
    """Return the training and validation loss of each epoch of the last fit; step 12.

    Call it right after the fit: fastai clears its recorder at every prediction.

    Parameters
    ----------
    recorder : fastai.learner.Recorder

    Returns
    -------
    train, valid : list of float
    """
    names = recorder.metric_names[1:]  # the first one counts epochs and is not in `values`
    train, valid = names.index("train_loss"), names.index("valid_loss")
    return [row[train] for row in recorder.values], [row[valid] for row in recorder.values]


def overfits(train, valid):
    """Say whether the losses show overfitting; step 13.

    The rule: since the epoch with the lowest validation loss, the validation loss has risen by more
    than a tenth and by more than 0.01, while the training loss fell in every epoch. A loss of 0.01
    more means that the true class' probability is about 1 % lower, on average. A fit that failed,
    or of a single epoch, is not judged.

    Parameters
    ----------
    train, valid : list of float
        Loss after each epoch, of equal length.

    Returns
    -------
    str
        One sentence, with the figures.
    """
    if not np.isfinite([*train, *valid]).all():
        return (
            "Training failed: the loss is nan or infinite. Lower the learning rate tenfold, and run"
            " again from step 4."
        )
    if len(valid) == 1:
        return f"One epoch can't show overfitting: valid loss is {valid[0]:.3f}."
    best = valid.index(min(valid))
    falling = all(b < a for a, b in zip(train[best:], train[best + 1 :], strict=False))
    if falling and valid[-1] - valid[best] > max(0.1 * valid[best], 0.01):
        return (
            f"Overfitting: valid loss was lowest after epoch {best} ({valid[best]:.3f}) and has"
            f" risen since to {valid[-1]:.3f}, while train loss went on falling."
        )
    return (
        f"No sign of overfitting: valid loss ends at {valid[-1]:.3f}, and its lowest value was"
        f" {valid[best]:.3f}, after epoch {best}."
    )


def show_losses(train, valid):
    """Plot training and validation loss by epoch, and print what `overfits` says; step 13."""
    _, ax = plt.subplots(figsize=(7, 3.5))
    ax.plot(train, "o-", label="train loss")
    ax.plot(valid, "s--", label="valid loss")
    ax.set(xlabel="epoch", ylabel="loss", xticks=range(len(train)), ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()
    print(overfits(train, valid))


def how_far(before, after):
    """Measure how far training moved the weights of each block; step 20.

    Parameters
    ----------
    before, after : nn.Module
        Two states of one network from `vision_learner`, body and head.

    Returns
    -------
    dict of str to float
        For each block the L2 norm of the change, relative to the norm before.
    """
    pairs = zip(blocks_of(before[0]), blocks_of(after[0]), strict=True)
    blocks = [(name, old, new) for (name, old, _), (_, new, _) in pairs]
    moved = {}
    for name, *both in [*blocks, ("head", before[1], after[1])]:
        old, new = (torch.cat([p.detach().cpu().flatten() for p in m.parameters()]) for m in both)
        moved[name] = float((new - old).norm() / old.norm())
    return moved


def _percent(share):
    """Format a share as 34%, or as 0.05%: below 1 % one significant digit."""
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:.1g}%"


def show_change(before, **after):
    """Draw a bar chart of `how_far`; step 20.

    Parameters
    ----------
    before : nn.Module
    **after : nn.Module
        Each name becomes a label.
    """
    moved = pd.DataFrame({name: how_far(before, model) for name, model in after.items()})
    moved.columns = [name.replace("_", " ") for name in moved]
    ax = moved.plot.bar(figsize=(8, 3.2), rot=0, color=["#2171b5", "#e6550d"], width=0.7)
    for bars in ax.containers:  # the bar of a gentle change is too low to be seen
        ax.bar_label(bars, fmt=_percent, fontsize=8, padding=1)
    ax.set(xlabel="block", ylabel="change, as a share\nof what was there")
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.margins(y=0.1)
    ax.legend(loc="upper left")
    plt.show()
