"""A second renderer, for evaluation only: flat drawings with Skia.

Nothing here is shared with the training pictures, neither creatures nor backgrounds, so what a
body knows about these pictures it has not learned from them.  Needs skia-python.
"""

import colorsys
import math

import numpy as np
import skia

SHAPES = ("oval", "rectangle", "rounded", "triangle", "star", "blob")


def draw_colours(rng):
    """Four colours of a drawn figure, as a list of RGB triples in [0, 1]."""
    hue = rng.random()
    steps = (0, rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.7))
    colours = [
        colorsys.hsv_to_rgb((hue + s) % 1, rng.uniform(0.3, 1), rng.uniform(0.4, 1)) for s in steps
    ]
    return [*colours, (0.1, 0.1, 0.12)]


def draw_figure(rng):
    """A random mirror-symmetric figure: a list of (shape, x, y, w, h, turn, colour, mirrored)."""
    parts = []

    def add(x, y, w, h, mirrored=False, turn=0.0, shape=None, colour=None):
        shape = str(rng.choice(SHAPES)) if shape is None else shape
        colour = int(rng.integers(3)) if colour is None else colour
        parts.append((shape, x, y, w, h, turn, colour, mirrored))

    bw, bh, hw, hh = rng.uniform(0.14, 0.34, 4)
    neck = 0.1 - bh - hh * 0.7
    if rng.random() < 0.85:
        add(bw * rng.uniform(0.4, 1.0), 0.15 + bh, *rng.uniform(0.06, 0.17, 2), mirrored=True)
    if rng.random() < 0.8:
        add(bw + 0.06, 0.1, *rng.uniform(0.05, 0.2, 2), mirrored=True, turn=rng.uniform(-60, 60))
    if rng.random() < 0.6:
        add(hw * rng.uniform(0.4, 1), neck - hh, *rng.uniform(0.05, 0.18, 2), mirrored=True)
    add(0, 0.1, bw, bh, colour=0)
    add(0, neck, hw, hh)
    if rng.random() < 0.5:
        add(0, 0.12, bw * 0.6, bh * 0.55)
    r = rng.uniform(0.03, 0.09)
    eye = str(rng.choice(["oval", "oval", "rectangle", "star"]))
    add(hw * rng.uniform(0.25, 0.6), neck - hh * 0.15, r, r, True, 0, eye, 3)
    if rng.random() < 0.6:
        add(0, neck + hh * 0.45, hw * rng.uniform(0.1, 0.5), 0.025, colour=3)
    return parts


def _path(shape, w, h, phase):
    path = skia.Path()
    box = skia.Rect.MakeLTRB(-w, -h, w, h)
    if shape == "oval":
        path.addOval(box)
    elif shape == "rectangle":
        path.addRect(box)
    elif shape == "rounded":
        path.addRoundRect(box, w * 0.5, h * 0.5)
    elif shape == "blob":
        path.moveTo(0, -h)
        path.cubicTo(w * 1.6, -h * phase, w * 0.4, h * phase, w * 0.6, h)
        path.lineTo(-w * 0.6, h)
        path.cubicTo(-w * 0.4, h * phase, -w * 1.6, -h * phase, 0, -h)
    else:
        corners = 3 if shape == "triangle" else 10
        for k in range(corners):
            r = 1 if corners == 3 or k % 2 == 0 else 0.5
            x = w * r * math.sin(2 * math.pi * k / corners)
            y = -h * r * math.cos(2 * math.pi * k / corners)
            path.lineTo(x, y) if k else path.moveTo(x, y)
    path.close()
    return path


def _ink(rgb, alpha=1.0):
    return skia.Color4f(*[float(v) for v in np.clip(rgb, 0, 1)], alpha).toColor()


def _background(rng, canvas, side):
    fill = skia.Paint(AntiAlias=True)
    kind = rng.random()
    if kind < 0.15:
        canvas.clear(_ink([rng.uniform(0.9, 1)] * 3))
        return
    two = [_ink(rng.random(3)), _ink(rng.random(3))]
    if kind < 0.6:
        ends = [skia.Point(*(rng.random(2) * side)), skia.Point(*(rng.random(2) * side))]
        fill.setShader(skia.GradientShader.MakeLinear(ends, two))
        canvas.drawPaint(fill)
    else:
        f = rng.uniform(0.005, 0.06, 2)
        canvas.clear(two[0])
        fill.setShader(
            skia.PerlinNoiseShader.MakeTurbulence(f[0], f[1], 4, float(rng.integers(999)))
        )
        canvas.drawPaint(fill)
    for _ in range(int(rng.integers(0, 14))):
        paint = skia.Paint(AntiAlias=True, Color=_ink(rng.random(3), rng.uniform(0.4, 1)))
        if rng.random() < 0.4:
            paint.setStyle(skia.Paint.kStroke_Style)
            paint.setStrokeWidth(rng.uniform(1, 6))
        canvas.save()
        canvas.translate(*(rng.random(2) * side))
        canvas.rotate(rng.uniform(0, 360))
        canvas.drawPath(
            _path(str(rng.choice(SHAPES)), *(rng.uniform(0.03, 0.25, 2) * side), 0.5), paint
        )
        canvas.restore()


def _figure(rng, canvas, side, parts, colours, size, x, y):
    canvas.save()
    canvas.translate(x * side, y * side)
    scale = side / 2 * size
    canvas.scale(scale * (1 if rng.random() < 0.5 else -1) * rng.uniform(0.8, 1.1), scale)
    canvas.rotate(rng.normal(0, 10))
    canvas.skew(rng.normal(0, 0.12), 0)
    outline, shade = rng.random() < 0.5, rng.random() < 0.5
    line = skia.Paint(AntiAlias=True, Style=skia.Paint.kStroke_Style, Color=0xFF141414)
    line.setStrokeWidth(rng.uniform(0.01, 0.03))
    light = rng.uniform(0.75, 1.1)
    colours = [np.array(c) * light + rng.normal(0, 0.04, 3) for c in colours]
    for shape, px, py, w, h, turn, colour, mirrored in parts:
        w, h = w * rng.normal(1, 0.06), h * rng.normal(1, 0.06)
        for flip in (1, -1) if mirrored else (1,):
            canvas.save()
            canvas.translate(px * flip, py)
            canvas.rotate(turn * flip)
            path = _path(shape, w, h, 0.5)
            fill = skia.Paint(AntiAlias=True, Color=_ink(colours[colour]))
            if shade:
                ends = [skia.Point(-w, -h), skia.Point(w, h)]
                dark = _ink(np.array(colours[colour]) * 0.55)
                fill.setShader(skia.GradientShader.MakeLinear(ends, [_ink(colours[colour]), dark]))
            canvas.drawPath(path, fill)
            if outline:
                canvas.drawPath(path, line)
            canvas.restore()
    canvas.restore()


def draw_pictures(rng, figures, each, side=96):
    """Pictures of some figures, each with its own background and up to two strangers beside.

    Parameters
    ----------
    rng : numpy.random.Generator
    figures : list of (parts, colours)
    each : int
        Pictures of every figure.
    side : int, default 96
        In pixels.

    Returns
    -------
    pictures : ndarray of uint8, shape (len(figures) * each, side, side, 3)
    labels : ndarray of int64
        Index into `figures`.
    """
    raw = np.zeros((side, side, 4), np.uint8)
    surface = skia.Surface(raw, colorType=skia.kRGBA_8888_ColorType)
    pictures, labels = [], []
    with surface as canvas:
        for label, (parts, colours) in enumerate(figures):
            for _ in range(each):
                _background(rng, canvas, side)
                for _ in range(int(rng.integers(0, 3))):
                    x, y = rng.uniform(0, 1), rng.uniform(0.2, 0.9)
                    stranger = draw_figure(rng), draw_colours(rng)
                    _figure(rng, canvas, side, *stranger, rng.uniform(0.3, 0.6), x, y)
                x, y = rng.uniform(0.38, 0.62, 2)
                _figure(rng, canvas, side, parts, colours, rng.uniform(0.6, 1.3), x, y)
                pictures.append(raw[..., :3].copy())
                labels.append(label)
    return np.stack(pictures), np.array(labels)
