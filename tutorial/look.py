"""Where does the network look? Heat maps, and a test that covers part of a picture."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from fastai.callback.hook import hook_output
from fastai.vision.core import TensorImage
from torch.nn import functional as F

GREY = 0  # of the covering patch; pictures are normalised, so 0 is the mean colour


def prepare(learn, files):
    """Return pictures as the network meets them, shape (n, 3, s, s), and as one can draw them."""
    dl = learn.dls.test_dl(files)
    x = torch.cat([batch[0].as_subclass(torch.Tensor) for batch in dl])
    drawn = dl.decode((TensorImage(x),))[0]
    return x, [picture.permute(1, 2, 0).cpu().numpy().astype("uint8") for picture in drawn]


def grad_cam(learn, x, column):
    """Find which places of one picture speak for a class, by Grad-CAM.

    Parameters
    ----------
    learn : Learner
        From `vision_learner`.
    x : Tensor of shape (1, 3, s, s)
        From `prepare`.
    column : int
        Number of the class.

    Returns
    -------
    Tensor of shape (s, s)
        0 where nothing speaks for it, 1 where most does.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, https://arxiv.org/abs/1610.02391.
    """
    model = learn.model.eval()
    with torch.enable_grad(), hook_output(model[0], detach=False) as maps:
        output = model(x.requires_grad_())[0, column]
        (slope,) = torch.autograd.grad(output, maps.stored)
    weight = slope.mean((2, 3), keepdim=True)  # how much each of the body's maps counts
    heat = F.relu((weight * maps.stored).sum(1, keepdim=True)).detach()
    heat = F.interpolate(heat, size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max().clamp_min(1e-9)).cpu()


@torch.no_grad()
def occlusion(learn, x, column):
    """Cover one part of a picture after another, and note what becomes of a class' probability.

    Parameters
    ----------
    learn, x, column
        As for `grad_cam`.

    Returns
    -------
    ndarray of shape (7, 7) where 8 divides the side s, as with 224
        Probability with a grey patch, a quarter of the side wide, at each place.

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
    """Draw each picture, its heat map for the guess, and what covering each place does to it."""
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
    """Return how wide the covering patch is and how far it moves, in pixels: 56 and 28 of 224."""
    return side // 4, side // 8


def _middle(side, places):
    """Return the extent for `imshow` that puts each number where the middle of its patch lay."""
    patch, step = _patch(side)
    low = (patch - step) / 2
    high = low + places * step
    return low, high, high, low
