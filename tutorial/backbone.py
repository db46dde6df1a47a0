"""Where the trained part of the network comes from: one rule, set by ``BODY``.

A resnet34 that has seen many pictures already knows edges, textures and shapes. The best one was
trained on ImageNet, 1.3 million photos, and is an 83 MB download. Where it can't be had, a smaller
treasure lies in this repository: a body trained on pictures that the project itself generates.

======== =====================================================================================
BODY     What `resnet34` gives
======== =====================================================================================
auto     ImageNet's body if it is in the cache or can be downloaded, else the bundled one (default)
imagenet ImageNet's body, or an error
bundled  the bundled body; the network is never touched
======== =====================================================================================

Reference: He et al., "Deep Residual Learning for Image Recognition", 2016.
"""

import gc
import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision.models as tvm
from fastai.vision.learner import model_meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from .download import DownloadError, download, sha256
from .errors import TutorialError

__all__ = ["BodyError", "body_in_use", "resnet34"]

# torchvision puts the first 8 digits of the file's SHA-256 into its name.
IMAGENET_URL = tvm.ResNet34_Weights.IMAGENET1K_V1.url
BUNDLED = Path(__file__).resolve().parent.parent / "weights" / "resnet34-body.safetensors"
RESTORE = "restore it from the repository"
_said = set()  # sentences this process has shown already


class BodyError(TutorialError):
    """The weights can't be had; the message says why and what to do."""


def resnet34(*, weights=None, pretrained=False, **kwargs):
    """Build a resnet34, as ``torchvision.models.resnet34`` does, with the body that BODY names.

    Parameters
    ----------
    weights : str or torchvision.models.ResNet34_Weights, optional
        None gives random weights. Anything else, such as the ``"DEFAULT"`` of `vision_learner`,
        asks for a trained body, and the environment variable BODY decides which.
    pretrained : bool
        True is an older way of saying ``weights="DEFAULT"``.
    **kwargs
        Passed on to torchvision, for example ``num_classes``.

    Returns
    -------
    torchvision.models.ResNet
        In float32. Its last layer, which `vision_learner` cuts off, is trained only if the body is
        ImageNet's and there are 1000 classes.

    Raises
    ------
    BodyError
        If BODY has a value other than the three, or the weights it asks for can't be had.
    """
    # fastai's learners refer to themselves in circles, so one that was replaced stays in memory (up
    # to 0.3 GB) until Python looks for such circles, which by itself it does seldom.
    gc.collect()
    model = tvm.resnet34(weights=None, **kwargs)
    if tvm.ResNet34_Weights.verify(weights) is None and not pretrained:
        return model
    path, sentence = _choose(_wanted())
    state = load_file(path) if path == BUNDLED else torch.load(path, "cpu", weights_only=True)
    if model.fc.out_features != 1000:
        state = {name: numbers for name, numbers in state.items() if not name.startswith("fc.")}
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
        # The last layer may be missing, and the counters that batch norm keeps for itself.
        missing = [n for n in missing if not n.startswith("fc.") and "num_batches" not in n]
    except RuntimeError:  # a layer has another size
        missing = unknown = [path]
    if missing or unknown:
        raise BodyError(f"{path} holds the weights of another network than resnet34; {RESTORE}.")
    if sentence not in _said:
        print(sentence)
        _said.add(sentence)
    return model


# With this, fastai cuts, splits and normalises our resnet34 exactly as it does torchvision's.
model_meta[resnet34] = model_meta[tvm.resnet34]


def body_in_use():
    """Return the sentence that says which body will be used, and why.

    Where BODY allows it, ImageNet's file is looked for now, and downloaded if need be. As the
    reader has the sentence then, `resnet34` will not print it again.

    Raises
    ------
    BodyError
        If BODY has another value, or the body that it asks for can't be had.
    """
    sentence = _choose(_wanted())[1]
    _said.add(sentence)
    return sentence


def _wanted():
    """Return the value of BODY."""
    wanted = os.environ.get("BODY") or "auto"
    if wanted not in ("auto", "imagenet", "bundled"):
        raise BodyError(f"BODY is {wanted!r}, but it must be auto, imagenet or bundled.")
    return wanted


@lru_cache  # a dead network is waited for once a process, not once a learner
def _choose(wanted):
    """Find the file that `wanted` asks for; return its path and a sentence about it."""
    bundled = "The body is the bundled resnet34, trained on generated pictures, because"
    if wanted == "bundled":
        return _find_bundled(), f"{bundled} BODY=bundled asks for it."
    try:
        path, how = _find_imagenet()
        return path, f"The body is a resnet34 trained on ImageNet's 1.3 million photos, {how}."
    except (BodyError, DownloadError, OSError) as error:
        why = f"ImageNet's weights can't be had: {error}"
    if wanted == "imagenet":
        raise BodyError(f"BODY=imagenet, but {why}. BODY=bundled needs no network.")
    try:
        return _find_bundled(), f"{bundled} {why}."
    except BodyError as error:
        raise BodyError(f"{error} It is needed because {why}.") from None


def _find_bundled():
    """Return the path of the bundled file, checked."""
    sums = BUNDLED.with_name("SHA256SUMS")
    try:
        for file in (BUNDLED, sums):
            if not file.exists():
                raise BodyError(f"{file} is missing; {RESTORE}.")
        lines = [line.split() for line in sums.read_text(encoding="utf-8").splitlines()]
        digest = sha256(BUNDLED)
        with safe_open(BUNDLED, "pt"):  # reads the table of contents, compares it with the size
            pass
    except SafetensorError:
        what = "is cut short" if _starts_like_safetensors(BUNDLED) else "is not a safetensors file"
        raise BodyError(f"{BUNDLED} {what}; {RESTORE}.") from None
    except OSError as error:
        raise BodyError(f"{BUNDLED} can't be read ({error.strerror}); {RESTORE}.") from None
    if [digest, BUNDLED.name] not in lines:
        raise BodyError(f"{BUNDLED} has another checksum than {sums.name} says; {RESTORE}.")
    return BUNDLED


def _starts_like_safetensors(path):
    """Tell whether a file begins as the format demands: 8 bytes of length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _find_imagenet():
    """Return the path of ImageNet's file, checked, and how it was come by."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(IMAGENET_URL).path).name)
    digits = path.stem.rpartition("-")[2]
    if not path.exists():
        download(IMAGENET_URL, path, digits)
        return path, "downloaded just now"
    try:
        digest = sha256(path)
    except OSError as error:
        raise BodyError(f"{path} can't be read ({error.strerror})") from None
    if not digest.startswith(digits):
        raise BodyError(
            f"{path} has a wrong checksum; it is not used, and a new download starts only"
            " when you have deleted it"
        )
    return path, "found in the cache"
