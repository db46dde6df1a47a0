"""Leaks: the same picture on both sides of a split."""

from pathlib import Path

import imagehash
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from fastai.vision.core import PILImage
from fastprogress.fastprogress import progress_bar

from .rivals import MANY

NAMED = 12  # pairs that are named; a large folder may have many
NEAR = 10  # of 64 bits: two frames of one film scene may differ in as many


def find_leaks(files, path, features=None):
    """Find for each picture of valid and test the one in another split that is most like it.

    Each pair is met once: valid looks for its twin in train, test in train and in valid.

    Parameters
    ----------
    files : list of Path
        Pictures of all splits, inside `path`.
    path : Path
        Holds the folders `train`, `valid` and `test`.
    features : Tensor of shape (n, f), optional
        What a network sees in each of them; then likeness by network is judged as well.

    Returns
    -------
    DataFrame
        A row for each picture of valid and test and each way of judging, leaks first, then the
        most alike: file, twin (both relative to `path`), by ("hash" or "network"), alike (the
        share of 64 bits that agree, or the cosine of the features), and leak: True where the
        bytes are the same or at most 10 bits differ. A network's word alone proves no leak.

    References
    ----------
    The hash is imagehash's perceptual one: signs of the lowest 64 frequencies of a small grey
    copy. It survives scaling, saving anew and small crops, but neither mirroring nor large ones.
    """
    names = [Path(file).relative_to(path) for file in files]
    splits = np.array([name.parts[0] for name in names])
    many = progress_bar(files, leave=False, display=len(files) > MANY)
    bits = np.stack([imagehash.phash(PILImage.create(file)).hash.ravel() for file in many])
    judges = {"hash": (bits, lambda those, one: (those == one).mean(1))}
    if features is not None:
        unit = np.asarray(features / features.norm(dim=1, keepdim=True))
        judges["network"] = (unit, lambda those, one: those @ one)
    rows = []
    for split, others in {"valid": ["train"], "test": ["train", "valid"]}.items():
        mine = np.flatnonzero(splits == split)
        candidates = np.flatnonzero(np.isin(splits, others))
        for by, (views, judge) in judges.items() if len(candidates) else ():
            known = views[candidates]
            for i in mine:
                alike = judge(known, views[i])
                j, score = candidates[alike.argmax()], float(alike.max())
                differ = int((bits[i] != bits[j]).sum())
                # The same bytes have the same hash, so hardly a file needs to be read.
                same = not differ and Path(files[i]).read_bytes() == Path(files[j]).read_bytes()
                leak = same or (by == "hash" and differ <= NEAR)
                rows.append((names[i], names[j], by, score, leak))
    table = pd.DataFrame(rows, columns=["file", "twin", "by", "alike", "leak"])
    return table.sort_values(["leak", "alike"], ascending=False, ignore_index=True)


def show_leaks(leaks, path, most=3):
    """Draw the most alike pairs of each way of judging; say in one sentence: pass or fail."""
    ways = sorted(leaks.by.unique())
    if not ways:
        print("Nothing to compare: pictures lie in one split only.")
        return
    shape = {"nrows": len(ways), "ncols": most, "squeeze": False}
    _, axes = plt.subplots(**shape, figsize=(3.7 * most, 2.9 * len(ways)), layout="constrained")
    for row, by in zip(axes, ways, strict=True):
        for ax in row:
            ax.axis("off")
        for ax, pair in zip(row, leaks[leaks.by == by].head(most).itertuples(), strict=False):
            both = [PILImage.create(path / name).resize((200, 200)) for name in pair[1:3]]
            ax.imshow(np.hstack(both))
            bits = round(64 * (1 - pair.alike))
            how = f"{bits} of 64 bits differ" if by == "hash" else f"cosine {pair.alike:.2f}"
            ax.set_title(f"{pair.file}\n{pair.twin}\nby {by}: {how}", fontsize=11)
    plt.show()
    found = leaks[leaks.leak].drop_duplicates(["file", "twin"])
    for pair in found.head(NAMED).itertuples():
        print(f"{pair.file} and {pair.twin} look like one picture: keep only one of them.")
    if len(found) > NAMED:
        print(f"And {len(found) - NAMED} more such pairs; `leaks[leaks.leak]` lists them all.")
    print("FAIL: pictures leak from split to split." if len(found) else "PASS: no leak found.")
