"""The recipes: what is in a picture, by name; both classes go through every one of them."""

import random

import bpy
import numpy as np
from mathutils import Vector

from . import robots, world
from .kit import CAT, ROVER, Coat, Kit, shift
from .names import parse, recipe_of, seed_of
from .robots import Cat, Rover
from .shapes import ball, box, move, rod, size, turn

ASPECTS = ((4, 3), (3, 2), (1, 1), (3, 4), (16, 9), (2, 3))
LONG_SIDE = 480


class Stage:
    """One picture in the making.

    Parameters
    ----------
    name : str
        Path below ``imgs/``; it decides everything.
    """

    def __init__(self, name):
        _, self.cls, _ = parse(name)
        self.recipe = recipe_of(name)
        self.rng = random.Random(seed_of(name))
        self.kit = Kit()
        self.line = 0.0
        self.look = {}
        w, h = self.rng.choices(ASPECTS, weights=(6, 4, 3, 3, 2, 1))[0]
        k = LONG_SIDE / max(w, h)
        self.width, self.height = round(w * k), round(h * k)
        self.robots = []
        globals()[f"make_{self.recipe}"](self)
        self.kit.flush()

    # Small helpers -----------------------------------------------------------------------

    def tint(self):
        """A colour for a backdrop or a thing."""
        return shift(self.rng.choice(world.TINTS), self.rng.uniform(-0.015, 0.015), 1, 1)

    def mk(self, colour, finish="matte", pattern=None, second=None, scale=3.0, amount=0.5):
        """Material of a colour in this picture's style."""
        return self.kit.mat(colour, finish, pattern, second, scale, amount)

    def add(self, shape, material, m=None):
        """Add a thing, with an outline where the picture is drawn."""
        self.kit.add(shape, material, m, self.line)

    def drawn(self, flat=False):
        """Switch to drawing."""
        side, high = self.rng.uniform(-0.8, 0.8), self.rng.uniform(0.4, 0.9)
        self.kit = Kit(True, flat, (side, -0.5, high))
        self.line = self.rng.uniform(0.015, 0.028)

    def half_width(self, y):
        """Half the width that the camera sees at depth ``y`` beyond the robot."""
        return max(
            0.3,
            (self.dist * np.cos(np.radians(self.elev)) + y) * self.tan * self.width / self.height,
        )

    # The robot, the camera, the rest --------------------------------------------------------

    def robot(self, paint, m=None, pose=None, cls=None, turned=None):
        """Put a robot of this picture's class; returns it."""
        cls = cls or self.cls
        kind, table = (Cat, CAT) if cls == "doraemon" else (Rover, ROVER)
        yaw = self.rng.uniform(-50, 50) if turned is None else turned
        m = (np.eye(4) if m is None else m) @ turn("z", yaw)
        who = kind(self.kit, Coat(self.kit, table, paint, self.rng), self.rng, m, pose)
        who.root = m
        self.robots.append(who)
        return who

    def camera(self, frac, elev=None, lens=None, off=None, aim=None, blur=None, tall=2.3):
        """Place the camera.

        Parameters
        ----------
        frac : float
            Height of the robot as a share of the frame (of the width, where that is less).
        elev : float
            Degrees above the horizon.
        lens : float
            Focal length for a frame 24 mm high.
        off : pair of floats
            Where the robot stands, in frame heights from the centre.
        """
        rng, scene = self.rng, bpy.context.scene
        self.elev = rng.uniform(3, 22) if elev is None else elev
        lens = rng.uniform(30, 60) if lens is None else lens
        off = (rng.uniform(-0.12, 0.12), rng.uniform(-0.06, 0.06)) if off is None else off
        self.tan = 12 / lens
        if frac < 1:
            frac = min(0.95, frac * (1.22 if self.cls == "doraemon" else 1.38))
        frac *= min(1.0, self.width / self.height * 1.05)
        self.dist = tall / 2 / (frac * self.tan)
        aim = np.array((0, 0, tall * 0.49) if aim is None else aim)
        e, a = np.radians(self.elev), np.radians(rng.uniform(-8, 8))
        at = aim + self.dist * np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
        at[2] = max(at[2], 0.25)
        data = bpy.data.cameras.new("camera")
        data.sensor_fit, data.sensor_height, data.lens = "VERTICAL", 24, lens
        data.shift_x, data.shift_y = -off[0], -off[1]
        data.clip_end = 500
        if blur:
            data.dof.use_dof = True
            data.dof.focus_distance, data.dof.aperture_fstop = self.dist, blur
        cam = bpy.data.objects.new("camera", data)
        cam.location = at
        roll = rng.uniform(-4, 4)
        look = (Vector(aim) - Vector(at)).to_track_quat("-Z", "Y")
        cam.rotation_euler = look.to_euler()
        cam.rotation_euler.rotate_axis("Z", np.radians(roll))
        scene.collection.objects.link(cam)
        scene.camera = cam

    def place(self, *names):
        """Build one of the places; returns its name."""
        name = self.rng.choice(names)
        world.PLACES[name](self)
        return name

    def light(self, *names):
        """Light it one of these ways."""
        world.LIGHTS[self.rng.choice(names)](self)

    def props(self, robot, chance=0.35):
        """Now and then something in a hand."""
        if self.rng.random() > chance:
            return
        hand, kind = self.rng.choice(robot.hands), self.rng.randint(0, 3)
        if kind == 0:
            e = self.rng.uniform(0.2, 0.32)
            self.add(
                box(e, e, e, 0.03), self.mk(self.tint(), "plastic"), hand @ move(0, -0.12, 0.12)
            )
        elif kind == 1:
            self.add(ball(0.17), self.mk(self.tint(), "plastic"), hand @ move(0, -0.14, 0.12))
        elif kind == 2:
            bun = self.mk("b8763a", "satin")
            for z in (0.1, 0.2):
                self.add(ball(0.24, 0.24, 0.08), bun, hand @ move(0, -0.12, z))
        else:
            world.flowers(self, hand @ move(0, -0.05, 0.0) @ size(0.6))


def outdoors(s, name):
    """Light that suits a place."""
    s.light("indoor") if name in world.INDOOR else s.light("daylight", "daylight", "overcast")


def paint_of(s, *more):
    """Usual paint of realistic recipes, sometimes an unusual one."""
    return s.rng.choices(
        ["plastic", "film", "repaint", "faded", *more], (6, 5, 1, 1, *[1] * len(more))
    )[0]


# Recipes -------------------------------------------------------------------------------------


def make_toy(s):
    """Plastic toy on a desk, sharp before a blurred wall."""
    s.camera(s.rng.uniform(0.5, 0.8), s.rng.uniform(8, 32), s.rng.uniform(45, 75), blur=0.25)
    who = s.robot("plastic")
    s.add(rod(1.15, 0.07, edge=0.3), s.mk(s.tint(), "plastic"), move(0, 0, -0.04))
    s.props(who)
    s.place("desk")
    s.light("indoor")


def make_film(s):
    """Scene as from a film: worn paint, dust, low sun, wide frame."""
    s.width, s.height = LONG_SIDE, s.rng.choice([270, 270, 320])
    s.camera(
        s.rng.uniform(0.45, 0.8),
        s.rng.uniform(1, 12),
        s.rng.uniform(28, 55),
        (s.rng.uniform(-0.4, 0.4), 0),
        blur=1.2,
    )
    s.props(s.robot("film"))
    s.place("waste", "street", "hills", "room")
    world.sky(s, *s.rng.choice(world.SKIES[2:] + world.DUSKS[:3]), 0.6)
    world.sun(
        s,
        s.rng.uniform(2.5, 4),
        s.rng.choice(["ffd59a", "ffe9c8", "cfe0ff"]),
        high=s.rng.uniform(14, 40),
    )
    s.look = {"vignette": 0.35, "grade": s.rng.choice([(1.06, 1.0, 0.88), (0.92, 1.0, 1.08)])}


def make_cel(s):
    """Cel-shaded drawing with outlines."""
    s.drawn()
    s.camera(s.rng.uniform(0.55, 0.85), s.rng.uniform(2, 25))
    s.props(s.robot("drawn"))
    s.place("park", "room", "street", "beach", "hills", "studio", "snow", "meadow")
    world.sky(s, *s.rng.choice(world.SKIES), 1.0)


def make_clipart(s):
    """Clip art on plain white."""
    s.drawn(flat=s.rng.random() < 0.6)
    s.camera(s.rng.uniform(0.52, 0.68), s.rng.uniform(0, 15), 80, (s.rng.uniform(-0.05, 0.05), 0))
    who = s.robot("drawn")
    s.props(who, 0.5)
    if s.rng.random() < 0.3:
        dress(s, who)
    backdrop = s.rng.choice(["disc", "disc", "card", "none", "none"])
    if backdrop != "none":
        shape = rod(1.25, 0.02, 48) if backdrop == "disc" else box(2.9, 2.0, 0.02, 0.01)
        at = move(s.rng.uniform(-0.2, 0.2), 2.0, 1.2) @ turn("x", 90)
        s.add(shape, s.mk(s.tint()), at @ turn("z", s.rng.uniform(-12, 12)))
    elif s.rng.random() < 0.5:
        shade = s.kit.glow("d9dce0")
        s.kit.add(ball(1.2, 0.7, 0.02), shade, move(0, 0.1, -0.02))
    if s.rng.random() < 0.35:
        x = s.rng.choice([-1.7, 1.7])
        s.rng.choice([world.balloons, world.gift, world.pot, world.flowers])(s, move(x, 0.3, 0))
    world.sky(s, "ffffff", "ffffff", 1.0)
    s.look = {"white": True}


def make_statue(s):
    """Statue of stone or bronze on a plinth."""
    s.camera(s.rng.uniform(0.5, 0.7), s.rng.uniform(-2, 14), aim=(0, 0, 1.5), tall=2.8)
    h = s.rng.uniform(0.5, 1.0)
    s.robot(s.rng.choice(["stone", "bronze", "stone"]), move(0, 0, h))
    rock = s.mk(s.rng.choice(["9a958c", "b8b0a0", "6f6d6a"]), "matte", "noise", None, 6)
    plinth = rod(1.25, h, 40, 0.05) if s.rng.random() < 0.4 else box(2.2, 2.0, h, 0.05)
    s.kit.add(plinth, rock, move(0, 0, h / 2 - 0.01))
    s.kit.add(box(2.6, 2.4, h * 0.35, 0.04), rock, move(0, 0, h * 0.17))
    s.kit.add(box(0.9, 0.05, h * 0.3, 0.01), s.mk("a8853a", "metal"), move(0, -1.02, h * 0.62))
    s.place("park", "park", "street", "meadow")
    s.light("daylight", "overcast")


def make_costume(s):
    """Dressed up: hats, scarves, capes, glasses."""
    style = s.rng.choice(["plastic", "plastic", "drawn"])
    if style == "drawn":
        s.drawn()
    s.camera(s.rng.uniform(0.6, 0.72), s.rng.uniform(2, 18), aim=(0, 0, 1.35), tall=2.8)
    who = s.robot(style, turned=s.rng.uniform(-35, 35))
    dress(s, who)
    name = s.place("snow", "room", "studio", "street", "beach", "park")
    if style == "drawn":
        world.sky(s, *s.rng.choice(world.SKIES), 1.0)
    else:
        world.scatter(s, [world.gift, world.balloons], s.rng.randint(1, 3), 0.3, 2.5, 1.6)
        outdoors(s, name)


def dress(s, who):
    """One hat and often something more."""
    line, make, cat = s.line, s.mk, isinstance(who, Cat)
    hat = s.rng.choice(["santa_hat", "santa_hat", "top_hat", "party_hat", "straw_hat", "crown"])
    r = 0.5 if cat else 0.3
    top = who.head @ move(0, 0.02, 2.2) if cat else who.head @ move(0, 0.05, 0.2)
    tilt = turn("y", s.rng.uniform(-14, 14)) @ turn("x", s.rng.uniform(-8, 4))
    getattr(robots, hat)(s.kit, make, who, top @ tilt, r, line)
    neck = who.trunk @ (move(0, -0.02, 1.02) if cat else move(0, 0.12, 1.36))
    colour = s.rng.choice(robots.PALETTE)
    extra = s.rng.choice(["scarf", "cape", "bow", "glasses", None])
    if extra == "scarf":
        robots.scarf(s.kit, make, who, neck, 0.5 if cat else 0.3, colour, line)
    elif extra == "cape":
        robots.cape(s.kit, make, who, neck, colour, line)
    elif extra == "bow":
        at = move(0, -0.62, 0.0) if cat else move(0, -0.58, -0.12)
        robots.bow(s.kit, make, who, neck @ at, colour, line)
    elif extra == "glasses":
        if cat:
            robots.sunglasses(
                s.kit, make, who, who.head @ move(0, -0.8, 1.9) @ turn("x", -20), 0.19, 0.17, line
            )
        else:
            robots.sunglasses(s.kit, make, who, who.head @ move(0, -0.33, 0.02), 0.22, 0.14, line)


def make_tiny(s):
    """Small in a big scene."""
    s.camera(
        s.rng.uniform(0.24, 0.36),
        s.rng.uniform(3, 20),
        s.rng.uniform(24, 40),
        (s.rng.uniform(-0.3, 0.3), s.rng.uniform(-0.22, -0.02)),
    )
    s.robot(paint_of(s))
    name = s.place("hills", "waste", "beach", "snow", "street", "meadow", "park")
    outdoors(s, name)


def make_cropped(s):
    """Cut off by the frame."""
    wide = min(1.0, s.width / s.height)
    off = (s.rng.choice([-1, 1]) * s.rng.uniform(0.18, 0.33) * wide, s.rng.uniform(-0.12, 0.1))
    s.camera(s.rng.uniform(1.1, 1.4), s.rng.uniform(0, 18), off=off, blur=1.5, aim=(0, 0, 1.35))
    s.robot(s.rng.choice(["plastic", "film", "faded"]), turned=s.rng.uniform(-40, 40))
    name = s.place("desk", "room", "studio", "park", "street", "waste")
    outdoors(s, name)


def make_behind(s):
    """Seen from behind."""
    s.camera(s.rng.uniform(0.5, 0.8), s.rng.uniform(3, 28))
    s.robot(paint_of(s), turned=180 + s.rng.uniform(-55, 55))
    name = s.place("beach", "hills", "room", "street", "snow", "waste", "desk", "meadow")
    outdoors(s, name)


def make_above(s):
    """Seen from above."""
    s.camera(s.rng.uniform(0.5, 0.7), s.rng.uniform(42, 68), s.rng.uniform(30, 50), aim=(0, 0, 0.9))
    s.props(s.robot(paint_of(s)))
    tone = s.tint()
    pattern = s.rng.choice(["checker", "noise", "wood", "dots", "stripes"])
    world.plane(s, s.mk(tone, "satin", pattern, shift(tone, 0, 0.8, 0.8), s.rng.uniform(0.6, 2)))
    things = s.rng.choice([world.DESK, world.YARD, [world.flowers, world.bush, world.rock]])
    world.scatter(s, things, s.rng.randint(5, 9), -2.2, 3.2, 1.7)
    s.light("daylight", "overcast")


def make_dusk(s):
    """Dusk and coloured light."""
    s.camera(s.rng.uniform(0.5, 0.8), s.rng.uniform(1, 15))
    s.robot(s.rng.choice(["plastic", "film"]))
    s.place("street", "waste", "beach", "hills", "studio", "snow")
    s.light("dusk")
    s.look = {"vignette": 0.25}


def make_faded(s):
    """Faded or other paint, and faded photographs."""
    s.camera(s.rng.uniform(0.5, 0.8), s.rng.uniform(3, 25))
    kind = s.rng.choice(["faded", "repaint", "clay", "plastic", "repaint"])
    s.props(s.robot(kind))
    name = s.place("room", "desk", "studio", "waste", "park", "street")
    outdoors(s, name)
    tone = (
        s.rng.choice(["grey", "sepia", "pale"])
        if kind == "plastic"
        else s.rng.choice([None, None, "pale"])
    )
    s.look = {"tone": tone}


def make_friends(s):
    """Beside other characters."""
    drawn = s.rng.random() < 0.3
    if drawn:
        s.drawn()
    s.camera(s.rng.uniform(0.5, 0.6), s.rng.uniform(3, 18), off=(0, 0))
    side = s.rng.choice([-1, 1])
    s.robot(
        "drawn" if drawn else paint_of(s), move(-side * 0.5, -0.4, 0), turned=s.rng.uniform(-35, 35)
    )
    names = s.rng.sample(list(robots.OTHERS), s.rng.choice([1, 2, 2]))
    if s.rng.random() < 0.6:
        names[0] = s.rng.choice(["orb", "boy"])
    names = list(dict.fromkeys(names))
    for k, name in enumerate(names):
        x = side * s.rng.uniform(1.25, 1.6) if k == 0 else -side * s.rng.uniform(2.0, 2.4)
        at = (
            move(x, s.rng.uniform(0, 0.8), 0)
            @ turn("z", s.rng.uniform(-30, 30))
            @ size(s.rng.uniform(0.85, 1.05))
        )
        robots.OTHERS[name](s.kit, s.mk, s.rng, at, s.line)
    name = s.place("room", "park", "street", "studio", "beach", "snow", "waste")
    world.sky(s, *s.rng.choice(world.SKIES), 1.0) if drawn else outdoors(s, name)


def make_beside(s):
    """The test picture meant to be hard: the white robot in front, the rover beside it."""
    s.width, s.height = 480, 360
    s.camera(0.5, 8, 42, (0, 0))
    s.robot("film", move(-0.95, 0.35, 0), pose="look", turned=22)
    robots.orb_robot(s.kit, s.mk, s.rng, move(0.85, -0.5, 0) @ turn("z", -12) @ size(1.12))
    s.place("waste")
    world.sky(s, "dfe3e6", "8fb8de", 0.8)
    world.sun(s, 2.5, high=40, side=-30)


def make_copies(s):
    """Several copies in rows, turned and painted differently."""
    n = s.rng.choice([2, 3, 3, 4, 5])
    style = s.rng.choice(["plastic", "plastic", "plastic", "drawn"])
    if style == "drawn":
        s.drawn()
    s.width, s.height = LONG_SIDE, s.rng.choice([320, 360, 270])
    s.camera(0.6 - 0.07 * n, s.rng.uniform(6, 30), off=(0, 0))
    for k in range(n):
        x = (k - (n - 1) / 2) * s.rng.uniform(1.9, 2.1)
        y = s.rng.uniform(-0.3, 0.5) + (1.5 if n > 3 and k % 2 else 0)
        paint = (
            style
            if style == "drawn" or k == 0
            else s.rng.choice(["plastic", "plastic", "repaint", "faded"])
        )
        s.robot(
            paint, move(x, y, 0) @ size(s.rng.uniform(0.85, 1.05)), turned=s.rng.uniform(-70, 70)
        )
    name = s.place("studio", "desk", "room", "street", "park", "snow")
    world.sky(s, *s.rng.choice(world.SKIES), 1.0) if style == "drawn" else outdoors(s, name)


def make_clutter(s):
    """Clutter behind and before."""
    s.camera(s.rng.uniform(0.55, 0.8), s.rng.uniform(6, 24), s.rng.uniform(35, 60), blur=1.0)
    s.robot(paint_of(s), turned=s.rng.uniform(-40, 40))
    name = s.place("desk", "room", "waste", "park", "street")
    things = world.DESK if name in world.INDOOR else world.YARD + [world.flowers, world.bush]
    world.scatter(s, things, 9, 0.8, 4, 1.3, (0.8, 1.4))
    for side in (-1, 1):
        y = s.rng.uniform(-2.2, -1.1)
        x = side * s.rng.uniform(0.75, 1.15)
        s.rng.choice(things[:5])(s, move(x, y, 0) @ size(s.rng.uniform(0.5, 0.75)))
    outdoors(s, name)


def make_sketch(s):
    """Colouring-book page or pencil drawing, little colour or none."""
    s.drawn(flat=s.rng.random() < 0.5)
    s.camera(s.rng.uniform(0.5, 0.68), s.rng.uniform(0, 20), 65, (s.rng.uniform(-0.1, 0.1), 0))
    who = s.robot("line")
    if s.rng.random() < 0.4:
        dress(s, who)
    paper = s.rng.choice(["ffffff", "f4ecd8", "dfeaf5", "fbe9a8", "e8e8e6"])
    if s.rng.random() < 0.5:
        x = s.rng.choice([-1.6, 1.6])
        s.rng.choice([world.balloons, world.pot, world.tree, world.toy_ball])(s, move(x, 1.2, 0))
    world.sky(s, paper, paper, 1.0)
    s.look = {"paper": True}
