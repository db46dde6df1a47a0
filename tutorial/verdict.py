"""Predictions for the test pictures beside the classes in their names, and how much they prove."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from fastai.vision.core import PILImage
from scipy.stats import binomtest

MARKS = {"right": ("✓", "#1b7837"), "wrong": ("✗", "#b2182b"), "unknown": ("?", "#555555")}
MOST_PICTURES = 12  # more in one figure are too small to see


def wilson(right, total):
    """Return the 95 % Wilson interval of an accuracy; `what_it_proves` puts it into words.

    Parameters
    ----------
    right, total : int
        Right answers, and all answers, at least one.

    Returns
    -------
    low, high : float
        Both between 0 and 1.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    interval = binomtest(int(right), int(total)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def what_it_proves(right, total):
    """Put an accuracy and its 95 % interval into a sentence; steps 6, 10 and 13.

    Parameters
    ----------
    right, total : int
        As for `wilson`.

    Returns
    -------
    str
    """
    low, high = wilson(right, total)
    return (
        f"{right} of {total} right, {right / total:.0%};"
        f" on new pictures like these it may be {low:.0%} to {high:.0%} (95 % interval)."
    )


def true_class(file, vocab):
    """Read a test picture's class from its folder below `test`, or else from its file name.

    Both `test/walle/7.jpg` and `test/walle.7.jpg` are of class `walle`, in capitals, too. If a file
    name begins with several classes, the longest counts; `catalog.7.jpg` is no `cat`. `verdict`
    calls it, in step 10.

    Parameters
    ----------
    file : Path or str
    vocab : sequence of str

    Returns
    -------
    str or None
        None if neither tells a class.
    """
    *folders, name = short_name(file).casefold().split("/")
    known = {str(one).casefold(): one for one in vocab}
    if folders and folders[-1] in known:
        return known[folders[-1]]
    whole = [one for one in known if name.startswith(one) and _ends_at(name, len(one))]
    return known[max(whole, key=len)] if whole else None


def _ends_at(name, place):
    """Tell whether a word or a number ends before this index in a file name."""
    before, after = name[place - 1], name[place : place + 1]
    return not after.isalpha() and not (before.isdigit() and after.isdigit())


def short_name(file):
    """Return a file's path below the folder `test`, to tell `cat/1.jpg` from `dog/1.jpg`."""
    file = Path(file)
    for folder in file.parents:  # the nearest first; a class may be called test, too
        if folder.name == "test" != folder.parent.name:
            return file.relative_to(folder).as_posix()
    return file.name


def verdict(files, probs, vocab):
    """Join test files, predictions and true classes into a table; steps 10 and 14.

    Parameters
    ----------
    files : sequence of Path, length n
        In the order of the predictions.
    probs : tensor of shape (n, c)
        Probability of each class; column k belongs to `vocab[k]`.
    vocab : sequence of str, length c

    Returns
    -------
    pandas.DataFrame
        Indexed by file; columns truth, guess, probability (of the guess) and verdict: "right",
        "wrong", or "unknown" if neither folder nor name tells the class.

    Raises
    ------
    ValueError
        If `probs` does not have a row for each file and a column for each class.
    """
    if len(files) != len(probs) or (len(files) and probs.shape[1] != len(vocab)):
        raise ValueError(
            f"{len(files)} files and {len(vocab)} classes do not fit predictions of shape"
            f" {tuple(probs.shape)}: run the step that predicts the test files again."
        )
    rows = []
    for file, p in zip(files, probs, strict=True):
        truth, guess = true_class(file, vocab), vocab[int(p.argmax())]
        answer = "unknown" if truth is None else "right" if truth == guess else "wrong"
        rows.append((truth, guess, float(p.max()), answer))
    index = pd.Index([str(file) for file in files], name="file")
    return pd.DataFrame(rows, index, columns=["truth", "guess", "probability", "verdict"])


def score(table):
    """Return right answers out of those that can be judged, such as "5 of 6"; step 15."""
    known = int((table.verdict != "unknown").sum())
    return f"{(table.verdict == 'right').sum()} of {known}"


def doubt(table):
    """Name the file whose guess has the lowest probability."""
    file = table.probability.idxmin()
    return f"least sure of {short_name(file)}, {table.probability[file]:.1%}."


def show_verdict(**tables):
    """Draw test pictures under their guesses, and print which are wrong; steps 10 and 14.

    If there are more than 12 pictures, the wrong ones of the last table are drawn first.

    Parameters
    ----------
    **tables : pandas.DataFrame
        From `verdict`, on the same files, in any order; each name becomes a label, as in
        ``show_verdict(before=first, after=second)``.
    """
    last = list(tables.values())[-1]
    if last.empty:
        print("There are no test pictures, so there is nothing to judge.")
        return
    order = last.verdict.map({"wrong": 0, "unknown": 1, "right": 2}).sort_values(kind="stable")
    shown = last.index if len(last) <= MOST_PICTURES else order.index[:MOST_PICTURES]
    if len(shown) < len(last):
        print(f"{len(last)} test pictures; drawn are {len(shown)}, wrong ones first.")
    rows = math.ceil(len(shown) / 3)
    _, axes = plt.subplots(rows, 3, figsize=(10, 3.4 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, file in zip(axes.flat, shown, strict=False):
        ax.imshow(PILImage.create(file))
        lines = [short_name(file)]
        for label, table in tables.items():
            guess = table.loc[file]
            mark, colour = MARKS[guess.verdict]
            lines.append(f"{label}: {mark} {guess.guess}, {guess.probability:.1%}")
        ax.set_title("\n".join(lines), color=colour, fontsize=11)
    plt.show()
    for label, table in tables.items():
        known = table[table.verdict != "unknown"]
        wrong = [short_name(file) for file in known.index[known.verdict == "wrong"]]
        if len(known):
            print(f"{label}: {what_it_proves(len(known) - len(wrong), len(known))}")
            more = f" and {len(wrong) - MOST_PICTURES} more" if len(wrong) > MOST_PICTURES else ""
            names = ", ".join(wrong[:MOST_PICTURES]) or "none"
            print(f"{label}: wrong: {names}{more}; {doubt(table)}")
        else:
            print(f"{label}: no file name tells a class, so nothing can be counted.")


def what_changed(before, after):
    """Say which test pictures were put right and which went wrong; step 14.

    Parameters
    ----------
    before, after : pandas.DataFrame
        From `verdict`, on the same files, in any order.

    Returns
    -------
    str
    """
    then = before.verdict.reindex(after.index)
    parts = []
    for word, old, new in (("Put right", "wrong", "right"), ("now wrong", "right", "wrong")):
        changed = after.index[(then == old) & (after.verdict == new)]
        parts.append(f"{word}: {', '.join(short_name(file) for file in changed) or 'none'}")
    return "; ".join(parts) + "."
