"""Folders of pictures of noise, and what is said of them."""

import io

import numpy as np
from PIL import Image
from promises import untouched

from tutorial import check_folder, check_images
from tutorial.errors import FolderError


def noise(seed=0, mode="RGB", size=(80, 70)):
    """A picture of noise, another one for each seed."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def data(image, kind="JPEG", **options):
    """The bytes of a picture's file; `image` is a picture or the seed of one."""
    stream = io.BytesIO()
    (noise(image) if isinstance(image, int) else image).save(stream, kind, **options)
    return stream.getvalue()


def put(place, content):
    """Write a file, and the folders it needs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def make(root, classes=("cat", "dog"), train=9, valid=3):
    """A sound folder: so many pictures of each class, and one to test."""
    places = [
        root / split / label / f"{i}.jpg"
        for split, n in (("train", train), ("valid", valid))
        for label in classes
        for i in range(n)
    ]
    for seed, place in enumerate([*places, root / "test" / f"{classes[0]}.1.jpg"]):
        put(place, data(noise(seed, size=(64, 64))))
    return root


def found(root):
    """The findings as {(problem, file)}; asserts that looking has changed nothing."""
    with untouched(root):
        table = check_images(root)
    return set(zip(table["problem"], table["file"], strict=True))


def told(root, capsys):
    """What the doctor prints of a folder, and what the notebook's first step says."""
    capsys.readouterr()
    with untouched(root):
        stops = check_images(root)["stops training"].any()
        try:
            check_folder(root)
        except FolderError as error:
            assert stops, "the doctor says all that step 1 says"
            print(error)
    return capsys.readouterr().out
