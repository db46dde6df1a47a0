"""Small folders of pictures that are not the project's own: shapes, and squares of noise."""

import os
import subprocess
import sys

import numpy as np
from conftest import ROOT
from PIL import Image, ImageDraw

SHAPES = {"apple": "ellipse", "brick": "rectangle", "cone": "polygon", "door": "line"}


def draw(shape, rng):
    """A picture of one shape, in a random colour and place."""
    picture = Image.new("RGB", (96, 72), tuple(int(c) for c in rng.integers(0, 256, 3)))
    x, y = (int(v) for v in rng.integers(5, 40, 2))
    box = [x, y, x + 30, y + 25]
    if shape == "polygon":
        box = [x, y + 25, x + 15, y, x + 30, y + 25]
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
    return picture


def make(root, classes, tests):
    """A folder of the tutorial's layout; `tests` is "none" or "folders"."""
    rng = np.random.default_rng(0)
    for name in classes:
        places = [root / "train" / name / f"{i}.jpg" for i in range(16 // len(classes) + 1)]
        places += [root / "valid" / name / f"{i}.jpg" for i in range(2)]
        if tests == "folders":
            places.append(root / "test" / name / "0.jpg")
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            draw(SHAPES[name], rng).save(place)
    return root


def run(imgs, out):
    """`make run` on a folder, without the set-up."""
    return subprocess.run(
        [sys.executable, "tools/run_notebook.py", "demo.ipynb"],
        cwd=ROOT,
        env=dict(os.environ, IMGS=str(imgs), OUT=str(out), BODY="bundled"),
        capture_output=True,
        text=True,
    )


def squares(root, seed=0, **counts):
    """Dark and light squares of noise, a task that a few pictures teach: `counts` of each split."""
    rng = np.random.default_rng(seed)
    for split, many in counts.items():
        for i in range(many):
            name, light = (("dark", 0), ("light", 170))[i % 2]
            place = root / split / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 80, (70, 64, 3)) + light
            Image.fromarray(pixels.astype(np.uint8)).save(place)
    return root


def loaders(root, size=64):
    """Plain loaders of a folder, of batches of four, on the CPU."""
    from fastai.vision.all import ImageDataLoaders, Resize  # takes seconds

    return ImageDataLoaders.from_folder(
        root, valid="valid", item_tfms=Resize(size), bs=4, num_workers=0, device="cpu"
    )
