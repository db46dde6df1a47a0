"""Places: ground, backdrop, clutter and sky round the robots, and the light on them."""

import bpy
import numpy as np

from . import shapes as sh
from .kit import linear, shift
from .robots import flat
from .shapes import ball, bend, box, cone, lathe, move, rod, size, tube, turn

# Backdrops take the blues and yellows of both robots as often as anything else, so that the
# colours of a picture alone do not tell its class.
TINTS = (
    "2f7fd0 1f5fa8 a9d3f5 4aa3d8 e8b52e f6dc8c c48a2a e0a030 "
    "c9503c e98f7a 5f9e5a 9cc48a 3f6b4a ece7da d8d2c4 b9b4aa 8f8c88 6f5a8f c79bc0 8a5a3c f3f0ea "
    "b8405a 7f9c94 5a5f66 d9b8a6"
).split()


def plane(s, material, z=0.0, wide=90.0):
    """Ground of side ``2 * wide`` at height z."""
    p = np.array([[[-wide, -wide, z], [wide, -wide, z]], [[-wide, wide, z], [wide, wide, z]]])
    s.kit.add(sh.sheet(p, np.zeros_like(p) + [0, 0, 1.0]), material)


def wall(s, material, y, high=14.0, wide=40.0):
    """Upright plane across the view at depth y."""
    p = np.array([[[-wide, y, -0.1], [wide, y, -0.1]], [[-wide, y, high], [wide, y, high]]])
    s.kit.add(sh.sheet(p, np.zeros_like(p) + [0, -1.0, 0]), material)


# Things --------------------------------------------------------------------------------------


def books(s, m):
    """Pile of books."""
    z = 0.0
    for _ in range(s.rng.randint(2, 5)):
        h = s.rng.uniform(0.12, 0.25)
        at = m @ move(0, 0, z + h / 2) @ turn("z", s.rng.uniform(-15, 15))
        s.add(box(1.3, 0.95, h, 0.02, 1), s.mk(s.tint(), "satin"), at)
        s.add(box(1.27, 0.98, h * 0.7, 0.01, 1), s.mk("efe8d6"), at @ move(0.02, 0, 0))
        z += h


def mug(s, m):
    """Mug with pencils or without."""
    skin = s.mk(s.tint(), "plastic")
    s.add(lathe([(0, 0), (0.38, 0), (0.4, 0.85), (0.36, 0.85), (0.34, 0.1), (0, 0.1)]), skin, m)
    s.add(sh.place(sh.ring(0.25, 0.06, 24, 8), move(0.42, 0, 0.42) @ turn("x", 90)), skin, m)
    for _ in range(s.rng.randint(0, 5)):
        a, b = (s.rng.uniform(-0.2, 0.2) for _ in range(2))
        s.add(tube([(a, b, 0.2), (a * 2.2, b * 2.2, 1.5)], 0.045, 6), s.mk(s.tint()), m)


def blocks(s, m):
    """Toy blocks, some on others."""
    for k in range(s.rng.randint(2, 5)):
        e = s.rng.uniform(0.35, 0.6)
        at = move(s.rng.uniform(-0.6, 0.6), s.rng.uniform(-0.4, 0.4), e / 2 + (0.5 if k > 3 else 0))
        at = m @ at @ turn("z", s.rng.uniform(0, 90))
        s.add(box(e, e, e, 0.04), s.mk(s.tint(), "plastic"), at)


def toy_ball(s, m):
    """Striped ball."""
    r = s.rng.uniform(0.3, 0.6)
    skin = s.mk(s.tint(), "plastic", "stripes", s.tint(), 5)
    s.add(ball(r), skin, m @ move(0, 0, r))


def pot(s, m):
    """Plant in a pot."""
    skin = s.mk(s.rng.choice(["b5623c", "e8e2d6", s.tint()]), "satin")
    s.add(cone(0.3, 0.55, 24, 0.4), skin, m)
    leaf = s.mk(s.rng.choice(["3f7d3c", "5c9a4a", "2f6048"]), "satin")
    for _ in range(s.rng.randint(6, 12)):
        a, h = s.rng.uniform(0, 360), s.rng.uniform(0.5, 1.2)
        line = bend((0, 0, 0.5), (0.1, 0, 0.5 + h), (0.5, 0, 0.4 + h), n=7)
        s.add(tube(line, [0.02, 0.05, 0.08, 0.1, 0.09, 0.06, 0.01], 6), leaf, m @ turn("z", a))


def lamp(s, m):
    """Desk lamp."""
    skin = s.mk(s.tint(), "plastic")
    s.add(rod(0.4, 0.1), skin, m @ move(0, 0, 0.05))
    s.add(tube([(0, 0, 0.1), (0.25, 0, 1.2), (-0.2, 0, 2.1)], 0.05, 8), skin, m)
    s.add(sh.place(cone(0.45, 0.5, 24, 0.15), move(-0.3, 0, 1.8) @ turn("y", 20)), skin, m)


def crate(s, m):
    """Box, worn."""
    e = s.rng.uniform(0.5, 1.1)
    skin = s.mk(s.rng.choice(["9a6b3f", "7a7f85", s.tint()]), "matte", "noise", None, 5)
    at = m @ move(0, 0, e / 2) @ turn("z", s.rng.uniform(0, 90))
    s.add(box(e * 1.2, e, e, 0.03), skin, at)
    s.add(box(e * 1.23, e * 0.16, e * 1.03, 0.02), s.mk("6e4a2b"), at)


def tyre(s, m):
    """Tyre, lying or leaning."""
    at = m @ move(0, 0, 0.2) if s.rng.random() < 0.5 else m @ move(0, 0, 0.6) @ turn("y", 80)
    s.add(sh.ring(0.42, 0.19, 24, 10), s.mk("26262a", "rubber"), at)


def barrel(s, m):
    """Oil drum."""
    skin = s.mk(s.tint(), "satin", "noise", "6b3a1c", 4, amount=0.4)
    s.add(rod(0.42, 1.2), skin, m @ move(0, 0, 0.6))
    for z in (0.35, 0.85):
        s.add(sh.ring(0.42, 0.035, 24, 6), skin, m @ move(0, 0, z))


def rock(s, m):
    """Rock."""
    r = s.rng.uniform(0.2, 0.6)
    skin = s.mk(s.rng.choice(["8d8880", "a59a86", "6f7378"]), "matte", "noise", None, 4)
    at = m @ turn("z", s.rng.uniform(0, 180)) @ flat(1.3, 0.9, 0.7)
    s.add(ball(r, n=10), skin, at @ move(0, 0, r * 0.5))


def flowers(s, m):
    """A few flowers."""
    stem, petal = s.mk("4a8a3a"), s.mk(s.tint(), "satin")
    for _ in range(s.rng.randint(3, 6)):
        x, y, h = s.rng.uniform(-0.5, 0.5), s.rng.uniform(-0.5, 0.5), s.rng.uniform(0.3, 0.8)
        s.add(tube([(x, y, 0), (x, y, h)], 0.025, 5), stem, m)
        s.add(ball(0.15, 0.15, 0.06, n=12), petal, m @ move(x, y, h) @ turn("x", 50))
        s.add(ball(0.06, n=8), s.mk("f0c030"), m @ move(x, y - 0.05, h + 0.03))


def bush(s, m):
    """Bush."""
    leaf = s.mk(s.rng.choice(["3c6f33", "557f3a", "2f5a3c"]), "matte", "noise", "9bbf5a", 6)
    for _ in range(4):
        at = move(s.rng.uniform(-0.5, 0.5), s.rng.uniform(-0.3, 0.3), s.rng.uniform(0.2, 0.5))
        s.add(ball(s.rng.uniform(0.35, 0.6), n=16), leaf, m @ at)


def tree(s, m):
    """Tree with a round crown."""
    h = s.rng.uniform(2.2, 3.6)
    s.add(tube([(0, 0, 0), (0.1, 0, h / 2), (0, 0, h)], [0.28, 0.2, 0.15], 8), s.mk("6b4a30"), m)
    leaf = s.mk(
        s.rng.choice(["4b7f38", "6d9440", "386b3c", "c9a23a", "b5622e"]), "matte", "noise", None, 3
    )
    for _ in range(6):
        at = [s.rng.uniform(-0.9, 0.9), s.rng.uniform(-0.8, 0.8), h + s.rng.uniform(-0.2, 1.1)]
        s.add(ball(s.rng.uniform(0.6, 1.0), n=16), leaf, m @ move(*at))


def fir(s, m):
    """Fir tree."""
    leaf = s.mk(s.rng.choice(["2c5a3a", "3a6b4a"]), "matte", "noise", "e8eef2", 3, amount=0.4)
    s.add(rod(0.15, 0.8, 8), s.mk("5a3f28"), m @ move(0, 0, 0.4))
    for k in range(4):
        s.add(cone(1.15 - 0.26 * k, 1.3, 14, 0.05), leaf, m @ move(0, 0, 0.6 + 0.75 * k))


def house(s, m):
    """Tower block with windows."""
    w, d, h = s.rng.uniform(3, 6), s.rng.uniform(3, 5), s.rng.uniform(4, 16)
    lit = s.rng.choice(["33465c", "9fc3df", "f2d27a", "20262e"])
    skin = s.mk(lit, "satin", "windows", s.tint(), s.rng.uniform(0.5, 0.9))
    s.add(box(w, d, h, 0.05, 1), skin, m @ move(0, 0, h / 2))


def lamp_post(s, m):
    """Street lamp."""
    skin = s.mk("3a3f45", "metal")
    s.add(tube(bend((0, 0, 0), (0, 0, 4.5), (0, 0, 4.8), (0.9, 0, 4.8)), 0.07, 8), skin, m)
    s.add(ball(0.18, n=14), s.kit.glow("ffe2a0", 4), m @ move(0.95, 0, 4.7))


def car(s, m):
    """Small car."""
    skin, dark = s.mk(s.tint(), "plastic"), s.mk("1d2024", "rubber")
    s.add(box(3.6, 1.6, 0.65, 0.2), skin, m @ move(0, 0, 0.65))
    s.add(box(1.9, 1.45, 0.6, 0.22), s.mk("22303c", "glass"), m @ move(-0.1, 0, 1.2))
    s.add(box(1.6, 1.4, 0.1, 0.05), skin, m @ move(-0.1, 0, 1.5))
    for x in (-1.15, 1.15):
        for y in (-0.75, 0.75):
            s.add(sh.place(rod(0.36, 0.25, 18), turn("x", 90)), dark, m @ move(x, y, 0.36))


def bench(s, m):
    """Park bench."""
    wood = s.mk("8a5f3a", "satin", "wood", None, 4)
    for y, z in ((-0.2, 0.5), (0, 0.5), (0.2, 0.5), (0.3, 0.75), (0.33, 0.95)):
        s.add(box(2.0, 0.15, 0.06, 0.01, 1), wood, m @ move(0, y, z))
    for x in (-0.8, 0.8):
        s.add(box(0.08, 0.5, 0.5, 0.02, 1), s.mk("30343a", "metal"), m @ move(x, 0.05, 0.25))


def umbrella(s, m):
    """Beach umbrella."""
    skin = s.mk(s.tint(), "satin", "stripes", s.tint(), 3)
    s.add(tube([(0, 0, 0), (0.2, 0, 2.6)], 0.05, 8), s.mk("e8e4da"), m)
    s.add(cone(1.7, 0.7, 24, 0.02), skin, m @ move(0.18, 0, 2.1) @ turn("y", 8))


def gift(s, m):
    """Wrapped present."""
    e = s.rng.uniform(0.4, 0.8)
    skin, band = s.mk(s.tint(), "satin"), s.mk(s.tint(), "satin")
    at = m @ turn("z", s.rng.uniform(0, 90)) @ move(0, 0, e / 2)
    s.add(box(e, e, e, 0.02, 1), skin, at)
    s.add(box(e * 0.2, e * 1.02, e * 1.02, 0.01, 1), band, at)
    s.add(box(e * 1.02, e * 0.2, e * 1.02, 0.01, 1), band, at)
    for k in (-1, 1):
        loop = sh.ring(0.12, 0.03, 16, 6)
        s.add(sh.place(loop, turn("x", 90)), band, at @ move(k * 0.12, 0, e / 2 + 0.08))


def balloons(s, m):
    """Three balloons on strings."""
    for k in range(3):
        x, z = (k - 1) * 0.5 + s.rng.uniform(-0.1, 0.1), s.rng.uniform(2.0, 3.2)
        s.add(ball(0.33, 0.33, 0.4, n=20), s.mk(s.tint(), "plastic"), m @ move(x, 0, z))
        s.add(tube([(x, 0, z - 0.4), (0, 0, 0.2)], 0.012, 5), s.mk("f0f0f0"), m)


def scrap(s, m):
    """Tower of pressed scrap cubes."""
    n = s.rng.randint(2, 6)
    for k in range(n):
        skin = s.mk(s.rng.choice(["7d6a55", "8f8578", s.tint()]), "matte", "noise", "4a3a2c", 3)
        at = m @ move(s.rng.uniform(-0.1, 0.1), 0, 0.4 + 0.8 * k) @ turn("z", s.rng.uniform(-9, 9))
        s.add(box(0.85, 0.85, 0.8, 0.03, 1), skin, at)


def sofa(s, m):
    """Sofa."""
    cloth = s.mk(s.tint(), "matte")
    s.add(box(3.4, 1.3, 0.7, 0.12), cloth, m @ move(0, 0, 0.45))
    s.add(box(3.4, 0.4, 1.1, 0.15), cloth, m @ move(0, 0.55, 0.95))
    for x in (-1.65, 1.65):
        s.add(box(0.4, 1.35, 1.0, 0.15), cloth, m @ move(x, 0, 0.55))
    for x in (-0.9, 0.7):
        at = m @ move(x, 0.15, 1.1) @ turn("x", -20) @ turn("y", s.rng.uniform(-15, 15))
        s.add(box(0.7, 0.25, 0.7, 0.12), s.mk(s.tint(), "satin"), at)


def shelf(s, m):
    """Bookshelf, filled."""
    wood = s.mk(s.rng.choice(["8a5f3a", "e8e2d6", "5a4636"]), "satin")
    for z in (0.05, 1.15, 2.25, 3.35):
        s.add(box(2.6, 0.6, 0.08, 0.01, 1), wood, m @ move(0, 0, z))
        x = -1.2
        while x < 1.1 and z < 3:
            w, h = s.rng.uniform(0.1, 0.3), s.rng.uniform(0.55, 0.95)
            s.add(
                box(w, 0.45, h, 0.01, 1), s.mk(s.tint()), m @ move(x + w / 2, 0, z + h / 2 + 0.05)
            )
            x += w + (0.6 if s.rng.random() < 0.15 else 0.01)
    for x in (-1.3, 1.3):
        s.add(box(0.08, 0.6, 3.4, 0.01, 1), wood, m @ move(x, 0, 1.7))


def picture(s, m):
    """Framed picture, flat shapes."""
    w, h = s.rng.uniform(1, 2), s.rng.uniform(0.9, 1.6)
    s.add(box(w, 0.08, h, 0.01, 1), s.mk(s.rng.choice(["3a2c20", "e9e4da", "c8a24a"])), m)
    s.add(box(w * 0.86, 0.1, h * 0.84, 0.01, 1), s.mk(s.tint(), "matte", "noise", s.tint(), 2), m)


DESK = [books, mug, blocks, toy_ball, pot, lamp, gift]
YARD = [crate, tyre, barrel, rock, scrap]
PARK = [bush, flowers, rock, bench, tree]


# Places --------------------------------------------------------------------------------------


def scatter(s, things, n, near, far, gap=1.5, scale=(0.7, 1.3)):
    """Things inside the view, clear of the robots.

    Parameters
    ----------
    near, far : float
        Depth range beyond the robot (negative is towards the camera).
    gap : float
        Half width kept free in front of and about the robot.
    """
    for _ in range(n):
        y = s.rng.uniform(near, far)
        half = s.half_width(y)
        x = s.rng.uniform(-half, half)
        if y < 3 and abs(x) < gap:
            x = np.copysign(gap + s.rng.uniform(0, 0.8), x)
        at = move(x, y, 0) @ turn("z", s.rng.uniform(-40, 40)) @ size(s.rng.uniform(*scale))
        s.rng.choice(things)(s, at)


def desk(s):
    """A table with things on it before a blurred wall."""
    top = s.rng.choice(["a8743f", "7a4f2c", "d8b98a", "e9e4dc", s.tint()])
    plane(s, s.mk(top, "satin", "wood", shift(top, 0, 1, 0.72), s.rng.uniform(1, 3)), wide=9)
    wall(s, s.mk(s.tint(), "matte"), 9.0)
    scatter(s, DESK, s.rng.randint(5, 8), 0.5, 6, 1.5, (0.7, 1.4))
    if s.rng.random() < 0.5:
        picture(s, move(s.rng.uniform(-3, 3), 8.9, 3.2) @ size(1.6))


def room(s):
    """A room: floor, wallpaper, window or picture, furniture."""
    floor = s.rng.choice(["a8743f", "7a4f2c", "c9bda8", s.tint()])
    kind = s.rng.choice(["wood", "checker", "noise"])
    plane(s, s.mk(floor, "satin", kind, shift(floor, 0, 0.9, 0.75), 1.2))
    paper = s.tint()
    pattern = s.rng.choice([None, "stripes", "dots", None])
    back = s.rng.uniform(3.5, 5.5)
    wall(s, s.mk(paper, "matte", pattern, shift(paper, 0, 0.8, 0.85), 2.0), back)
    s.add(box(80, 0.1, 0.35, 0.02, 1), s.mk("efeae0"), move(0, back - 0.05, 0.17))
    left = s.rng.choice([-1, 1])
    s.rng.choice([sofa, shelf])(s, move(left * s.rng.uniform(1.8, 3), back - 0.8, 0))
    if s.rng.random() < 0.6:
        at = move(-left * s.rng.uniform(1, 2.6), back - 0.06, 2.6)
        s.add(box(1.7, 0.1, 1.9, 0.02, 1), s.mk("f0ece4"), at)
        s.add(
            box(1.5, 0.12, 1.7, 0.01, 1),
            s.kit.glow(s.rng.choice(["a8d0f0", "cfe4f5", "f5d9a0"]), 1.5),
            at,
        )
        s.add(box(0.06, 0.14, 1.7, 0.01, 1), s.mk("f0ece4"), at)
    else:
        picture(s, move(-left * s.rng.uniform(1, 2.4), back - 0.06, 2.5))
    scatter(s, [toy_ball, blocks, pot, books, gift], s.rng.randint(2, 5), 0.3, back - 1, 1.6)


def studio(s):
    """A plain coloured ground and wall."""
    tone = s.tint()
    plane(s, s.mk(tone, "matte"))
    wall(s, s.mk(shift(tone, 0, 1, 0.95), "matte"), s.rng.uniform(4, 9))


def park(s):
    """Lawn with trees, a path and benches."""
    plane(
        s, s.mk(s.rng.choice(["5f8f3c", "7aa04a", "4c7a3a", "a39a4a"]), "matte", "noise", None, 1.5)
    )
    if s.rng.random() < 0.5:
        x = s.rng.uniform(-3, 3)
        path = s.mk("cdbf9f", "matte", "noise", None, 4)
        s.add(
            box(1.8, 60, 0.02, 0.005, 1), path, move(x, 15, 0) @ turn("z", s.rng.uniform(-30, 30))
        )
    scatter(s, PARK, s.rng.randint(6, 9), 1.5, 9, 1.7)
    scatter(s, [tree, tree, bush], 12, 9, 26)


def street(s):
    """Tower blocks, lamps and cars."""
    plane(s, s.mk(s.rng.choice(["5a5c60", "77756f", "45474c"]), "matte", "noise", None, 3))
    s.add(box(80, 3, 0.12, 0.03, 1), s.mk("b0aca2", "matte"), move(0, 3.2, 0))
    scatter(s, [house], 9, 11, 24, 1, (0.8, 1.3))
    scatter(s, [car, lamp_post, tree], 5, 3, 8, 2)


def waste(s):
    """Dust, scrap towers and rubble."""
    dust = s.rng.choice(["b98f5a", "a87f55", "8f8678", "c4a06a", "7f8a94"])
    plane(s, s.mk(dust, "matte", "noise", shift(dust, 0, 1, 0.7), 0.8))
    scatter(s, YARD, s.rng.randint(6, 10), 0.5, 7, 1.7)
    scatter(s, [scrap, house, scrap], 12, 8, 24, 1, (1.0, 2.0))


def snow(s):
    """Snow with firs."""
    plane(s, s.mk("eef3f8", "matte", "noise", "d3deea", 0.6))
    scatter(s, [fir, rock, fir], 5, 2.5, 8, 1.8)
    scatter(s, [fir], 12, 8, 24, 1, (0.9, 1.6))
    for _ in range(60):
        y = s.rng.uniform(-2, 6)
        x, z = s.rng.uniform(-1, 1) * s.half_width(y), s.rng.uniform(0.2, 5)
        s.kit.add(ball(0.035, n=6), s.mk("ffffff"), move(x, y, z))


def beach(s):
    """Sand, sea and umbrellas."""
    plane(s, s.mk(s.rng.choice(["e3c88f", "d8bd84", "efdcae"]), "matte", "noise", None, 2))
    sea = s.mk(s.rng.choice(["2f86b8", "3fa6b4", "2a6a9a"]), "glass", "noise", None, 0.6)
    s.add(box(200, 100, 0.1, 0.01, 1), sea, move(0, 7 + 50, 0.02))
    scatter(s, [umbrella, toy_ball, rock, crate], s.rng.randint(3, 6), 0.5, 6, 1.8)


def meadow(s):
    """Field of flowers."""
    grass = s.rng.choice(["6b9a44", "88a850", "c7a63a"])
    plane(s, s.mk(grass, "matte", "noise", None, 1.2))
    scatter(s, [flowers], 34, -1.2, 10, 1.0, (0.6, 1.2))
    scatter(s, [tree, bush], 6, 9, 20)


def hills(s):
    """Wide rolling land, far mountains."""
    base = s.rng.choice(["7f9a4a", "b79a5a", "9a8f80", "5f8a56", "d6b36a"])
    plane(s, s.mk(base, "matte", "noise", shift(base, 0, 1, 0.8), 0.3), wide=200)
    for _ in range(9):
        y = s.rng.uniform(22, 60)
        x, r = s.rng.uniform(-1, 1) * s.half_width(y) * 1.1, s.rng.uniform(4, 14)
        tone = shift(s.rng.choice([base, "7a8aa0", "6f7f6a"]), 0, 0.8, s.rng.uniform(0.8, 1.1))
        s.add(ball(r, r, r * s.rng.uniform(0.3, 0.7), n=24), s.mk(tone), move(x, y, 0))
    scatter(s, [tree, rock, house, fir, bush], 14, 4, 26, 3)


PLACES = {
    f.__name__: f for f in (desk, room, studio, park, street, waste, snow, beach, meadow, hills)
}
INDOOR = {"desk", "room", "studio"}


# Light ---------------------------------------------------------------------------------------

SKIES = [
    ("cfe3f5", "3f86d0"),
    ("e8eef2", "8fb8de"),
    ("f3e2c0", "86a9c9"),
    ("dfe3e6", "b9c0c6"),
    ("f6d9a0", "d99a4a"),
    ("f2e6cc", "e6c27a"),
]
DUSKS = [
    ("f08a3c", "2a3a78"),
    ("d8506a", "33205a"),
    ("f2b04a", "7a3f6a"),
    ("3a5a8a", "0c1430"),
    ("5a3f8a", "100a24"),
]


def sky(s, low, high, strength=1.0):
    """World lit by a gradient from the horizon's colour to the zenith's, with some clouds."""
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    nodes, link = world.node_tree.nodes, world.node_tree.links.new
    where = nodes.new("ShaderNodeTexCoord").outputs["Generated"]
    xyz, ramp = nodes.new("ShaderNodeSeparateXYZ"), nodes.new("ShaderNodeValToRGB")
    link(where, xyz.inputs[0])
    link(xyz.outputs["Z"], ramp.inputs[0])
    ramp.color_ramp.elements[0].color = linear(low)
    ramp.color_ramp.elements[1].color = linear(high)
    ramp.color_ramp.elements[1].position = 0.55
    out = ramp.outputs[0]
    if s.rng.random() < 0.6:
        noise, cut = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeValToRGB")
        stretch = nodes.new("ShaderNodeMapping")
        stretch.inputs["Scale"].default_value = (1, 1, 3.5)
        stretch.inputs["Location"].default_value = [s.rng.uniform(-9, 9) for _ in range(3)]
        link(where, stretch.inputs[0])
        link(stretch.outputs[0], noise.inputs["Vector"])
        noise.inputs["Scale"].default_value = s.rng.uniform(2, 4)
        cut.color_ramp.elements[0].position = 0.52
        cut.color_ramp.elements[1].position = 0.56 if s.kit.drawn else 0.72
        link(noise.outputs[0], cut.inputs[0])
        mix = nodes.new("ShaderNodeMixRGB")
        link(cut.outputs[0], mix.inputs[0])
        link(out, mix.inputs[1])
        mix.inputs[2].default_value = linear(shift(low, 0, 0.35, 1.15))
        out = mix.outputs[0]
    link(out, nodes["Background"].inputs[0])
    nodes["Background"].inputs[1].default_value = strength


def sun(s, energy, colour="fff1dc", high=None, side=None, soft=0.03):
    """Sunlight; ``high`` and ``side`` are degrees."""
    data = bpy.data.lights.new("sun", "SUN")
    data.energy, data.color, data.angle = energy, linear(colour)[:3], soft
    lamp_ = bpy.data.objects.new("sun", data)
    high = s.rng.uniform(30, 65) if high is None else high
    side = s.rng.uniform(-70, 70) if side is None else side
    lamp_.rotation_euler = np.radians([90 - high, 0, side])
    bpy.context.scene.collection.objects.link(lamp_)


def area(s, at, energy, colour="ffffff", wide=2.5, aim=(0, 0, 1.1)):
    """Square lamp at ``at`` aimed at a point."""
    from mathutils import Vector

    data = bpy.data.lights.new("area", "AREA")
    data.energy, data.color, data.size = energy, linear(colour)[:3], wide
    obj = bpy.data.objects.new("area", data)
    obj.location = at
    obj.rotation_euler = (Vector(aim) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(obj)


def daylight(s):
    """Sun and sky."""
    sky(s, *s.rng.choice(SKIES), s.rng.uniform(0.55, 0.85))
    sun(s, s.rng.uniform(1.8, 3.4), s.rng.choice(["fff1dc", "ffffff", "ffe2b0"]))


def overcast(s):
    """Grey sky alone."""
    sky(s, "e4e8ec", s.rng.choice(["b9c4d0", "c9c9c4", "d8cdb8"]), s.rng.uniform(0.9, 1.15))
    sun(s, 0.5, soft=0.6)


def indoor(s):
    """Two soft lamps."""
    tone = s.rng.choice(["fff0d8", "ffffff", "e6f0ff", "ffdfae"])
    sky(s, tone, shift(tone, 0, 1, 0.8), s.rng.uniform(0.3, 0.5))
    side = s.rng.choice([-1, 1])
    area(
        s, (side * s.rng.uniform(2.5, 4.5), -4, s.rng.uniform(4, 6)), s.rng.uniform(350, 600), tone
    )
    area(
        s,
        (-side * 4, -1.5, 3),
        s.rng.uniform(60, 180),
        s.rng.choice(["ffffff", "bcd8ff", "ffd9a0"]),
    )


def dusk(s):
    """Low coloured light from two sides."""
    low, high = s.rng.choice(DUSKS)
    sky(s, low, high, s.rng.uniform(0.45, 0.7))
    glow = s.rng.choice(["ff9a4a", "ff5a7a", "ffc45a", "5a9aff", "ff7ad0", "4ad8d0"])
    sun(s, s.rng.uniform(1.0, 2.0), glow, high=s.rng.uniform(8, 25))
    for k in (-1, 1):
        tone = s.rng.choice(["4a6aff", "ff4a8a", "ffb43a", "3ad0ff", "b45aff", "ffd24a", "5affa0"])
        area(
            s,
            (k * 3.5, s.rng.uniform(-4, -1), s.rng.uniform(1.5, 4)),
            s.rng.uniform(150, 380),
            tone,
        )


LIGHTS = {f.__name__: f for f in (daylight, overcast, indoor, dusk)}
