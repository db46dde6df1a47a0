"""Where the pretrained body of the network comes from: one rule, set by ``BODY``.

The best body was trained on ImageNet, 1.3 million photos, and is an 83 MB download. Where it can't
be had, a weaker one is used that is bundled with this repository; ``weights/MODEL_CARD.md``
describes it.

======== =====================================================================================
BODY     What `resnet34` gives
======== =====================================================================================
auto     ImageNet's body if it is in the cache or can be downloaded, else the bundled one (default)
imagenet ImageNet's body, or an error
bundled  the bundled body; the network is never touched
a path   the body in that file, .pth or .safetensors, with torchvision's names
======== =====================================================================================

Reference: He et al., "Deep Residual Learning for Image Recognition", 2016.
"""

import gc
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import torch
import torchvision.models as tvm
from fastai.vision.learner import model_meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from .download import DownloadError, download, sha256
from .errors import TutorialError

__all__ = ["FINDERS", "Body", "BodyError", "body_in_use", "fill", "resnet34"]

# torchvision puts the first 8 digits of the file's SHA-256 into its name; these are all of them.
IMAGENET_URL = tvm.ResNet34_Weights.IMAGENET1K_V1.url
IMAGENET_SHA256 = "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f"
BUNDLED = Path(__file__).resolve().parent.parent / "weights" / "resnet34-body.safetensors"
RESTORE, OTHER = "restore it from the repository", "let BODY name another file"
KINDS = (".pth", ".safetensors")  # of files that BODY may name
_said = set()  # sentences this process has shown already


class BodyError(TutorialError):
    """The weights can't be had; the message says why and what to do."""


class Body(NamedTuple):
    """A trained body: what the record calls it, its file, and a sentence about it."""

    which: str
    file: Path
    sentence: str


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
        In float32. Its last layer, which `vision_learner` cuts off, is trained only if the file
        has one of the same size, as ImageNet's has for 1000 classes.

    Raises
    ------
    BodyError
        If BODY is neither one of the three words nor a path, or the weights it asks for can't be
        had.
    """
    # fastai's learners refer to themselves in circles, so one that was replaced stays in memory (up
    # to 0.3 GB) until Python looks for such circles, which by itself it does seldom.
    gc.collect()
    model = tvm.resnet34(weights=None, **kwargs)
    if tvm.ResNet34_Weights.verify(weights) is None and not pretrained:
        return model
    body = FINDERS[resnet34]()
    if not fill(model, body, _read(body.file), "fc"):
        then = OTHER if body.which == "file" else RESTORE
        raise BodyError(f"{body.file} holds the weights of another network than resnet34; {then}.")
    return model


# With this, fastai cuts, splits and normalises our resnet34 exactly as it does torchvision's.
model_meta[resnet34] = model_meta[tvm.resnet34]
# How to find the trained body of each architecture that this tutorial brings.
FINDERS = {resnet34: lambda: _choose(_wanted())}


def body_in_use(arch=resnet34):
    """Return the sentence that says which body an architecture will have, and why.

    Where BODY allows it, ImageNet's file is looked for now, and downloaded if need be. As the
    reader has the sentence then, `arch` will not print it again; all others are told anew, so that
    a second Run All in one kernel says what the first one said.

    Raises
    ------
    BodyError
        If BODY has another value, or the body that it asks for can't be had.
    """
    sentence = FINDERS[arch]().sentence
    _said.clear()
    _said.add(sentence)
    return sentence


def _wanted():
    """Return the value of BODY."""
    wanted = os.environ.get("BODY") or "auto"
    if wanted not in ("auto", "imagenet", "bundled") and not wanted.endswith(KINDS):
        raise BodyError(
            f"BODY is {wanted!r}, but it must be auto, imagenet, bundled, or the path of a .pth or"
            " .safetensors file."
        )
    return wanted


@lru_cache  # a dead network is waited for once a process, not once a learner
def _choose(wanted):
    """Find the body that `wanted` asks for."""
    bundled = "The body is the bundled resnet34, trained on generated pictures, because"
    if wanted.endswith(KINDS):
        file = Path(wanted).expanduser()
        if not file.is_file():
            raise BodyError(f"BODY names {file}, but there is no such file.")
        return Body("file", file, f"The body is the resnet34 in {file}, which BODY names.")
    if wanted == "bundled":
        return Body("bundled", _find_bundled(), f"{bundled} BODY=bundled asks for it.")
    try:
        path, how = _find_imagenet()
        sentence = f"The body is a resnet34 trained on ImageNet's 1.3 million photos, {how}."
        return Body("imagenet", path, sentence)
    except (BodyError, DownloadError, OSError) as error:
        why = f"ImageNet's weights can't be had: {error}"
    if wanted == "imagenet":
        raise BodyError(f"BODY=imagenet, but {why}. BODY=bundled needs no network.")
    try:
        return Body("bundled", _find_bundled(), f"{bundled} {why}.")
    except BodyError as error:
        raise BodyError(f"{error} It is needed because {why}.") from None


def fill(model, body, state, last):
    """Put a body's numbers into a network, say so once, and tell whether they fit.

    They do not if a layer is missing, unknown or of another size; then the network is of no use.
    But its `last` layer may be so: a head takes its place. Which body it is, with its checksum, is
    noted in the network for the record of step 28: the file may be another by then.

    Parameters
    ----------
    model : nn.Module
    body : Body
    state : dict of str to Tensor
    last : str
    """
    own = model.state_dict()
    try:
        state = {
            name: numbers
            for name, numbers in state.items()
            if not name.startswith(last) or (name in own and numbers.shape == own[name].shape)
        }
        missing, unknown = model.load_state_dict(state, strict=False)
    except (AttributeError, RuntimeError):  # no names at all, or other sizes
        return False
    # The counters that batch norm keeps for itself may be missing, too.
    missing = [n for n in missing if not n.startswith(last) and "num_batches" not in n]
    if missing or unknown:
        return False
    note = {"which": body.which, "sha256": sha256(body.file)}
    for part in model.children():  # fastai drops the last one and may replace the first
        part.trained_body = note
    if body.sentence not in _said:
        print(body.sentence)
        _said.add(body.sentence)
    return True


def _read(file):
    """Return the numbers in a file by their names; no code that it might hold is run."""
    try:
        with open(file, "rb"):  # safetensors says of a file it may not read that there is none
            pass
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, "cpu", weights_only=True)
    except OSError as error:
        raise BodyError(f"{file} can't be read ({error.strerror}); {OTHER}.") from None
    except Exception:  # PyTorch has half a dozen kinds
        raise BodyError(f"{file} is damaged, or holds more than weights; {OTHER}.") from None


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
    if not path.exists():
        download(IMAGENET_URL, path, IMAGENET_SHA256)
        return path, "downloaded just now"
    try:
        digest = sha256(path)
    except OSError as error:
        raise BodyError(f"{path} can't be read ({error.strerror})") from None
    if digest != IMAGENET_SHA256:
        raise BodyError(
            f"{path} has a wrong checksum; it is not used, and a new download starts only"
            " when you have deleted it"
        )
    return path, "found in the cache"
