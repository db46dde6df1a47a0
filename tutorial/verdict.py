"""What the network says about each test picture, beside what the file's own name says."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from fastai.vision.core import PILImage
from scipy.stats import binomtest

MARKS = {"right": ("✓", "#1b7837"), "wrong": ("✗", "#b2182b"), "unknown": ("?", "#555555")}
MOST_PICTURES = 12  # beyond this a figure is no longer read


def wilson(right, total):
    """95 % interval for a share: what `right` out of `total` can and cannot prove.

    Parameters
    ----------
    right, total : int
        Right answers, and answers in all (at least 1).

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
    """Return the same interval as a sentence, the one that `right` of `total` has earned."""
    low, high = wilson(right, total)
    return (
        f"{right} of {total} right, {right / total:.0%};"
        f" on new pictures like these it may be {low:.0%} to {high:.0%} (95 % interval)."
    )


def true_class(file, vocab):
    """Read a test picture's class from its folder below `test` or, failing that, from its name.

    `test/walle/7.jpg` and `test/walle.7.jpg` are both of class `walle`. Of several class names that
    a file name begins with, the longest counts. `None` where neither tells; capitals do not matter,
    and `catalog.7.jpg` is no `cat`. Used by `verdict`, step 10.
    """
    *folders, name = short_name(file).casefold().split("/")
    known = {str(one).casefold(): one for one in vocab}
    if folders and folders[-1] in known:
        return known[folders[-1]]
    whole = [one for one in known if name.startswith(one) and _ends_at(name, len(one))]
    return known[max(whole, key=len)] if whole else None


def _ends_at(name, place):
    """Tell whether a word, or a number, ends before this place in a file name."""
    before, after = name[place - 1], name[place : place + 1]
    return not after.isalpha() and not (before.isdigit() and after.isdigit())


def short_name(file):
    """Return a test file's path inside the folder `test`, since `cat/1.jpg` is no `dog/1.jpg`."""
    file = Path(file)
    for folder in file.parents:  # the nearest first; a class may be called test, too
        if folder.name == "test" != folder.parent.name:
            return file.relative_to(folder).as_posix()
    return file.name


def verdict(files, probs, vocab):
    """Join test files, predictions and true classes into one table, one row a file.

    Parameters
    ----------
    files : sequence of Path, length n
        In the order in which they were predicted.
    probs : tensor of shape (n, c)
        Probability of each class; column k belongs to `vocab[k]`.
    vocab : sequence of str, length c

    Returns
    -------
    pandas.DataFrame
        Indexed by file; columns truth, guess, probability (of the guess) and verdict: "right",
        "wrong", or "unknown" where the file's name tells no class.

    Raises
    ------
    ValueError
        If there are not as many predictions as files, or not as many columns as classes.
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
    """Return right answers of those that a file's name lets us judge, e.g. "5 of 6"."""
    known = int((table.verdict != "unknown").sum())
    return f"{(table.verdict == 'right').sum()} of {known}"


def doubt(table):
    """Return the words that name the file whose guess has the lowest probability."""
    file = table.probability.idxmin()
    return f"least sure of {short_name(file)}, {table.probability[file]:.1%}."


def show_verdict(**tables):
    """Draw test pictures under their guesses; say which are wrong, and what that proves.

    Parameters
    ----------
    **tables : pandas.DataFrame
        From `verdict`, on the same files; each name becomes a label. `show_verdict(before=first,
        after=second)` joins both by file. The last table decides the order and the sentence.
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
    """Return one sentence: which test pictures were put right, and which went wrong."""
    then = before.verdict.reindex(after.index)
    parts = []
    for word, old, new in (("Put right", "wrong", "right"), ("now wrong", "right", "wrong")):
        changed = after.index[(then == old) & (after.verdict == new)]
        parts.append(f"{word}: {', '.join(short_name(file) for file in changed) or 'none'}")
    return "; ".join(parts) + "."
