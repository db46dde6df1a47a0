"""The notebook's recipe in one place, for all that trains outside of it.

`tutorial.train`, the comparisons in `bench` and the judging of a body in `tools/pretrain_body` take
pictures, network and schedule from here; a test trains by it and by the notebook's own cells.
"""

from typing import NamedTuple

from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import GrandparentSplitter, get_image_files, parent_label
from fastai.metrics import accuracy
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from fastai.vision.learner import vision_learner

from .backbone import resnet34

__all__ = ["ALL", "BATCH", "HEAD", "SEED", "Stage", "learner", "loaders", "stages"]

SEED = 42
BATCH = 16  # pictures a step


class Stage(NamedTuple):
    """One training: its short name, the layers that learn, epochs, and the highest rate."""

    name: str
    layers: str
    epochs: int
    rate: float | slice


HEAD = Stage("head", "the head", 3, 3e-3)  # step 5
ALL = Stage("all", "all layers", 3, slice(1e-5, 3e-4))  # step 12


def loaders(path, folders=("train", "valid"), splitter=None, augment=True, **options):
    """Return the `dls` of step 2, but with the files in order, since no two disks list them alike.

    The pictures of other `folders` in `path` can be taken, and another `splitter`, from the files
    to the numbers of those for training and for validation. `options` are for fastai's loaders.
    """
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda path: get_image_files(path, folders=list(folders)).sorted(),
        splitter=splitter or GrandparentSplitter(),
        get_y=parent_label,
        item_tfms=Resize(224),
        batch_tfms=aug_transforms() if augment else None,
    )
    return block.dataloaders(path, path=path, **{"bs": BATCH, "num_workers": 0, **options})


def learner(dls, arch=resnet34, **changes):
    """Return the `learn` of step 4, but for `changes`, such as other callbacks."""
    return vision_learner(dls, arch, **{"metrics": accuracy, **changes})


def stages(learn, plan=(HEAD, ALL)):
    """Yield the trainings in turn, for `fit_one_cycle`; before that of all layers, unfreeze."""
    for stage in plan:
        if stage.name == ALL.name:
            learn.unfreeze()
        yield stage
