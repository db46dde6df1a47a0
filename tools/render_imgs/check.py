"""``python -m tools.render_imgs.check``: measure the bars of ``imgs/`` and print them.

Needs scikit-learn and imagehash, which the tutorial's environment has; Blender is not needed.
"""

import argparse
import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from .names import all_names, parse, recipe_of

LOW, HIGH = 0.80, 0.93
NEAR = 10
BYTES = 20e6


def histogram(path, bins=8):
    """Colour histogram of a picture.

    Parameters
    ----------
    path : path-like
    bins : int
        Bins of hue, of saturation and of value.

    Returns
    -------
    h : ndarray of shape (bins ** 3,)
        Square roots of the shares of pixels, so that it has length one.
    """
    hsv = np.asarray(Image.open(path).convert("RGB").convert("HSV")).reshape(-1, 3)
    index = np.ravel_multi_index((hsv.astype(int) * bins // 256).T, (bins,) * 3)
    return np.sqrt(np.bincount(index, minlength=bins**3) / len(hsv))


def colour_accuracy(root, plain=False):
    """Accuracy of a logistic regression on colour histograms.

    Parameters
    ----------
    root : path-like
        Folder of the pictures.
    plain : bool
        Take the shares of pixels themselves instead of their square roots, which weigh small
        patches of colour more and do better.

    Returns
    -------
    right, total : int
        On valid, trained on train.
    cross : float
        Mean accuracy of five-fold cross-validation on train and valid together.
    wrong : list of str
        Names of the valid pictures that it gets wrong.
    """
    names = {s: [n for n in all_names() if parse(n)[0] == s] for s in ("train", "valid")}
    power = 2 if plain else 1
    x = {s: np.stack([histogram(Path(root, n)) for n in names[s]]) ** power for s in names}
    y = {s: np.array([parse(n)[1] == "walle" for n in names[s]]) for s in names}
    model = LogisticRegression(max_iter=5000)
    guess = model.fit(x["train"], y["train"]).predict(x["valid"])
    both = [np.concatenate([d["train"], d["valid"]]) for d in (x, y)]
    order = np.random.default_rng(0).permutation(len(both[1]))
    cross = cross_val_score(model, both[0][order], both[1][order], cv=5).mean()
    wrong = [n for n, ok in zip(names["valid"], guess == y["valid"], strict=True) if not ok]
    return len(names["valid"]) - len(wrong), len(names["valid"]), cross, wrong


def close_pairs(root, names=None, limit=NEAR, across=True):
    """Pairs of pictures with a small distance of perceptual hashes.

    Parameters
    ----------
    root : path-like
    names : list of str, optional
    limit : int
        Pairs that differ in at most so many of 64 bits.
    across : bool
        Only pairs from different splits, else only pairs within one.

    Returns
    -------
    pairs : list of (distance, name, name)
        Nearest first.
    """
    names = all_names() if names is None else names
    code = {n: imagehash.phash(Image.open(Path(root, n))).hash.ravel() for n in names}
    bits = np.stack([code[n] for n in names]).astype(int)
    split = np.array([parse(n)[0] for n in names])
    far = (bits[:, None] != bits[None]).sum(-1)
    pairs = [
        (int(far[i, j]), names[i], names[j])
        for i, j in combinations(range(len(names)), 2)
        if far[i, j] <= limit and (split[i] != split[j]) == across
    ]
    return sorted(pairs)


def main(argv=None):
    """Print every bar; exit with 1 where one is missed."""
    parser = argparse.ArgumentParser(prog="python -m tools.render_imgs.check", description=__doc__)
    parser.add_argument("--imgs", default="imgs", help="folder of the pictures (default imgs)")
    root = Path(parser.parse_args(argv).imgs)
    missing = [n for n in all_names() if not (root / n).exists()]
    if missing:
        parser.error(f"{len(missing)} pictures are missing below {root}, the first is {missing[0]}")
    pictures = [Image.open(root / n) for n in all_names()]
    total = sum((root / n).stat().st_size for n in all_names())
    equal = len(pictures) - len(
        {hashlib.sha256((root / n).read_bytes()).digest() for n in all_names()}
    )
    right, of, cross, wrong = colour_accuracy(root)
    shares = colour_accuracy(root, plain=True)
    near, close = close_pairs(root), close_pairs(root, limit=15)
    print(f"pictures            {len(pictures)}, {total / 1e6:.1f} MB together (bar: under 20)")
    print(f"sizes               {dict(Counter(p.size for p in pictures).most_common())}")
    print(f"recipes             {dict(sorted(Counter(map(recipe_of, all_names())).items()))}")
    print(f"equal files         {equal}")
    print(f"colour histogram    {right}/{of} = {right / of:.1%} on valid (bar: 80 to 93 %)")
    print(f"                    {cross:.1%} in five-fold cross-validation on train and valid")
    print(f"                    wrong: {', '.join(Path(n).stem for n in wrong)}")
    print(f"  plain shares      {shares[0]}/{of} = {shares[0] / of:.1%} on valid (bar: the same)")
    print(f"near duplicates     {len(near)} pairs across splits within {NEAR} of 64 bits (bar: 0)")
    for d, a, b in close[:8]:
        print(f"                    {d} bits: {a}, {b}")
    colour = all(LOW <= n / of <= HIGH for n in (right, shares[0]))
    ok = colour and not near and not equal and total < BYTES
    print("all bars met" if ok else "a bar is missed")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
