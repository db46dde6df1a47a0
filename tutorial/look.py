"""Saliency: which parts of a picture the network's answer depends on (step 21)."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from fastai.callback.hook import hook_output
from fastai.vision.core import TensorImage
from torch.nn import functional as F

GREY = 0  # the patch's value: in a normalised picture 0 is ImageNet's mean colour


def prepare(learn, files):
    """Return pictures as the network gets them and as Matplotlib draws them.

    Parameters
    ----------
    learn : Learner
    files : list of Path

    Returns
    -------
    x : Tensor of shape (n, 3, s, s)
        Normalised.
    drawn : list of ndarray of uint8, each of shape (s, s, 3)
    """
    dl = learn.dls.test_dl(files)
    x = torch.cat([batch[0].as_subclass(torch.Tensor) for batch in dl])
    drawn = dl.decode((TensorImage(x),))[0]
    return x, [picture.permute(1, 2, 0).cpu().numpy().astype("uint8") for picture in drawn]


def grad_cam(learn, x, column):
    """Compute which parts of a picture speak for a class, by Grad-CAM; step 21.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`.
    x : Tensor of shape (1, 3, s, s)
        From `prepare`.
    column : int
        Index of the class.

    Returns
    -------
    Tensor of shape (s, s)
        From 0 to 1, where most speaks for the class.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, https://arxiv.org/abs/1610.02391.
    """
    model = learn.model.eval()
    with torch.enable_grad(), hook_output(model[0], detach=False) as maps:
        output = model(x.requires_grad_())[0, column]
        (slope,) = torch.autograd.grad(output, maps.stored)
    weight = slope.mean((2, 3), keepdim=True)  # of each of the body's maps
    heat = F.relu((weight * maps.stored).sum(1, keepdim=True)).detach()
    heat = F.interpolate(heat, size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max().clamp_min(1e-9)).cpu()


@torch.no_grad()
def occlusion(learn, x, column):
    """Compute a class' probability while a grey patch covers one place after another; step 21.

    Parameters
    ----------
    learn, x, column
        As for `grad_cam`.

    Returns
    -------
    ndarray of shape (p, p)
        The probability for each place of the patch, which is a quarter of the side wide and moves
        by an eighth: p is 7 for a side of 224.

    References
    ----------
    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014,
    https://arxiv.org/abs/1311.2901.
    """
    model, side = learn.model.eval(), x.shape[-1]
    patch, step = _patch(side)
    places = range(0, side - patch + 1, step)
    covered = x.repeat(len(places) ** 2, 1, 1, 1)
    for i, picture in enumerate(covered):
        top, left = places[i // len(places)], places[i % len(places)]
        picture[:, top : top + patch, left : left + patch] = GREY
    chance = torch.cat([model(part).softmax(1)[:, column] for part in covered.split(16)])
    return chance.reshape(len(places), -1).cpu().numpy()


def show_looks(learn, files):
    """Draw each picture with its Grad-CAM and occlusion maps for the predicted class; step 21.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`.
    files : list of Path
    """
    pictures, drawn = prepare(learn, files)
    size = {"figsize": (9, 2.9 * len(files)), "layout": "constrained", "squeeze": False}
    _, axes = plt.subplots(len(files), 3, **size)
    for row, file, x, picture in zip(axes, files, pictures.split(1), drawn, strict=True):
        with torch.no_grad():
            chances = learn.model.eval()(x)[0].softmax(0).tolist()
        guess = chances.index(max(chances))
        for ax in row:
            ax.imshow(picture)
            ax.axis("off")
        heat = grad_cam(learn, x, guess)
        row[1].imshow(heat, alpha=0.5, cmap="magma", vmin=0, vmax=1)
        low = occlusion(learn, x, guess)
        image = row[2].imshow(
            low, alpha=0.5, cmap="cividis", vmin=0, vmax=1, extent=_middle(x.shape[-1], len(low))
        )
        plt.colorbar(image, ax=row[2], shrink=0.8)
        title = f"{Path(file).name}\n{learn.dls.vocab[guess]}, {chances[guess]:.1%}"
        row[0].set_title(title, fontsize=10)
        row[1].set_title("what speaks for it", fontsize=10)
        row[2].set_title(f"covered here: {low.min():.0%} to {low.max():.0%}", fontsize=10)
    plt.show()


def _patch(side):
    """Return the patch's width and step in pixels: 56 and 28 for a side of 224."""
    return side // 4, side // 8


def _middle(side, places):
    """Return the extent for `imshow` that puts each value at the centre of its patch."""
    patch, step = _patch(side)
    low = (patch - step) / 2
    high = low + places * step
    return low, high, high, low
