"""The notebook's recipe in one place, for all that trains outside of it.

`tutorial.train`, the comparisons in `bench` and the judging of a body in `tools/pretrain_body` take
pictures, network and schedule from here; a test holds them against the notebook's own cells.
"""

from typing import NamedTuple

from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import GrandparentSplitter, get_image_files, parent_label
from fastai.metrics import accuracy
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock, ImageDataLoaders
from fastai.vision.learner import vision_learner

from .backbone import resnet34

__all__ = [
    "ALL",
    "BATCH",
    "HEAD",
    "PLAN",
    "SEED",
    "Stage",
    "learner",
    "loaders",
    "sorted_block",
    "stages",
]

SEED = 42
BATCH = 16  # pictures a step
SIDE = 224  # pixels of a picture for the network


class Stage(NamedTuple):
    """One training: its short name, the layers that learn, epochs, and the highest rate."""

    name: str
    layers: str
    epochs: int
    rate: float | slice


HEAD = Stage("head", "the head", 3, 3e-3)  # step 5
ALL = Stage("all", "all layers", 3, slice(1e-5, 3e-4))  # step 12
PLAN = HEAD, ALL


def loaders(path, **changes):
    """Return `dls` as step 2 makes it, but for `changes`, such as ``batch_tfms=None``."""
    how = {"bs": BATCH, "num_workers": 0, **_transforms(), **changes}
    return ImageDataLoaders.from_folder(path, valid="valid", **how)


def sorted_block(folders=("train", "valid"), splitter=None):
    """Return what makes the same `dls` with the files in order, since no two disks list them alike.

    Parameters
    ----------
    folders : tuple of str
        In which to look for pictures.
    splitter : callable, optional
        From the files to their numbers for training and for validation; by default those in `train`
        and those in `valid`.

    Returns
    -------
    DataBlock
    """
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda path: get_image_files(path, folders=list(folders)).sorted(),
        splitter=splitter or GrandparentSplitter(),
        get_y=parent_label,
        **_transforms(),
    )


def _transforms():
    return {"item_tfms": Resize(SIDE), "batch_tfms": aug_transforms()}


def learner(dls, arch=resnet34, **changes):
    """Return `learn` as step 4 makes it, but for `changes`, such as further callbacks."""
    return vision_learner(dls, arch, **{"metrics": accuracy, **changes})


def stages(learn, plan=PLAN):
    """Yield the trainings of `plan` in turn, for ``learn.fit_one_cycle(stage.epochs, stage.rate)``.

    Before the one of all layers, these are unfrozen.
    """
    for stage in plan:
        if stage.name == ALL.name:
            learn.unfreeze()
        yield stage
