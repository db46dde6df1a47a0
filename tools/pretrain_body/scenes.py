"""Training pictures: creatures before backgrounds, with the answers beside.

Sprites and backgrounds are kept in two banks, each with smaller copies, and put together anew
for every batch by compiled code that lets go of the interpreter lock, so that one thread feeds
the network.
"""

import math

import cv2
import numba as nb
import numpy as np
from creatures import (
    CREATURE_LABELS,
    FLAT,
    HUE_COLUMNS,
    INK,
    SPRITE_LABELS,
    draw_creature,
    draw_palette,
    render_sprite,
)

BACKGROUNDS = ("leaves", "noise", "room", "landscape", "stripes", "plain")
SCENE_LABELS = {"background": len(BACKGROUNDS), "others": 3, "size": 4}
LABELS = CREATURE_LABELS | SPRITE_LABELS | SCENE_LABELS
STYLE_COLUMN = list(LABELS).index("style")
IGNORE = -100  # the class that torch's cross-entropy leaves out

FAMILY = 8  # creatures that share one palette: only shape tells them apart
RENDERS = 4  # sprites of one creature in the bank
HUES, SATURATIONS, VALUES, ANGLES = 8, 4, 4, 16
COLOURS = HUES * SATURATIONS * VALUES
DESCRIPTORS = COLOURS + ANGLES
CELL = 16  # pixels on a side of the smallest described cell
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


# ---------------------------------------------------------------- backgrounds


def _colour(rng, low=0, high=256):
    return tuple(int(v) for v in rng.integers(low, high, 3))


def _leaves(rng, side):
    """Overlapping shapes of power-law size, as in the dead-leaves model."""
    image = np.full((side, side, 3), _colour(rng), np.uint8)
    base, spread = rng.integers(0, 256, 3), rng.uniform(20, 110)
    for _ in range(int(rng.integers(10, 120))):
        colour = tuple(int(v) for v in np.clip(base + rng.normal(0, spread, 3), 0, 255))
        r = int(min(side / 2, 3 + rng.pareto(1.5) * 4))
        x, y = (int(v) for v in rng.integers(0, side, 2))
        shape = rng.random()
        if shape < 0.4:
            cv2.circle(image, (x, y), r, colour, -1, cv2.LINE_AA)
        elif shape < 0.7:
            box = ((x, y), (2 * r, 2 * r * rng.uniform(0.2, 1)), rng.uniform(0, 180))
            cv2.fillPoly(image, [cv2.boxPoints(box).astype(np.int32)], colour, cv2.LINE_AA)
        else:
            corners = np.array([x, y]) + r * rng.normal(size=(int(rng.integers(3, 7)), 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    return image


def _noise(rng, side, channels=3):
    """Coloured noise whose amplitude falls with frequency."""
    image, decay = np.zeros((side, side, channels)), rng.uniform(0.4, 1.0)
    mix = np.eye(channels) * 0.4 + rng.uniform(0, 0.5)
    for octave in range(1, 7):
        grid = rng.normal(size=(2**octave, 2**octave, channels)) @ mix
        grid = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        image += grid.reshape(side, side, channels) * decay**octave
    return image


def _coloured_noise(rng, side):
    image = _noise(rng, side) * rng.uniform(20, 70) + rng.integers(30, 226, 3)
    return image.clip(0, 255).astype(np.uint8)


def _room(rng, side):
    """Wall, floor and furniture, lit from one side and a little out of focus."""
    image = np.empty((side, side, 3))
    floor = int(side * rng.uniform(0.4, 0.85))
    image[:floor], image[floor:] = _colour(rng, 60), _colour(rng, 20, 220)
    if rng.random() < 0.4:  # boards or tiles
        for x in np.linspace(-side, 2 * side, int(rng.integers(8, 30))):
            end = int((x - side / 2) * rng.uniform(1.5, 2.5) + side / 2)
            cv2.line(image, (int(x), floor), (end, side), _colour(rng), 1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 8))):
        x, y = (int(v) for v in rng.integers(0, side, 2))
        w, h = (int(v) for v in rng.integers(5, side // 2, 2))
        width = -1 if rng.random() < 0.7 else 2
        if rng.random() < 0.75:
            cv2.rectangle(image, (x, y), (x + w, y + h), _colour(rng), width)
        else:
            cv2.ellipse(image, (x, y), (w // 2, h // 2), 0, 0, 360, _colour(rng), width)
    image *= np.linspace(rng.uniform(0.6, 1), rng.uniform(0.7, 1.2), side)[None, :, None]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 4))
    return (image + rng.normal(0, rng.uniform(0, 8), image.shape)).clip(0, 255).astype(np.uint8)


def _landscape(rng, side):
    """Sky, hills and grainy ground in natural or odd colours."""
    natural = rng.random() < 0.7
    top = np.array([rng.uniform(80, 200), rng.uniform(120, 220), rng.uniform(150, 255)])
    if not natural:
        top = rng.uniform(0, 255, 3)
    fade = np.linspace(0, 1, side)[:, None, None]
    image = np.broadcast_to(top * (1 - fade) + rng.uniform(120, 255) * fade, (side, side, 3)).copy()
    y = rng.uniform(0.2, 0.6) * side
    x = np.arange(side)
    for _ in range(int(rng.integers(1, 5))):
        green = [rng.uniform(30, 150), rng.uniform(60, 180), rng.uniform(20, 110)]
        colour = np.array(green) if natural else rng.uniform(0, 255, 3)
        f = rng.uniform(0.01, 0.08)
        ridge = y + rng.uniform(0, 20) * np.sin(f * x + rng.uniform(0, 6))
        ridge += rng.uniform(0, 8) * np.sin(5 * f * x)
        ground = x[:, None] >= ridge[None, :]
        grain = _noise(rng, side, 1) * rng.uniform(5, 40)
        image = np.where(ground[..., None], colour + grain, image)
        y += rng.uniform(0.05, 0.3) * side
    return image.clip(0, 255).astype(np.uint8)


def _stripes(rng, side):
    f, turn = rng.uniform(0.05, 0.6), rng.uniform(0, math.pi)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    wave = np.sin(f * (x * np.cos(turn) + y * np.sin(turn)))
    if rng.random() < 0.5:
        wave = wave * np.sin(f * (y * np.cos(turn) - x * np.sin(turn)))
    wave = (wave > 0 if rng.random() < 0.5 else wave * 0.5 + 0.5)[..., None]
    return (rng.integers(0, 256, 3) * wave + rng.integers(0, 256, 3) * (1 - wave)).astype(np.uint8)


def _plain(rng, side):
    colour = (rng.integers(235, 256),) * 3 if rng.random() < 0.6 else _colour(rng)
    image = np.full((side, side, 3), colour, np.float32)
    if rng.random() < 0.4:
        image *= np.linspace(rng.uniform(0.7, 1), 1, side)[:, None, None]
    return image.clip(0, 255).astype(np.uint8)


DRAW = (_leaves, _coloured_noise, _room, _landscape, _stripes, _plain)
SHARE = (0.24, 0.16, 0.22, 0.18, 0.06, 0.14)


def draw_background(rng, side=192):
    """One background and its family.

    Parameters
    ----------
    rng : numpy.random.Generator
    side : int, default 192
        In pixels.

    Returns
    -------
    image : ndarray of uint8, shape (side, side, 3)
    family : int
        Index into `BACKGROUNDS`.
    """
    family = int(rng.choice(len(DRAW), p=SHARE))
    image = DRAW[family](rng, side)
    if family != len(DRAW) - 1 and rng.random() < 0.2:  # a second one behind a ragged edge
        mask = _noise(rng, side, 1) > rng.uniform(0, 1.5)
        image = np.where(mask, DRAW[int(rng.choice(len(DRAW)))](rng, side), image)
    return image, family


# ---------------------------------------------------------------- composition


def shrink(images):
    """Halve height and width by averaging 2 x 2 pixels, shape (n, h, w, c) to (n, h/2, w/2, c)."""
    n, h, w, c = images.shape
    blocks = images.reshape(n, h // 2, 2, w // 2, 2, c).astype(np.uint16)
    return ((blocks.sum((2, 4)) + 2) // 4).astype(np.uint8)


@nb.njit(fastmath=True, cache=True, nogil=True)
def _paste_background(out, image, zoom, x0, y0):
    side, big = out.shape[0], image.shape[0]
    for y in range(side):
        v = min(y0 + zoom * y, big - 1.001)
        iv = int(v)
        fv = v - iv
        for x in range(side):
            u = min(x0 + zoom * x, big - 1.001)
            iu = int(u)
            fu = u - iu
            for c in range(3):
                top = image[iv, iu, c] * (1 - fu) + image[iv, iu + 1, c] * fu
                low = image[iv + 1, iu, c] * (1 - fu) + image[iv + 1, iu + 1, c] * fu
                out[y, x, c] = top * (1 - fv) + low * fv


@nb.njit(fastmath=True, cache=True, nogil=True)
def _paste_sprite(out, cover, sprite, size, cx, cy, turn, flip, aspect, channel):
    """Blend one sprite over `out`; the share of it is kept in cover[..., channel]."""
    side, tile = out.shape[0], sprite.shape[0]
    k = tile / (side * size)
    ca, sa = math.cos(turn) * k, math.sin(turn) * k
    reach = side * size * 0.75
    for y in range(max(0, int(cy - reach)), min(side, int(cy + reach) + 1)):
        for x in range(max(0, int(cx - reach)), min(side, int(cx + reach) + 1)):
            dx, dy = (x - cx) * flip, (y - cy) * aspect
            u, v = ca * dx + sa * dy + tile * 0.5, -sa * dx + ca * dy + tile * 0.5
            if u < 0 or v < 0 or u >= tile - 1 or v >= tile - 1:
                continue
            iu, iv = int(u), int(v)
            fu, fv = u - iu, v - iv
            w00, w01, w10, w11 = (1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv
            a = (
                w00 * sprite[iv, iu, 3]
                + w01 * sprite[iv, iu + 1, 3]
                + w10 * sprite[iv + 1, iu, 3]
                + w11 * sprite[iv + 1, iu + 1, 3]
            ) / 255.0
            if a <= 0:
                continue
            for c in range(3):
                p = (
                    w00 * sprite[iv, iu, c]
                    + w01 * sprite[iv, iu + 1, c]
                    + w10 * sprite[iv + 1, iu, c]
                    + w11 * sprite[iv + 1, iu + 1, c]
                )
                out[y, x, c] = out[y, x, c] * (1 - a) + p
            for c in range(2):
                cover[y, x, c] *= 1 - a
            cover[y, x, channel] += a


@nb.njit(fastmath=True, cache=True, nogil=True)
def _develop(out, grey):
    """Light, contrast, saturation, white balance, a little hue, blur and noise, in place."""
    side = out.shape[0]
    gain, contrast = np.random.uniform(0.65, 1.45), np.random.uniform(0.6, 1.3)
    saturation = 0.0 if grey else np.random.uniform(0.4, 1.5)
    hue = np.random.normal(0.0, 0.08)
    ch, sh = math.cos(hue), math.sin(hue) / math.sqrt(3.0)
    o = (1 - ch) / 3.0
    red, blue = np.random.uniform(0.85, 1.15), np.random.uniform(0.85, 1.15)
    if np.random.random() < 0.15:  # dusk, lamp light
        red, blue = np.random.uniform(0.6, 1.4), np.random.uniform(0.6, 1.4)
    gx, gy = np.random.normal(0.0, 0.25), np.random.normal(0.0, 0.25)
    noise = np.random.uniform(0, 14) if np.random.random() < 0.35 else 0.0
    blur = np.random.random() < 0.25
    if blur:
        for axis in range(2):
            for y in range(side):
                for c in range(3):
                    before = out[y, 0, c] if axis == 0 else out[0, y, c]
                    for x in range(side - 1):
                        if axis == 0:
                            here = out[y, x, c]
                            out[y, x, c] = (before + 2 * here + out[y, x + 1, c]) * 0.25
                        else:
                            here = out[x, y, c]
                            out[x, y, c] = (before + 2 * here + out[x + 1, y, c]) * 0.25
                        before = here
    for y in range(side):
        for x in range(side):
            light = 1 + gx * (x / side - 0.5) + gy * (y / side - 0.5)
            r, g, b = out[y, x, 0] * red, out[y, x, 1], out[y, x, 2] * blue
            r2 = r * (ch + o) + g * (o - sh) + b * (o + sh)
            g2 = r * (o + sh) + g * (ch + o) + b * (o - sh)
            b2 = r * (o - sh) + g * (o + sh) + b * (ch + o)
            m = 0.3 * r2 + 0.59 * g2 + 0.11 * b2
            for c in range(3):
                q = r2 if c == 0 else (g2 if c == 1 else b2)
                q = (((m + (q - m) * saturation) - 110) * contrast + 110) * gain * light
                if noise > 0:
                    q += np.random.normal() * noise
                out[y, x, c] = min(max(q, 0.0), 255.0)


@nb.njit(fastmath=True, cache=True, nogil=True)
def _compose(
    out, cover, info, sprites, sprites2, sprites3, grounds, grounds2, main, other, ground, seed
):
    """Fill out (n, s, s, 3), cover (n, s, s, 2) and info (n, 3): others, size, grey."""
    np.random.seed(seed)
    n, side = out.shape[0], out.shape[1]
    tile, big = sprites.shape[1], grounds.shape[1]
    for b in range(n):
        cover[b] = 0
        zoom = np.random.uniform(0.35, 0.98) * (big - 2) / side
        x0 = np.random.uniform(0, big - 1 - zoom * (side - 1))
        y0 = np.random.uniform(0, big - 1 - zoom * (side - 1))
        if zoom > 1.4:
            _paste_background(out[b], grounds2[ground[b, 0]], zoom / 2, x0 / 2, y0 / 2)
        else:
            _paste_background(out[b], grounds[ground[b, 0]], zoom, x0, y0)
        others = max(0, np.random.randint(-1, 3))  # none in half of the scenes
        before = np.random.random() < 0.3  # one of the others may stand in front
        if np.random.random() < 0.8:
            size = np.random.uniform(0.7, 1.25)
        else:
            size = np.random.uniform(0.32, 1.7)
        info[b, 0], info[b, 1] = (
            others,
            (0 if size < 0.5 else 1 if size < 0.8 else 2 if size < 1.1 else 3),
        )
        order = others - 1 if before and others > 0 else others
        for k in range(others + 1):
            is_main = k == order
            turn, aspect = np.random.normal(0, 0.15), np.random.uniform(0.85, 1.18)
            flip = 1.0 if np.random.random() < 0.5 else -1.0
            if is_main:
                s, i = size, main[b]
                loose = 0.25 if size < 0.6 else 0.13
                cx = side * np.random.uniform(0.5 - loose, 0.5 + loose)
                cy = side * np.random.uniform(0.5 - loose, 0.5 + loose)
            else:
                s, i = np.random.uniform(0.25, 0.65), other[b, k if k < order else k - 1]
                cx, cy = side * np.random.random(), side * np.random.uniform(0.1, 1.0)
                if before and k > order:  # in front, but not over the middle
                    cx = side * (
                        0.5 + (0.5 if cx > side / 2 else -0.5) * np.random.uniform(0.7, 1.1)
                    )
            ratio = tile / (side * s)
            channel = 0 if is_main else 1
            if ratio < 1.5:
                _paste_sprite(out[b], cover[b], sprites[i], s, cx, cy, turn, flip, aspect, channel)
            elif ratio < 3:
                _paste_sprite(out[b], cover[b], sprites2[i], s, cx, cy, turn, flip, aspect, channel)
            else:
                _paste_sprite(out[b], cover[b], sprites3[i], s, cx, cy, turn, flip, aspect, channel)
        if np.random.random() < 0.2:  # clutter in front: a block of another background
            w, h = np.random.randint(side // 8, side // 3), np.random.randint(side // 8, side // 2)
            x1, y1 = np.random.randint(0, side - w), np.random.randint(side // 3, side)
            for y in range(y1, min(side, y1 + h)):
                for x in range(x1, x1 + w):
                    for c in range(3):
                        out[b, y, x, c] = grounds2[ground[b, 1], y % (big // 2), x % (big // 2), c]
                    cover[b, y, x, 0] = 0
                    cover[b, y, x, 1] = 0
        info[b, 2] = 1 if np.random.random() < 0.1 else 0
        _develop(out[b], info[b, 2] == 1)


# ---------------------------------------------------------------- dense targets


@nb.njit(fastmath=True, cache=True, nogil=True)
def _describe(pictures, cover, counts, shares):
    """Colour and edge histograms, and covered shares, of each CELL x CELL block."""
    n, side = pictures.shape[0], pictures.shape[1]
    counts[:] = 0
    shares[:] = 0
    for b in range(n):
        for y in range(side):
            for x in range(side):
                i, j = y // CELL, x // CELL
                r = pictures[b, y, x, 0]
                g = pictures[b, y, x, 1]
                l = pictures[b, y, x, 2]  # noqa: E741
                top, low = max(r, g, l), min(r, g, l)
                d = top - low
                if d < 1e-3:
                    h = 0.0
                elif top == r:
                    h = ((g - l) / d) % 6.0
                elif top == g:
                    h = (l - r) / d + 2.0
                else:
                    h = (r - g) / d + 4.0
                hue = min(7, int(h * (8 / 6.0)))
                sat = min(3, int(4 * d / (top + 1e-3)))
                val = min(3, int(top * (4 / 255.0)))
                counts[b, i, j, hue * 16 + sat * 4 + val] += 1
                if x + 1 < side and y + 1 < side:
                    m = r + g + l
                    gx = (
                        pictures[b, y, x + 1, 0]
                        + pictures[b, y, x + 1, 1]
                        + pictures[b, y, x + 1, 2]
                        - m
                    )
                    gy = (
                        pictures[b, y + 1, x, 0]
                        + pictures[b, y + 1, x, 1]
                        + pictures[b, y + 1, x, 2]
                        - m
                    )
                    strength = math.sqrt(gx * gx + gy * gy)
                    if strength > 6:
                        a = int((math.atan2(gy, gx) / math.pi + 1) * 8) % 16
                        counts[b, i, j, 128 + a] += strength
                shares[b, i, j, 0] += cover[b, y, x, 0]
                shares[b, i, j, 1] += cover[b, y, x, 1]
    shares /= CELL * CELL


def _pool(cells):
    """Add up 2 x 2 cells, shape (n, h, w, c) to (n, h/2, w/2, c)."""
    n, h, w, c = cells.shape
    return cells.reshape(n, h // 2, 2, w // 2, 2, c).sum((2, 4))


def _normalise(counts):
    """Square roots of shares, so that squared error is a Hellinger distance."""
    colour, edge = counts[..., :COLOURS], counts[..., COLOURS:]
    colour = colour / np.maximum(colour.sum(-1, keepdims=True), 1)
    edge = edge / (edge.sum(-1, keepdims=True) + 500)
    return np.sqrt(np.concatenate([colour, edge], -1))


def describe(pictures, cover):
    """Hand-made descriptors of every 16 px and 32 px cell: what the network must keep.

    Parameters
    ----------
    pictures : ndarray of float32, shape (n, side, side, 3)
        RGB in [0, 255]; `side` a multiple of 32.
    cover : ndarray of float32, shape (n, side, side, 2)
        Share of each pixel that belongs to the main creature and to others.

    Returns
    -------
    fine, coarse : ndarray of float32, shapes (n, side/16, side/16, 146) and (n, side/32, ...)
        Square roots of an 8 x 4 x 4 hue-saturation-value histogram and of a 16-bin histogram of
        gradient directions, then the two covered shares.
    """
    n, side = pictures.shape[:2]
    cells = side // CELL
    counts = np.empty((n, cells, cells, DESCRIPTORS), np.float32)
    shares = np.empty((n, cells, cells, 2), np.float32)
    _describe(pictures, cover, counts, shares)
    fine = np.concatenate([_normalise(counts), shares], -1)
    coarse = np.concatenate([_normalise(_pool(counts)), _pool(shares) / 4], -1)
    return fine, coarse


# ---------------------------------------------------------------- the source


class SceneSource:
    """Endless labelled pictures; the same seed gives the same pictures.

    Parameters
    ----------
    seed : int
    creatures : int, default 6000
        In the bank, rounded down to whole families of 8 that share a palette.
    backgrounds : int, default 2500
    tile : int, default 128
        Side of a sprite in pixels.
    fresh : bool, default True
        Replace one family after every fourth batch, so that creatures never run out.
    """

    def __init__(self, seed, creatures=6000, backgrounds=2500, tile=128, fresh=True, progress=None):
        self.rng = np.random.default_rng(seed)
        self.families, self.tile, self.fresh = creatures // FAMILY, tile, fresh
        n = self.families * FAMILY * RENDERS
        self.sprites = [np.zeros((n, tile >> k, tile >> k, 4), np.uint8) for k in range(3)]
        self.labels = np.zeros((n, len(CREATURE_LABELS) + len(SPRITE_LABELS)), np.int64)
        self.oldest = self.batches = 0
        steps = range(self.families)
        for _ in progress(steps) if progress else steps:
            self._replace_family()
        drawn = [draw_background(self.rng) for _ in range(backgrounds)]
        self.grounds = np.stack([image for image, _ in drawn])
        self.grounds2 = shrink(self.grounds)
        self.ground_family = np.array([family for _, family in drawn])

    def _replace_family(self):
        first = self.oldest * FAMILY * RENDERS
        self.oldest = (self.oldest + 1) % self.families
        palette = draw_palette(self.rng)
        tiles, k = np.empty((FAMILY * RENDERS, self.tile, self.tile, 4), np.uint8), 0
        for _ in range(FAMILY):
            creature = draw_creature(self.rng, palette)
            row = creature.label_row()
            for _ in range(RENDERS):
                tiles[k], drawn_as = render_sprite(creature, self.rng, self.tile)
                self.labels[first + k] = np.concatenate([row, drawn_as])
                if drawn_as[0] == INK:
                    self.labels[first + k, [*HUE_COLUMNS, STYLE_COLUMN]] = IGNORE, IGNORE, FLAT
                k += 1
        for level in self.sprites:
            level[first : first + k] = tiles
            tiles = shrink(tiles)

    def batch(self, pairs, side):
        """Two pictures each of `pairs` creatures; half of the creatures come from few families.

        Parameters
        ----------
        pairs : int
            A multiple of 16.
        side : int
            Of the pictures in pixels, a multiple of 32.

        Returns
        -------
        pictures : ndarray of float32, shape (2 * pairs, side, side, 3)
            RGB in [0, 255]; rows i and i + pairs show the same creature.
        labels : ndarray of int64, shape (2 * pairs, 21)
            In the order of `LABELS`; `IGNORE` where the picture cannot tell.
        fine, coarse : ndarray
            See `describe`.
        """
        rng, n = self.rng, 2 * pairs
        related = rng.choice(self.families, pairs // 2 // FAMILY, replace=False)
        related = (related[:, None] * FAMILY + np.arange(FAMILY)).ravel()
        single = rng.choice(self.families * FAMILY, pairs - len(related), replace=False)
        creature = np.concatenate([related, single])
        first = rng.integers(RENDERS, size=pairs)
        second = (first + rng.integers(1, RENDERS, size=pairs)) % RENDERS
        main = np.concatenate([creature * RENDERS + first, creature * RENDERS + second])
        other = rng.integers(len(self.labels), size=(n, 2))
        ground = rng.integers(len(self.grounds), size=(n, 2))
        pictures = np.empty((n, side, side, 3), np.float32)
        cover, info = np.empty((n, side, side, 2), np.float32), np.empty((n, 3), np.int64)
        _compose(
            pictures, cover, info, *self.sprites, self.grounds, self.grounds2,
            main, other, ground, int(rng.integers(1 << 31)),
        )  # fmt: skip
        own = self.labels[main]
        grey = info[:, 2] == 1
        for column in HUE_COLUMNS:
            own[grey, column] = IGNORE
        scene = np.stack([self.ground_family[ground[:, 0]], info[:, 0], info[:, 1]], 1)
        labels = np.concatenate([own, scene], 1)
        self.batches += 1
        if self.fresh and self.batches % 4 == 0:
            self._replace_family()
        return pictures, labels, *describe(pictures, cover)
