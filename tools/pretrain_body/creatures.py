"""Toy creatures that no one designed: a genotype, its labels and its pictures.

A creature is a mirror-symmetric assembly of ellipsoids, boxes, cylinders and cones.  Its
decisions (which body, which head, how it moves, which hues) are known, so every picture is
labelled for free.  A picture is ray cast: each part meets the rays of its own bounding square
analytically and a depth buffer keeps the nearest, which gives thousands of sprites a second on
one core.
"""

import colorsys
import math
from dataclasses import dataclass

import numba as nb
import numpy as np

ELLIPSOID, BOX, CYLINDER, CONE = range(4)
ARM, LEG = 1, 2
LEGS, WHEELS, TRACKS, PEDESTAL = range(4)
NO_HEAD = 3
NO_EYES, DISC_EYES, BALL_EYES, TUBE_EYES = range(4)
SHADED, CEL, FLAT, INK = range(4)

# What a creature is: name -> number of classes.
CREATURE_LABELS = {
    "body": 4,
    "body_aspect": 3,
    "head": 4,
    "head_ratio": 3,
    "moves_on": 4,
    "eyes": 4,
    "ears": 4,
    "arms": 4,
    "face_patch": 2,
    "belly_patch": 2,
    "parts": 5,
    "textured_parts": 4,
    "hue_0": 13,
    "value_0": 3,
    "hue_1": 13,
    "value_1": 3,
}
HUE_COLUMNS = [list(CREATURE_LABELS).index(k) for k in ("hue_0", "hue_1")]
# What one picture of it adds: how it is drawn and how far it is turned away.
SPRITE_LABELS = {"style": 3, "turn": 4}  # ink, without paint, counts as flat


@dataclass
class Creature:
    """Parts, palette and labels of one creature.

    Attributes
    ----------
    kind, colour, colour2, texture, group : ndarray of int64, shape (n,)
        Primitive, palette rows, surface pattern and limb of each part.
    position, size, angles, pivot : ndarray of float64, shape (n, 3)
        In units where the picture spans [-1, 1]; x right, y down, z away from the viewer.
    frequency : ndarray of float64, shape (n,)
        Of the surface pattern, in radians per part half-length.
    palette : ndarray of float64, shape (5, 3)
        Main, second and accent colour, a light and a dark one, RGB in [0, 1].
    labels : dict of str to int
        One entry for each of `CREATURE_LABELS`.
    nose_colour, face_colour, head_colour : int
        Palette rows, -1 where there is no such part.
    """

    kind: np.ndarray
    position: np.ndarray
    size: np.ndarray
    angles: np.ndarray
    pivot: np.ndarray
    colour: np.ndarray
    colour2: np.ndarray
    texture: np.ndarray
    frequency: np.ndarray
    group: np.ndarray
    palette: np.ndarray
    labels: dict
    head_colour: int
    face_colour: int
    nose_colour: int

    def label_row(self):
        """Labels in the order of `CREATURE_LABELS`, shape (16,), int64."""
        return np.array([self.labels[k] for k in CREATURE_LABELS], np.int64)


def _hsv(h, s, v):
    return np.array(colorsys.hsv_to_rgb(h % 1, float(np.clip(s, 0, 1)), float(np.clip(v, 0, 1))))


def draw_palette(rng):
    """Five colours, shape (5, 3): main, second, accent, light, dark; one palette in ten is grey."""
    grey = rng.random() < 0.1
    hue = rng.random()
    wheel = (hue, hue + rng.choice([0.5, 0.33, 0.08, 0.15]), rng.random())
    low = 0.0 if grey else 0.15
    high = 0.12 if grey else 1.0
    colours = [_hsv(h, rng.uniform(low, high), rng.uniform(0.4, 1.0)) for h in wheel]
    return np.stack([*colours, np.full(3, rng.uniform(0.8, 1.0)), np.full(3, rng.uniform(0, 0.2))])


def _hue_bin(rgb):
    h, s, v = colorsys.rgb_to_hsv(*rgb)
    return 12 if s < 0.2 else int(h * 12) % 12


def _is_hue(rgb, low, high):
    h, s, v = colorsys.rgb_to_hsv(*rgb)
    return low <= h <= high and s > 0.2 and v > 0.2


def _is_pale(rgb):
    h, s, v = colorsys.rgb_to_hsv(*rgb)
    return s < 0.3 and v > 0.6


def is_replica(creature):
    """Would this creature look like one of the two robots that the tutorial tells apart?

    Rejected are (1) a blue, round head with a pale face or a red nose: the robot cat; and (2) a
    yellow to orange-brown box body with tube eyes or on tracks: the tracked robot.  The hue
    limits are wide, so that neither colour jitter nor the small hue rotation of the scenes can
    carry a neighbour over the line.  As some pictures have no colour, also rejected are, in any
    paint, (3) a round, earless head with face patch and nose over a belly patch, and (4) a box
    body with tube eyes and on tracks.

    Parameters
    ----------
    creature : Creature

    Returns
    -------
    bool
    """
    c, label = creature, creature.labels
    head = c.palette[c.head_colour] if c.head_colour >= 0 else c.palette[0]
    round_head = label["head"] == ELLIPSOID or (
        label["head"] == NO_HEAD and label["body"] == ELLIPSOID
    )
    if round_head and _is_hue(head, 0.46, 0.76):
        pale_face = c.face_colour >= 0 and _is_pale(c.palette[c.face_colour])
        nose = c.palette[c.nose_colour] if c.nose_colour >= 0 else np.zeros(3)
        if pale_face or _is_hue(nose, 0.0, 0.07) or _is_hue(nose, 0.92, 1.0):
            return True
    if round_head and c.face_colour >= 0 and c.nose_colour >= 0:
        if label["belly_patch"] and not label["ears"]:
            return True
    tubes, tracks = label["eyes"] == TUBE_EYES, label["moves_on"] == TRACKS
    yellow = _is_hue(c.palette[0], 0.03, 0.21)
    return label["body"] == BOX and ((tubes and tracks) or (yellow and (tubes or tracks)))


def draw_creature(rng, palette):
    """A random creature in these colours, never a replica of the tutorial's two robots.

    Parameters
    ----------
    rng : numpy.random.Generator
    palette : ndarray of shape (5, 3)
        Several creatures may share one: then only shape tells them apart.

    Returns
    -------
    Creature
    """
    while True:
        creature = _draw_any(rng, palette)
        if not is_replica(creature):
            return creature


def _draw_any(rng, palette):
    parts, label = [], {}
    up = (0.0, math.pi / 2, 0.0)

    def chance(p):
        return rng.random() < p

    def add(kind, pos, size, angles=(0, 0, 0), colour=0, mirror=False, plain=True, group=0, top=0):
        texture = 0 if plain or not chance(0.45) else int(rng.integers(1, 5))
        row = [kind, pos, size, angles, colour, int(rng.integers(4)), texture]
        row += [rng.uniform(3, 14), group, (pos[0], pos[1] - top, pos[2])]
        parts.append(row)
        if mirror:
            twin = list(row)
            twin[1] = (-pos[0], pos[1], pos[2])
            twin[3] = (-angles[0], angles[1], -angles[2])
            twin[9] = (-pos[0], pos[1] - top, pos[2])
            parts.append(twin)

    # body
    w, h, d = rng.uniform(0.17, 0.42), rng.uniform(0.18, 0.42), rng.uniform(0.15, 0.38)
    body = int(rng.choice(4, p=[0.34, 0.34, 0.2, 0.12]))
    upright = body >= CYLINDER
    size, angles = ((w, d, h), up) if upright else ((w, h, d), (0, 0, 0))
    add(body, (0, 0.15, 0), size, angles, 0, plain=chance(0.5))
    label["body"], label["body_aspect"] = body, int(np.digitize(w / h, [0.75, 1.2]))
    if chance(0.4):  # a band or a second block: a torso is rarely one bare solid
        add(
            int(rng.integers(3)),
            (0, 0.15 + h * rng.uniform(-0.6, 0.6), 0),
            (w * 1.06, 0.04, d * 1.06),
            colour=1,
        )

    # head
    head_colour = face_colour = nose_colour = -1
    label["head"], label["head_ratio"] = NO_HEAD, 0
    if chance(0.85):
        hw = rng.uniform(0.14, 0.4)
        hh, hd = hw * rng.uniform(0.6, 1.1), hw * rng.uniform(0.7, 1.1)
        neck = rng.uniform(0, 0.18) if chance(0.3) else 0.0
        hy = 0.15 - h - hh * rng.uniform(0.45, 1.0) - neck
        if neck:
            add(CYLINDER, (0, 0.15 - h - neck * 0.5, 0), (0.05, 0.05, 0.05 + neck), up, 2)
        head = int(rng.choice(3, p=[0.5, 0.35, 0.15]))
        head_colour = int(rng.choice([0, 0, 1, 2]))
        size, angles = ((hw, hd, hh), up) if head == CYLINDER else ((hw, hh, hd), (0, 0, 0))
        add(head, (0, hy, -0.02), size, angles, head_colour, plain=chance(0.85))
        label["head"], label["head_ratio"] = head, int(np.digitize(hw / w, [0.7, 1.1]))
    else:
        hy, hw, hh, hd = 0.15 - h * 0.4, w * 0.8, h * 0.5, d
    front = -0.02 - hd

    # face: patch, eyes, nose, mouth
    label["face_patch"] = int(chance(0.3))
    if label["face_patch"]:
        face_colour = int(rng.choice([1, 2, 3]))
        add(
            int(rng.integers(2)),
            (0, hy + hh * 0.1, front + 0.06),
            (hw * 0.75, hh * 0.7, 0.09),
            colour=face_colour,
        )
    eyes = int(rng.choice(4, p=[0.1, 0.35, 0.35, 0.2]))
    label["eyes"] = eyes
    if eyes:
        r = rng.uniform(0.045, 0.14)
        x, y = max(r * 0.9, hw * rng.uniform(0.25, 0.6)), hy - hh * rng.uniform(-0.1, 0.6)
        ball = int(rng.choice([3, 3, 2, 1]))
        tall = rng.uniform(0.8, 1.5)
        if eyes == TUBE_EYES:
            long = rng.uniform(0.1, 0.22)
            add(CYLINDER, (x, y, front), (r, r, long), colour=int(rng.integers(3)), mirror=True)
            tip = front - long
        else:
            flat = 0.35 if eyes == DISC_EYES else 0.8
            kind = CYLINDER if eyes == DISC_EYES else ELLIPSOID
            add(kind, (x, y, front), (r, r * tall, r * flat), colour=ball, mirror=True)
            tip = front - r * flat * 0.9
        add(ELLIPSOID, (x * 0.95, y, tip), (r * 0.45, r * 0.5, r * 0.25), colour=4, mirror=True)
    if chance(0.55):
        nose_colour = int(rng.choice([0, 1, 2, 4]))
        r = hw * rng.uniform(0.1, 0.28)
        add(
            int(rng.integers(4)),
            (0, hy + hh * 0.25, front - r * 0.5),
            (r, r, r),
            colour=nose_colour,
        )
    if chance(0.5):
        add(BOX, (0, hy + hh * 0.6, front), (hw * rng.uniform(0.15, 0.55), 0.015, 0.03), colour=4)

    # ears, horns or antenna
    label["ears"] = int(rng.choice(4, p=[0.4, 0.2, 0.2, 0.2]))
    if label["ears"] == 3:
        tall = rng.uniform(0.06, 0.16)
        add(CYLINDER, (0, hy - hh - tall, 0), (0.02, 0.02, tall), up, 2)
        add(ELLIPSOID, (0, hy - hh - 2 * tall, 0), (0.05, 0.05, 0.05), colour=1)
    elif label["ears"]:
        kind = ELLIPSOID if label["ears"] == 1 else int(rng.choice([BOX, CONE]))
        size = (rng.uniform(0.04, 0.12), rng.uniform(0.07, 0.2), 0.06)
        tilt = rng.uniform(-0.6, 0.6)
        x, y = hw * rng.uniform(0.4, 0.95), hy - hh * rng.uniform(0.6, 1.0)
        if kind == CONE:
            add(
                kind,
                (x, y, 0),
                (size[0], 0.06, size[1]),
                (0, math.pi / 2, tilt),
                int(rng.integers(3)),
                True,
            )
        else:
            add(kind, (x, y, 0), size, (0, 0, tilt), int(rng.integers(3)), True)

    # arms
    label["arms"] = int(rng.choice(4, p=[0.3, 0.25, 0.25, 0.2]))
    if label["arms"] < 3:
        kind, long, r = label["arms"], rng.uniform(0.12, 0.28), rng.uniform(0.045, 0.1)
        size, pitch = ((r, r, long), math.pi / 2) if kind == CYLINDER else ((r, long, r), 0)
        x, y = w + r, 0.15 - h * 0.4 + long
        add(
            kind, (x, y, 0), size, (0, pitch, 0), int(rng.integers(3)), True, chance(0.6), ARM, long
        )
        if chance(0.7):
            add(
                int(rng.integers(2)),
                (x, y + long, 0),
                (0.08, 0.08, 0.08),
                colour=int(rng.integers(4)),
                mirror=True,
                group=ARM,
                top=2 * long,
            )

    # what it stands on
    moves_on = int(rng.choice(4, p=[0.4, 0.22, 0.2, 0.18]))
    label["moves_on"] = moves_on
    floor = 0.15 + h
    if moves_on == LEGS:
        long, r = rng.uniform(0.07, 0.2), rng.uniform(0.06, 0.13)
        kind = int(rng.integers(3))
        size, pitch = ((r, r, long), math.pi / 2) if kind == CYLINDER else ((r, long, r), 0)
        add(
            kind,
            (w * 0.55, floor + long * 0.7, 0),
            size,
            (0, pitch, 0),
            int(rng.integers(3)),
            True,
            chance(0.6),
            LEG,
            long,
        )
        if chance(0.7):
            add(
                ELLIPSOID,
                (w * 0.55, floor + long * 1.6, -0.05),
                (r * 1.2, 0.06, r * 1.7),
                colour=int(rng.integers(4)),
                mirror=True,
                group=LEG,
                top=2 * long,
            )
    elif moves_on == WHEELS:
        r = rng.uniform(0.09, 0.2)
        side = (math.pi / 2, 0, 0)
        for z in (-0.14, 0.16) if chance(0.5) else (0.0,):
            add(
                CYLINDER,
                (w * 0.9, floor, z),
                (r, r, 0.06),
                side,
                int(rng.choice([1, 2, 4])),
                True,
                chance(0.5),
            )
            add(CYLINDER, (w * 0.9 + 0.02, floor, z), (r * 0.4, r * 0.4, 0.07), side, 3, True)
    elif moves_on == TRACKS:
        r, long = rng.uniform(0.08, 0.15), rng.uniform(0.15, 0.32)
        colour = int(rng.choice([1, 2, 4, 4]))
        side = (math.pi / 2, 0, 0)
        add(
            BOX,
            (w + 0.05, floor, 0),
            (0.09, r, long),
            colour=colour,
            mirror=True,
            plain=chance(0.4),
        )
        for z in (-long, long):
            add(CYLINDER, (w + 0.05, floor, z), (r, r, 0.09), side, colour, True)
            add(CYLINDER, (w + 0.07, floor, z), (r * 0.5, r * 0.5, 0.09), side, 3, True)
    else:
        add(
            int(rng.choice([ELLIPSOID, BOX])),
            (0, floor + 0.05, 0),
            (w * 1.2, 0.07, d * 1.2),
            colour=int(rng.integers(1, 3)),
        )

    # belly, collar, tail
    label["belly_patch"] = int(chance(0.4))
    if label["belly_patch"]:
        add(
            int(rng.integers(2)),
            (0, 0.17, -d + 0.03),
            (w * 0.6, h * 0.55, 0.07),
            colour=int(rng.integers(1, 4)),
        )
    if chance(0.25):
        add(CYLINDER, (0, 0.15 - h * 0.85, 0), (w * 0.75, d * 0.75, 0.035), up, 2)
    if chance(0.3):
        add(int(rng.integers(4)), (0, 0.22, d + 0.08), (0.07, 0.07, 0.18), colour=2)

    label["parts"] = int(np.digitize(len(parts), [9, 13, 17, 21]))
    label["textured_parts"] = min(sum(p[6] > 0 for p in parts), 3)
    for k in range(2):
        label[f"hue_{k}"] = _hue_bin(palette[k])
        label[f"value_{k}"] = int(np.digitize(palette[k].max(), [0.55, 0.8]))
    kind, pos, size, angles, colour, colour2, texture, frequency, group, pivot = zip(
        *parts, strict=True
    )
    return Creature(
        kind=np.array(kind, np.int64),
        position=np.array(pos, float),
        size=np.array(size, float),
        angles=np.array(angles, float),
        pivot=np.array(pivot, float),
        colour=np.array(colour, np.int64),
        colour2=np.array(colour2, np.int64),
        texture=np.array(texture, np.int64),
        frequency=np.array(frequency, float),
        group=np.array(group, np.int64),
        palette=palette,
        labels=label,
        head_colour=head_colour,
        face_colour=face_colour,
        nose_colour=nose_colour,
    )


@nb.njit(cache=True, nogil=True)
def _rotation(yaw, pitch, roll):
    ca, sa = math.cos(yaw), math.sin(yaw)
    cb, sb = math.cos(pitch), math.sin(pitch)
    cc, sc = math.cos(roll), math.sin(roll)
    y = np.array([[ca, 0.0, sa], [0.0, 1.0, 0.0], [-sa, 0.0, ca]])
    x = np.array([[1.0, 0.0, 0.0], [0.0, cb, -sb], [0.0, sb, cb]])
    z = np.array([[cc, -sc, 0.0], [sc, cc, 0.0], [0.0, 0.0, 1.0]])
    return z @ x @ y


FAR = 1e9


@nb.njit(fastmath=True, cache=True, nogil=True)
def _hit(kind, ox, oy, oz, dx, dy, dz):
    """First hit of the ray o + t d with a unit primitive: t and the local normal."""
    if kind == 0:
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        c = ox * ox + oy * oy + oz * oz - 1.0
        disc = b * b - a * c
        if disc < 0:
            return FAR, 0.0, 0.0, 0.0
        t = (-b - math.sqrt(disc)) / a
        return t, ox + t * dx, oy + t * dy, oz + t * dz
    if kind == 1:
        near, far, axis, sign = -FAR, FAR, 0, 0.0
        for i in range(3):
            o = ox if i == 0 else (oy if i == 1 else oz)
            d = dx if i == 0 else (dy if i == 1 else dz)
            if abs(d) < 1e-9:
                if o < -1 or o > 1:
                    return FAR, 0.0, 0.0, 0.0
                continue
            s = -1.0 if d > 0 else 1.0
            t0, t1 = (s - o) / d, (-s - o) / d
            if t0 > near:
                near, axis, sign = t0, i, s
            far = min(far, t1)
        if near > far:
            return FAR, 0.0, 0.0, 0.0
        if axis == 0:
            return near, sign, 0.0, 0.0
        if axis == 1:
            return near, 0.0, sign, 0.0
        return near, 0.0, 0.0, sign
    # Cylinder of radius 1, or cone of radius (1 - z) / 2, along local z in [-1, 1].
    best, nx, ny, nz = FAR, 0.0, 0.0, 0.0
    k = 0.0 if kind == 2 else 0.25
    w = oz - 1.0
    a = dx * dx + dy * dy - k * dz * dz
    b = ox * dx + oy * dy - k * w * dz
    c = ox * ox + oy * oy - (1.0 if kind == 2 else k * w * w)
    disc = b * b - a * c
    if abs(a) > 1e-9 and disc >= 0:
        root = math.sqrt(disc)
        t0, t1 = (-b - root) / a, (-b + root) / a
        for q in range(2):
            t = min(t0, t1) if q == 0 else max(t0, t1)
            z = oz + t * dz
            if -1 <= z <= 1 and t < best:
                best, nx, ny, nz = t, ox + t * dx, oy + t * dy, k * (1.0 - z)
    if abs(dz) > 1e-9:
        for q in range(2 if kind == 2 else 1):
            s = -1.0 if q == 0 else 1.0
            t = (s - oz) / dz
            x, y = ox + t * dx, oy + t * dy
            if x * x + y * y <= 1 and t < best:
                best, nx, ny, nz = t, 0.0, 0.0, s
    return best, nx, ny, nz


@nb.njit(fastmath=True, cache=True, nogil=True)
def _pattern(texture, frequency, x, y, z):
    if texture == 1:  # stripes
        return math.sin(z * frequency) > 0
    if texture == 2:  # dots
        return math.sin(x * frequency) * math.sin(y * frequency) * math.sin(z * frequency) > 0.2
    if texture == 3:  # two-tone
        return z > 0.1
    return texture == 4 and x * x + y * y < 0.4 and z > 0  # patch


@nb.njit(fastmath=True, cache=True, nogil=True)
def _render(
    kind, position, size, angles, pivot, frequency, group, texture, first, second,
    pose, stretch, scale, swing, light, light_colour, ambient, gloss, style, out, depth, part,
):  # fmt: skip
    n, side = kind.shape[0], out.shape[0]
    out[:] = 0
    depth[:] = FAR
    part[:] = -1
    step = 2.0 / side
    # half vector of Blinn's highlight: between the light and the viewer at -z
    hz = light[2] - 1.0
    hl = 1.0 / math.sqrt(light[0] ** 2 + light[1] ** 2 + hz * hz + 1e-9)
    for p in range(n):
        s = size[p] * stretch
        a = _rotation(angles[p, 0], angles[p, 1], angles[p, 2])
        at = position[p].copy()
        if group[p] > 0:
            side_sign = 0.0 if at[0] < 0 else 1.0
            j = 2 * group[p] - 2 + int(side_sign)
            limb = _rotation(0.0, swing[j, 0], swing[j, 1])
            at = limb @ (at - pivot[p]) + pivot[p]
            a = limb @ a
        centre = pose @ (at * stretch) * scale
        full = pose @ a
        inv = np.empty((3, 3))
        for i in range(3):
            for j in range(3):
                inv[i, j] = full[j, i] / (s[i] * scale)
        if kind[p] == 0:
            radius = scale * max(s[0], s[1], s[2])
        else:
            radius = scale * math.sqrt(s[0] ** 2 + s[1] ** 2 + s[2] ** 2)
        x0 = max(0, int((centre[0] - radius + 1) / step))
        x1 = min(side, int((centre[0] + radius + 1) / step) + 2)
        y0 = max(0, int((centre[1] - radius + 1) / step))
        y1 = min(side, int((centre[1] + radius + 1) / step) + 2)
        dx, dy, dz = inv[0, 2], inv[1, 2], inv[2, 2]
        pz = -4.0 - centre[2]
        for y in range(y0, y1):
            py = (y + 0.5) * step - 1 - centre[1]
            for x in range(x0, x1):
                px = (x + 0.5) * step - 1 - centre[0]
                ox = inv[0, 0] * px + inv[0, 1] * py + inv[0, 2] * pz
                oy = inv[1, 0] * px + inv[1, 1] * py + inv[1, 2] * pz
                oz = inv[2, 0] * px + inv[2, 1] * py + inv[2, 2] * pz
                t, nx, ny, nz = _hit(kind[p], ox, oy, oz, dx, dy, dz)
                if t > 1e8 or t - 4.0 >= depth[y, x]:
                    continue
                depth[y, x] = t - 4.0
                part[y, x] = p
                wx = inv[0, 0] * nx + inv[1, 0] * ny + inv[2, 0] * nz
                wy = inv[0, 1] * nx + inv[1, 1] * ny + inv[2, 1] * nz
                wz = inv[0, 2] * nx + inv[1, 2] * ny + inv[2, 2] * nz
                il = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz + 1e-12)
                wx, wy, wz = wx * il, wy * il, wz * il
                lit = max(0.0, wx * light[0] + wy * light[1] + wz * light[2])
                shine = 0.0
                half = (wx * light[0] + wy * light[1] + wz * hz) * hl
                if gloss > 0 and half > 0:
                    shine = gloss * half**24
                sky = ambient * (0.85 - 0.25 * wy)  # more light from above than from below
                if style == 1:
                    lit = 1.0 if lit > 0.35 else 0.4
                    shine = gloss if shine > 0.4 * gloss else 0.0
                    sky = ambient
                elif style == 2:
                    lit, shine, sky = 0.9, 0.0, ambient
                lx, ly, lz = ox + t * dx, oy + t * dy, oz + t * dz
                use_second = _pattern(texture[p], frequency[p], lx, ly, lz)
                for c in range(3):
                    base = second[p, c] if use_second else first[p, c]
                    v = base * (sky + (1 - ambient) * lit * light_colour[c]) + shine
                    out[y, x, c] = 255 if v > 1 else int(v * 255)
                out[y, x, 3] = 255
    if style >= 1:  # ink where parts meet or depth jumps
        for y in range(side - 1):
            for x in range(side - 1):
                i = part[y, x]
                if (
                    i != part[y, x + 1]
                    or i != part[y + 1, x]
                    or abs(depth[y, x] - depth[y, x + 1]) > 0.25
                    or abs(depth[y, x] - depth[y + 1, x]) > 0.25
                ):
                    out[y, x, 0], out[y, x, 1], out[y, x, 2], out[y, x, 3] = 18, 18, 22, 255


def render_sprite(creature, rng, side=128):
    """One picture of a creature on a transparent ground.

    Pose, proportions, limbs, light, paint (a little) and drawing style are drawn anew; the
    creature stays itself.

    Parameters
    ----------
    creature : Creature
    rng : numpy.random.Generator
    side : int, default 128
        In pixels.

    Returns
    -------
    sprite : ndarray of uint8, shape (side, side, 4)
        RGBA, colour zero where transparent.
    labels : ndarray of int64, shape (2,)
        In the order of `SPRITE_LABELS`, where the style may still be `INK`.
    """
    yaw = rng.uniform(-1.1, 1.1) if rng.random() < 0.75 else rng.uniform(-math.pi, math.pi)
    pose = _rotation(yaw, rng.uniform(-0.3, 0.6), rng.normal(0, 0.15))
    light = rng.normal(size=3)
    light[1:] = light[1] - 0.5, -abs(light[2]) - 0.4
    light /= np.linalg.norm(light)
    style = int(rng.choice(4, p=[0.64, 0.23, 0.08, 0.05]))
    gloss = rng.uniform(0, 0.6) if rng.random() < 0.6 else 0.0
    paint = creature.palette * rng.uniform(0.85, 1.15, (5, 1)) + rng.normal(0, 0.03, (5, 3))
    paint = np.full((5, 3), 0.97) if style == INK else paint.clip(0, 1)
    out = np.empty((side, side, 4), np.uint8)
    c = creature
    _render(
        c.kind, c.position, c.size, c.angles, c.pivot, c.frequency, c.group, c.texture,
        paint[c.colour], paint[c.colour2],
        pose, rng.uniform(0.88, 1.14, 3), rng.uniform(0.95, 1.3), rng.normal(0, 0.55, (4, 2)),
        light, rng.uniform(0.85, 1.1, 3), rng.uniform(0.2, 0.6), gloss, min(style, FLAT),
        out, np.empty((side, side)), np.empty((side, side), np.int64),
    )  # fmt: skip
    turn = int(np.digitize(abs(yaw), [0.4, 0.9, 1.9]))
    return out, np.array([style, turn], np.int64)
