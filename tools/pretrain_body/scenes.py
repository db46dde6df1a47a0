"""Compose training scenes: a ground, cut-outs in front of it, light and colour that vary.

The same seed gives the same scenes. Nothing is labelled: the teacher says what there is to see.
"""

import math

import cv2
import numpy as np
from pictures import Bank

LUMA = np.array([0.299, 0.587, 0.114])
# How often a cut-out of a package is taken, beside one of another. Tux Paint's are photographs;
# emoji come in several skin colours, and spaceships are many.
WEIGHT = {
    "tuxpaint-stamps-default": 6.0,
    "fonts-noto-color-emoji": 0.3,
    "wesnoth-1.16-data": 0.5,
    "endless-sky-data": 0.4,
}


class Scenes:
    """An endless source of scenes.

    Parameters
    ----------
    folder : Path
        Where `pictures.py` has written its two banks.
    seed : int or sequence of int
    plain_photos : float, default 0.45
        Share of the scenes on a photo that have nothing in front of it.
    """

    def __init__(self, folder, seed, plain_photos=0.45):
        self.rng = np.random.default_rng(seed)
        self.photos, self.cutouts = Bank(folder, "photos"), Bank(folder, "cutouts")
        weights = np.array([WEIGHT.get(source, 1.0) for source in self.cutouts.sources])
        self.chances = np.cumsum(weights / weights.sum())
        self.plain_photos = plain_photos
        cv2.setRNGSeed(int(self.rng.integers(1 << 31)))

    def batch(self, count, side):
        """Return `count` scenes, uint8, shape (count, side, side, 3)."""
        return np.stack([self.scene(side) for _ in range(count)])

    def scene(self, side):
        """Return one scene, uint8, shape (side, side, 3)."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.75:
            scene = self._photo(side)
            figures = (
                0
                if rng.random() < self.plain_photos
                else rng.choice((1, 2, 3), p=(0.6, 0.25, 0.15))
            )
        else:
            scene = self._plain(side)
            figures = rng.choice((1, 2, 3), p=(0.65, 0.2, 0.15))
        for _ in range(figures):
            self._paste(scene, figures)
        return self._develop(scene)

    def _photo(self, side):
        """A part of a photo: any size down to 100 px, a little squeezed, perhaps mirrored."""
        rng = self.rng
        photo = self.photos[rng.integers(len(self.photos))]
        height, width = photo.shape[:2]
        squeeze = math.exp(rng.uniform(-0.2, 0.2))
        largest = min(height * squeeze, width / squeeze)
        cut = math.exp(rng.uniform(math.log(min(100, largest)), math.log(largest)))
        h, w = min(height, int(cut / squeeze)), min(width, int(cut * squeeze))
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        part = photo[y : y + h, x : x + w]
        how = cv2.INTER_AREA if cut > side else cv2.INTER_LINEAR
        scene = cv2.resize(part, (side, side), interpolation=how)
        return np.ascontiguousarray(scene[:, ::-1]) if rng.random() < 0.5 else scene

    def _plain(self, side):
        """White, one colour, or a blend of four."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            return np.full((side, side, 3), 255, np.uint8)
        if kind < 0.7:
            return np.full((side, side, 3), rng.integers(256, size=3), np.uint8)
        corners = rng.integers(256, size=(2, 2, 3)).astype(np.uint8)
        return cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)

    def _paste(self, scene, figures):
        """Put a cut-out into the scene, turned, scaled, and perhaps cut off by the frame."""
        rng, side = self.rng, len(scene)
        cutout = self.cutouts[np.searchsorted(self.chances, rng.random())]
        height, width = cutout.shape[:2]
        scale = side * rng.uniform(0.35, 1.2) / (1 if figures == 1 else 1.5) / max(height, width)
        if scale < 0.5:  # warping alone would skip pixels
            size = (max(2, int(width * scale * 1.5)), max(2, int(height * scale * 1.5)))
            cutout = cv2.resize(cutout, size, interpolation=cv2.INTER_AREA)
            scale *= width / size[0]
            height, width = cutout.shape[:2]
        turn = rng.normal(0, 0.25) if rng.random() < 0.6 else 0.0
        a, b = scale * math.cos(turn), scale * math.sin(turn)
        stretch, mirror = math.exp(rng.uniform(-0.15, 0.15)), rng.choice((-1, 1))
        move = np.array([[a * stretch * mirror, -b], [b * stretch * mirror, a]])
        spread = 0.12 if figures == 1 else 0.25
        centre = side / 2 + rng.normal(0, spread * side, 2)
        offset = centre - move @ (width / 2, height / 2)
        warped = cv2.warpAffine(
            cutout, np.column_stack([move, offset]), (side, side), flags=cv2.INTER_LINEAR
        )
        colours = cv2.convertScaleAbs(warped[..., :3], alpha=rng.uniform(0.75, 1.2))
        alpha = warped[..., 3].astype(np.float32) / 255
        scene[:] = cv2.blendLinear(colours, scene, alpha, 1 - alpha)

    def _develop(self, scene):
        """Exposure, contrast, saturation, white balance; sometimes grey, blurred or noisy."""
        rng = self.rng
        saturation = 0.0 if rng.random() < 0.06 else max(0.2, rng.normal(1, 0.25))
        contrast = max(0.4, rng.normal(1, 0.2))
        balance = np.exp(rng.normal(0, 0.07, 3) + rng.normal(0, 0.2))
        colour = saturation * np.eye(3) + (1 - saturation) * LUMA  # away from grey, or towards it
        shift = (1 - contrast) * float(LUMA @ cv2.mean(scene)[:3])  # the middle stays where it is
        matrix = balance[:, None] * np.column_stack([contrast * colour, np.full(3, shift)])
        scene = cv2.transform(scene, matrix)
        if rng.random() < 0.15:
            scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 1.5) * len(scene) / 128)
        if rng.random() < 0.15:
            noise = cv2.randn(np.empty(scene.shape, np.int16), 0, rng.uniform(3, 15))
            scene = cv2.add(scene, noise, dtype=cv2.CV_8U)
        return scene
