"""Out-of-distribution pictures, calibration, and how to say "I don't know" (step 22)."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from fastai.vision.core import PILImage
from PIL import Image, ImageDraw
from sklearn.neighbors import NearestNeighbors

from .verdict import wilson

SIDE = 224  # pixels


def strangers():
    """Make five out-of-distribution pictures, of 224 x 224 pixels; step 22.

    Returns
    -------
    dict of str to PILImage
        A blank, noise, a blue rectangle, a chessboard, and a red robot of our own.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((SIDE // 8, SIDE // 8))) * 255
    rectangle = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(rectangle).rectangle((40, 60, 184, 164), fill="#0093d6")
    made = {
        "a blank": Image.new("RGB", (SIDE, SIDE), "white"),
        "noise": Image.fromarray(noise),
        "a blue rectangle": rectangle,
        "a chessboard": Image.fromarray(board.astype(np.uint8)).convert("RGB"),
        "a third robot": _red_robot(),
    }
    return {name: PILImage.create(image) for name, image in made.items()}


def _red_robot():
    """Draw a red robot with one eye, an aerial and two legs before a grey wall."""
    image = Image.new("RGB", (SIDE, SIDE), "#c9c9c4")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 180, SIDE, SIDE), fill="#8a8a80")
    draw.line((112, 20, 112, 45), fill="#333333", width=4)
    draw.ellipse((106, 12, 118, 24), fill="#ffd21f")
    draw.rounded_rectangle((78, 42, 146, 92), 12, fill="#c8352b", outline="#5e1410", width=3)
    draw.ellipse((99, 52, 127, 80), fill="white", outline="#5e1410", width=3)
    draw.ellipse((108, 61, 118, 71), fill="black")
    draw.polygon(((70, 98), (154, 98), (140, 168), (84, 168)), fill="#c8352b", outline="#5e1410")
    for x in (92, 122):
        draw.rectangle((x, 168, x + 12, 204), fill="#5e1410")
    for x in (48, 158):
        draw.rounded_rectangle((x, 100, x + 18, 158), 8, fill="#5e1410")
    return image


def show_guesses(pictures, probs, vocab):
    """Draw pictures in a row, under their names, predicted classes and probabilities; step 22.

    Parameters
    ----------
    pictures : dict of str to PILImage
    probs : Tensor of shape (n, c)
        Predictions, in the same order.
    vocab : sequence of str, length c
    """
    _, axes = plt.subplots(1, len(pictures), figsize=(2.3 * len(pictures), 2.9), squeeze=False)
    best, guesses = probs.max(dim=1)
    for ax, (name, picture), p, guess in zip(
        axes.flat, pictures.items(), best, guesses, strict=True
    ):
        ax.imshow(picture)
        ax.set_title(f"{name}\n{vocab[guess]}, {p:.1%}", fontsize=10)
        ax.set(xticks=[], yticks=[])
    plt.show()


def show_reliability(probs, truth, limits=(0.0, 0.8, 0.95, 0.99, 1.0)):
    """Draw a reliability diagram: accuracy beside confidence; step 22.

    Parameters
    ----------
    probs : Tensor of shape (n, c)
        The largest of a row is the confidence.
    truth : Tensor of shape (n,)
        Indices of the true classes.
    limits : sequence of float
        Edges of the bins of confidence.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017,
    https://arxiv.org/abs/1706.04599.
    """
    sure, guess = probs.max(dim=1)
    _, ax = plt.subplots(figsize=(7, 3.4))
    names = []
    for place, (low, high) in enumerate(zip(limits, limits[1:], strict=False)):
        inside = (sure > low) & (sure <= high)
        n, hits = int(inside.sum()), int((guess == truth)[inside].sum())
        names.append(f"{'up' if low == 0 else f'{low:.0%}'} to {high:.0%}\n{hits} of {n} right")
        if n:
            ax.plot([place] * 2, wilson(hits, n), color="#2171b5", marker="_")
            ax.plot(place, hits / n, "o", color="#2171b5", label="was right, 95 % interval")
            said = float(sure[inside].mean())
            ax.plot(place - 0.12, said, "D", color="#e6550d", label="said, on average")
    ax.set(xticks=range(len(names)), ylim=(-0.03, 1.06), ylabel="probability or share")
    ax.set_xticklabels(names)
    ax.set_xlabel("how sure the network said it was")
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


def distances(features, known=None):
    """Compute the cosine distance of each picture's features to the nearest known ones; step 22.

    Parameters
    ----------
    features : Tensor of shape (n, f)
        From `frozen_features`.
    known : Tensor of shape (m, f), optional
        Features of the known pictures. Without them each picture is compared with all the others.

    Returns
    -------
    Tensor of shape (n,)
        From 0, the same direction, to 2.
    """
    finder = NearestNeighbors(n_neighbors=1, metric="cosine")
    finder.fit(features if known is None else known)
    nearest, _ = finder.kneighbors(None if known is None else features)
    return torch.from_numpy(nearest[:, 0])


def answers(probs, vocab, known):
    """Return the predicted class of each picture, or "I don't know"; step 22.

    Parameters
    ----------
    probs : Tensor of shape (n, c)
    vocab : sequence of str, length c
    known : iterable of bool, length n
        Whether to answer.

    Returns
    -------
    list of str, length n
    """
    guesses = [vocab[i] for i in probs.argmax(dim=1)]
    return [guess if sure else "I don't know" for guess, sure in zip(guesses, known, strict=True)]
