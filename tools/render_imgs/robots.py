"""Our own models: the round cat, the tracked rover, and the others who may stand beside them.

Every model stands on z = 0 about the origin and looks along -y; matrix ``m`` puts it in the scene.
"""

import numpy as np

from . import shapes as sh
from .kit import rgb
from .shapes import (
    ball,
    beam,
    bend,
    box,
    decal,
    lathe,
    move,
    on_front,
    place,
    ring,
    rod,
    tube,
    turn,
)

FACE, FACE_R = (0, -0.16, 1.53), (0.665, 0.64, 0.61)
BELLY, BELLY_R = (0, -0.17, 0.66), (0.45, 0.42, 0.43)


def half_disc(w, h, x=0.0, z=0.0, n=24, top=0.0):
    """Outline of a half disc, flat side up (sagging by ``-top``)."""
    a = np.linspace(np.pi, 2 * np.pi, n)
    lower = np.stack([x + w * np.cos(a), z + h * np.sin(a)], -1)
    u = np.linspace(1, -1, 12)[1:-1]
    upper = np.stack([x + w * u, z - top * (1 - u**2)], -1)
    return np.concatenate([lower, upper])


class Cat:
    """The round blue robot cat without ears, about 2.35 high.

    Parameters
    ----------
    kit : Kit
    coat : Coat
    rng : random.Random
        Draws pose and face.
    pose : {None, 'stand', 'walk', 'sit', 'wave', 'cheer', 'point'}
    """

    height = 2.35
    head_top = move(0, 0.02, 2.28)

    def __init__(self, kit, coat, rng, m, pose=None):
        self.kit, self.coat, self.rng, self.m = kit, coat, rng, m
        self.pose = pose or rng.choice(["stand", "walk", "sit", "wave", "cheer", "point", "stand"])
        drop = -0.32 if self.pose == "sit" else 0
        lean = rng.uniform(-5, 5) + (6 if self.pose == "walk" else 0)
        self.trunk = m @ move(0, 0, drop) @ turn("x", lean * 0.6) @ turn("y", lean)
        self.head = (
            self.trunk
            @ move(0, 0, 1.0)
            @ turn("z", rng.uniform(-22, 22))
            @ turn("y", rng.uniform(-10, 10))
            @ turn("x", rng.uniform(-8, 10))
            @ move(0, 0, -1.0)
        )
        self.build()

    def put(self, shape, part, m=None, local=None):
        """Add a part; very thin ones carry no outline."""
        m = self.trunk if m is None else m
        m = m if local is None else m @ local
        line = 0 if part in ("line", "tongue", "mouth") else self.coat.outline
        self.kit.add(shape, self.coat(part), m, line)

    def build(self):
        """All parts."""
        self.face()
        self.body()
        self.arms()
        self.legs()

    def face(self):
        """Head, eyes, nose, mouth and whiskers."""
        rng, head = self.rng, self.head
        self.put(ball(0.81, 0.76, 0.74, n=48), "coat", head, move(0, 0, 1.6))
        self.put(ball(*FACE_R, n=48), "white", head, move(*FACE))
        gaze = np.array([rng.uniform(-0.045, 0.045), rng.uniform(-0.05, 0.05)])
        cross = rng.uniform(0.03, 0.085)
        mood = rng.random()
        for s in (-1, 1):
            at = head @ move(s * 0.178, -0.675, 1.93) @ turn("x", -24) @ turn("z", s * 13)
            self.put(ball(0.178, 0.09, 0.235), "white", at)
            if self.coat.outline == 0:
                self.put(place(ring(0.2, 0.011), turn("x", 90)), "line", at @ flat(0.9, 1, 1.16))
            spot = [gaze[0] - s * cross, gaze[1]]
            if mood < 0.12:
                arc = on_front(np.stack([np.linspace(-0.1, 0.1, 9), lid(9)], -1), *EYE)[0]
                self.put(tube(arc, 0.02), "line", at)
                continue
            p, _ = on_front(np.array(spot), *EYE, lift=0)
            self.put(ball(0.058, 0.03, 0.078, n=20), "line", at, move(*p))
            q = p + [0.018, -0.026, 0.03]
            self.put(ball(0.018, 0.012, 0.022, n=10), "white", at, move(*q))
        p, _ = on_front(np.array([0, 1.70]), FACE, FACE_R)
        self.put(ball(0.105, n=24), "red", head, move(*p))
        self.mouth()
        for s in (-1, 1):
            for k, z in enumerate((1.63, 1.52, 1.41)):
                a, _ = on_front(np.array([s * 0.25, z]), FACE, FACE_R, 0.015)
                b, _ = on_front(np.array([s * 0.56, z + 0.09 * (1 - k)]), FACE, FACE_R, 0.07)
                self.put(tube(bend(a, (a + b) / 2 + [0, -0.05, 0], b, n=8), 0.012, 6), "line", head)
        line = np.stack([np.zeros(8), np.linspace(1.6, 1.36, 8)], -1)
        self.put(tube(on_front(line, FACE, FACE_R, 0.006)[0], 0.012, 6), "line", head)

    def mouth(self):
        """Closed smile, half open or wide open."""
        w, z = self.rng.uniform(0.33, 0.46), 1.40
        kind = self.rng.choice(["smile", "open", "open", "wide"])
        if kind == "smile":
            u = np.linspace(-1, 1, 24)
            curve = np.stack([w * u, z - 0.16 + 0.19 * np.abs(u) ** 2.2], -1)
            self.put(tube(on_front(curve, FACE, FACE_R, 0.004)[0], 0.015, 8), "line", self.head)
            return
        h = 0.18 if kind == "open" else 0.30
        edge = half_disc(w, h, 0, z, top=0.05)
        self.put(decal(edge, FACE, FACE_R, 0.012, 8), "mouth", self.head)
        closed = np.concatenate([edge, edge[:1]])
        self.put(tube(on_front(closed, FACE, FACE_R, 0.01)[0], 0.014, 6), "line", self.head)
        a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        lump = 1 + 0.12 * np.cos(2 * a)
        tongue = np.stack([0.55 * w * np.cos(a) * lump, z - 0.72 * h + 0.22 * h * np.sin(a)], -1)
        self.put(decal(tongue, FACE, FACE_R, 0.022, 5), "tongue", self.head)

    def body(self):
        """Trunk, belly, pocket, collar, bell and tail."""
        self.put(ball(0.57, 0.52, 0.56, n=40), "coat", None, move(0, 0, 0.63))
        self.put(ball(*BELLY_R, n=36), "white", None, move(*BELLY))
        pocket = half_disc(0.3, 0.25, 0, 0.69)
        loop = np.concatenate([pocket, pocket[:1]])
        self.put(tube(on_front(loop, BELLY, BELLY_R, 0.004)[0], 0.014, 6), "line")
        self.put(place(ring(0.47, 0.075), flat(1, 0.95, 0.9)), "red", None, move(0, -0.02, 1.02))
        bell = self.trunk @ move(0, -0.55, 0.93) @ turn("x", 12)
        self.put(ball(0.125, n=24), "gold", bell)
        self.put(ring(0.125, 0.016), "gold", bell, move(0, 0, 0.025))
        self.put(ball(0.03, 0.02, 0.03, n=10), "line", bell, move(0, -0.115, -0.025))
        self.put(tube([(0, -0.115, -0.04), (0, -0.085, -0.1)], 0.01, 6), "line", bell)
        tail = bend((0, 0.45, 0.4), (0, 0.65, 0.42), (0, 0.72, 0.55))
        self.put(tube(tail, 0.03, 8), "line")
        self.put(ball(0.115, n=20), "red", None, move(0, 0.73, 0.58))

    def arms(self):
        """Two bent arms with round hands; ``hands`` remembers where they are."""
        rng = self.rng
        down = [(0.78, -0.1, 0.5), (0.74, -0.35, 0.62), (0.8, 0.1, 0.55), (0.6, -0.55, 0.75)]
        up = [(0.95, -0.1, 1.35), (0.88, -0.35, 1.25), (1.05, 0.0, 1.15)]
        front = [(0.45, -0.85, 0.95), (0.62, -0.8, 1.02), (0.95, -0.45, 1.0)]
        left, right = rng.choice(down), rng.choice(down)
        if self.pose == "wave":
            left = rng.choice(up)
        elif self.pose == "cheer":
            left, right = rng.choice(up), rng.choice(up)
        elif self.pose == "point":
            left = rng.choice(front)
        elif self.pose == "walk":
            left, right = (0.7, -0.5, 0.7), (0.72, 0.35, 0.62)
        if rng.random() < 0.5:
            left, right = right, left
        self.hands = []
        for s, hand in ((-1, left), (1, right)):
            h = np.array(hand) * [s, 1, 1] + [0, 0, rng.uniform(-0.05, 0.05)]
            start = np.array([s * 0.36, -0.02, 0.86])
            mid = (start + h) / 2 + [s * 0.12, 0.05, -0.02]
            self.put(tube(bend(start, mid, h), np.linspace(0.17, 0.14, 14), 16), "coat")
            self.put(ball(0.185, n=24), "white", None, move(*h))
            self.hands.append(self.trunk @ move(*h))

    def legs(self):
        """Two short legs with flat round feet."""
        step = self.rng.uniform(0.12, 0.3) if self.pose == "walk" else 0
        for s in (-1, 1):
            if self.pose == "sit":
                a, b = (s * 0.26, -0.2, 0.2), (s * 0.36, -0.62, 0.2)
                foot = self.m @ move(s * 0.38, -0.7, 0.25) @ turn("x", -70) @ turn("z", s * 12)
            else:
                y = s * step
                a, b = (s * 0.25, 0, 0.42), (s * 0.27, y, 0.14)
                lift = 0.12 if step and s > 0 else 0
                foot = self.m @ move(s * 0.28, y - 0.07, 0.13 + lift) @ turn("x", lift * 150)
            self.put(tube([a, (np.array(a) + b) / 2, b], 0.215, 16), "coat", self.m)
            self.put(ball(0.28, 0.34, 0.15, n=28), "white", foot)


EYE = ((0, 0, 0), (0.178, 0.09, 0.235))


def lid(n):
    """Height of a laughing, closed eye."""
    u = np.linspace(-1, 1, n)
    return 0.05 - 0.09 * u**2


def flat(x, y, z):
    """4x4 matrix of an uneven scaling."""
    return np.diag([x, y, z, 1.0])


class Rover:
    """The boxy yellow robot on tracks with binocular eyes, about 2.2 high.

    Parameters are those of `Cat`; poses are 'look', 'wave', 'reach', 'shy', 'tucked', 'up'.
    """

    height = 2.2

    def __init__(self, kit, coat, rng, m, pose=None):
        self.kit, self.coat, self.rng = kit, coat, rng
        self.pose = pose or rng.choice(["look", "wave", "reach", "shy", "tucked", "up", "look"])
        self.base = m
        self.trunk = m @ move(0, 0, 0.72) @ turn("x", rng.uniform(-7, 5)) @ move(0, 0, -0.72)
        low = {"tucked": -0.3, "shy": -0.12, "up": 0.1}.get(self.pose, rng.uniform(-0.1, 0.06))
        self.head = (
            self.trunk
            @ move(rng.uniform(-0.04, 0.04), -0.06, 1.78 + low)
            @ turn("z", rng.uniform(-28, 28))
            @ turn("y", rng.uniform(-9, 9))
            @ turn("x", rng.uniform(-12, 12) + (10 if self.pose == "shy" else 0))
        )
        self.head_top = np.linalg.inv(m) @ self.head @ move(0, 0.02, 0.2)
        for side in (-1, 1):
            self.track(side)
        self.box()
        self.eyes()
        self.arms()

    def put(self, shape, part, m=None, local=None):
        """Add a part; thin lines carry no outline."""
        m = self.trunk if m is None else m
        m = m if local is None else m @ local
        line = 0 if part in ("line", "lens") else self.coat.outline * 0.8
        self.kit.add(shape, self.coat(part), m, line)

    def track(self, s):
        """One track: belt round three wheels, treads, rollers and cover."""
        base = self.base @ move(s * 0.66, 0, 0)
        wheels = [(-0.5, 0.2, 0.2), (0.5, 0.2, 0.2), (0.1, 0.66, 0.19)]
        loop = hull_of_circles(wheels, 0.055)
        self.put(sh.belt(loop, 0.34, 0.055), "dark", base)
        length = np.linalg.norm(np.roll(loop, -1, 0) - loop, axis=1)
        along = np.concatenate([[0], np.cumsum(length)])
        closed = np.concatenate([loop, loop[:1]])
        for d in np.arange(0, along[-1] - 0.05, 0.135) + self.rng.uniform(0, 0.1):
            y, z = (np.interp(d % along[-1], along, closed[:, k]) for k in (0, 1))
            y2, z2 = (np.interp((d + 0.02) % along[-1], along, closed[:, k]) for k in (0, 1))
            angle = np.degrees(np.arctan2(z2 - z, y2 - y))
            self.put(
                box(0.38, 0.085, 0.05, 0.012, 1), "dark", base @ move(0, y, z) @ turn("x", angle)
            )
        plate = np.array([(y * 0.86, (z - 0.35) * 0.86 + 0.35) for y, z in loop])
        for k in (-1, 1):
            fan = np.stack([np.stack([0 * plate[:, 0] + k * 0.11, *plate.T], -1)] * 2)
            fan[0] = [k * 0.11, 0, 0.35]
            n = np.zeros_like(fan) + [k, 0, 0]
            self.put(sh.sheet(fan, n, wrap_u=True), "panel", base)
        for y, z, r in wheels + [(-0.17, 0.13, 0.1), (0.17, 0.13, 0.1)]:
            at = base @ move(0, y, z) @ turn("y", 90)
            self.put(rod(r * 0.93, 0.28, 24), "metal", at)
            self.put(rod(r * 0.45, 0.32, 16), "dark", at)
            self.put(rod(r * 0.2, 0.35, 10), "metal", at)
        self.put(box(0.2, 0.3, 0.16, 0.03), "metal", self.base @ move(s * 0.5, 0.05, 0.62))

    def box(self):
        """The body: a box with seams, hatch, gauge and lamp."""
        trunk = self.trunk
        self.put(box(0.98, 0.86, 0.8, 0.07), "coat", None, move(0, 0, 0.86))
        self.put(box(1.03, 0.9, 0.1, 0.03), "panel", None, move(0, 0, 1.25))
        self.put(box(0.5, 0.4, 0.06, 0.03), "metal", None, move(0, 0.08, 1.31))
        f = -0.43
        self.put(box(0.8, 0.05, 0.32, 0.02), "panel", None, move(0, f, 1.0))
        self.put(box(0.86, 0.05, 0.3, 0.02), "coat", None, move(0, f, 0.64))
        for z in (0.82, 0.47, 1.18):
            self.put(box(0.9, 0.03, 0.018, 0.004, 1), "line", None, move(0, f - 0.02, z))
        for z in (0.58, 0.66, 0.74):
            self.put(box(0.7, 0.03, 0.022, 0.008, 1), "panel", None, move(0, f - 0.03, z))
        self.put(box(0.26, 0.04, 0.2, 0.02), "dark", None, move(-0.22, f - 0.03, 1.02))
        for k in range(4):
            part = "coat" if k < self.rng.randint(1, 4) else "metal"
            self.put(
                box(0.16, 0.02, 0.02, 0.004, 1), part, None, move(-0.22, f - 0.06, 0.96 + 0.04 * k)
            )
        self.put(rod(0.055, 0.05, 16), "red", trunk @ move(0.1, f - 0.04, 1.07) @ turn("x", 90))
        self.put(rod(0.09, 0.04, 20), "metal", trunk @ move(0.28, f - 0.03, 1.0) @ turn("x", 90))
        self.put(rod(0.05, 0.06, 16), "dark", trunk @ move(0.28, f - 0.04, 1.0) @ turn("x", 90))
        for s in (-1, 1):
            for z in (0.52, 0.78):
                at = trunk @ move(s * 0.4, f - 0.03, z) @ turn("x", 90)
                self.put(rod(0.022, 0.03, 8), "metal", at)
        back = [(0, 0.44, 0.95, 0.7, 0.4), (0, 0.44, 0.6, 0.5, 0.16)]
        for x, y, z, w, h in back:
            self.put(box(w, 0.06, h, 0.02), "panel", None, move(x, y, z))
        for k in range(5):
            self.put(
                box(0.56, 0.03, 0.025, 0.006, 1), "dark", None, move(0, 0.48, 0.82 + 0.065 * k)
            )
        for s in (-1, 1):
            self.put(box(0.06, 0.6, 0.1, 0.02), "metal", None, move(s * 0.51, -0.02, 1.08))

    def eyes(self):
        """Neck and binocular head with lids."""
        rng = self.rng
        top = np.linalg.inv(self.trunk) @ self.head @ [0, 0.06, -0.1, 1]
        neck = bend((0, 0.1, 1.28), (0, 0.2, 1.5), top[:3], n=10)
        self.put(tube(neck, 0.065, 12), "metal")
        for k in (2, 4, 6):
            self.put(ball(0.095, 0.095, 0.05, n=16), "dark", None, move(*neck[k]))
        self.put(box(0.3, 0.16, 0.12, 0.04), "metal", self.head, move(0, 0.06, -0.04))
        sad = rng.uniform(-5, 17)
        brow = rng.random() < 0.7
        squint = rng.choice([-0.02, -0.02, 0.02, 0.07])
        for s in (-1, 1):
            eye = self.head @ move(s * 0.225, 0, 0.02) @ turn("y", s * sad) @ turn("z", s * 4)
            self.put(place(box(0.4, 0.5, 0.36, 0.15, 5), move(0, 0.04, 0)), "shell", eye)
            self.put(place(box(0.2, 0.2, 0.24, 0.08), move(s * 0.05, 0.3, 0)), "metal", eye)
            front = eye @ move(0, -0.22, -0.005) @ turn("x", 90)
            self.put(
                lathe([(0.12, 0), (0.185, 0), (0.185, 0.07), (0.15, 0.085), (0.14, 0)]),
                "metal",
                front,
            )
            self.put(place(ball(0.145, 0.145, 0.05, n=28), move(0, 0, 0.02)), "lens", front)
            self.put(ring(0.075, 0.013, 24, 6), "metal", front, move(0, 0, 0.066))
            self.put(ball(0.03, n=10), "white", front, move(0.055, 0.055, 0.062))
            if brow:
                lid_at = eye @ move(0, -0.2, 0.15 - squint) @ turn("x", 18) @ turn("y", s * 5)
                self.put(box(0.38, 0.17, 0.035, 0.015), "metal", lid_at)

    def arms(self):
        """Two arms from rails at the sides, each with three fingers."""
        rng = self.rng
        low = [(0.74, -0.75, 0.52), (0.78, -0.6, 0.42), (0.66, -0.9, 0.6)]
        high = [(0.95, -0.55, 1.55), (1.05, -0.3, 1.4), (0.85, -0.7, 1.45)]
        front = [(0.5, -1.05, 0.95), (0.62, -1.0, 1.1), (0.75, -1.0, 0.85)]
        shy = [(0.2, -0.72, 0.78)]
        left, right = rng.choice(low), rng.choice(low)
        if self.pose in ("wave", "up"):
            left = rng.choice(high)
        if self.pose == "up" or (self.pose == "wave" and rng.random() < 0.2):
            right = rng.choice(high)
        if self.pose == "reach":
            left, right = rng.choice(front), rng.choice(front)
        if self.pose == "shy":
            left = right = shy[0]
        if rng.random() < 0.5:
            left, right = right, left
        self.hands = []
        for s, hand in ((-1, left), (1, right)):
            w = np.array(hand) * [s, 1, 1] + [0, 0, rng.uniform(-0.04, 0.04)]
            a = np.array([s * 0.57, -0.15, 1.06])
            elbow = (a + w) / 2 + [s * 0.16, 0.06, -0.1]
            self.put(ball(0.11, n=20), "metal", None, move(*a))
            self.put(beam(a, elbow, 0.13, 0.15, 0.03), "coat")
            self.put(ball(0.085, n=16), "dark", None, move(*elbow))
            self.put(beam(elbow, w, 0.1, 0.12, 0.025), "metal")
            d = sh.unit(w - elbow)
            self.put(beam(w - 0.04 * d, w + 0.05 * d, 0.22, 0.16, 0.03), "coat")
            across = sh.unit(np.cross(d, [0, 0, 1.0]))
            over = np.cross(across, d)
            for u, v in ((0.075, 0.04), (-0.075, 0.04), (0, -0.08)):
                root = w + 0.05 * d + u * across + v * over
                knee = root + 0.1 * d + 0.5 * (u * across + v * over)
                tip = knee + 0.1 * d - 0.5 * (u * across + v * over)
                self.put(beam(root, knee, 0.055, 0.05, 0.012), "metal")
                self.put(beam(knee, tip, 0.055, 0.045, 0.012), "metal")
            self.hands.append(self.trunk @ move(*w) @ move(*(0.2 * d)))


def hull_of_circles(circles, grow, n=24):
    """Outline of the belt round circles (y, z, r), counter-clockwise, shape (k, 2)."""
    a = np.linspace(0, 2 * np.pi, 3 * n, endpoint=False)
    d = np.stack([np.cos(a), np.sin(a)], -1)
    reach = np.array([d @ np.array(c[:2]) + c[2] + grow for c in circles])
    which = reach.argmax(0)
    pts = [
        np.array(circles[w][:2]) + (circles[w][2] + grow) * v for w, v in zip(which, d, strict=True)
    ]
    full = []
    for p, q in zip(pts, pts[1:] + pts[:1], strict=True):
        full += list(np.linspace(p, q, max(1, int(np.linalg.norm(q - p) / 0.06)), endpoint=False))
    return np.array(full)


# Others --------------------------------------------------------------------------------------


def orb_robot(kit, make, rng, m, outline=0.0):
    """A white robot with a round head and a dark visor, floating a little."""
    white, visor, eye = make("f4f4f2", "plastic"), make("0a0c10", "glass"), make("57c7ff")
    if not kit.drawn:
        eye = kit.glow("4fc3ff", 2.5)
    up = m @ move(0, 0, rng.uniform(0.05, 0.3)) @ turn("y", rng.uniform(-6, 6))
    body = [(0, 0.05), (0.12, 0.08), (0.28, 0.3), (0.4, 0.65), (0.45, 0.95), (0.43, 1.1)]
    body += [(0.36, 1.22), (0.2, 1.28), (0, 1.3)]
    kit.add(lathe(body, 40, smooth=True), white, up, outline)
    head = up @ move(0, 0, 1.62) @ turn("z", rng.uniform(-15, 15)) @ turn("x", rng.uniform(-6, 10))
    kit.add(ball(0.5, 0.47, 0.44, n=40), white, head, outline)
    kit.add(ball(0.38, 0.2, 0.26, n=36), visor, head @ move(0, -0.31, 0.0), outline * 0.5)
    for s in (-1, 1):
        at = head @ move(s * 0.15, -0.49, 0.02) @ turn("z", s * 14) @ turn("y", s * -12)
        kit.add(ball(0.085, 0.03, 0.06, n=20), eye, at)
        arm = bend((s * 0.5, 0, 1.1), (s * 0.72, -0.02, 0.85), (s * 0.62, -0.1, 0.4))
        kit.add(tube(arm, np.linspace(0.12, 0.06, 14), 14), white, up, outline)


def boy(kit, make, rng, m, outline=0.0):
    """A boy in a yellow shirt and blue shorts."""
    skin, hair = make("f0c39c", "satin"), make(rng.choice(["17120f", "2c1c12"]), "satin")
    shirt, short = make("f3c62b"), make(rng.choice(["27488f", "22335c"]))
    white, ink, glasses = make("f5f5f5"), make("17120f"), rng.random() < 0.7
    for s in (-1, 1):
        kit.add(
            tube([(s * 0.15, 0, 0.8), (s * 0.16, 0, 0.4), (s * 0.16, 0, 0.1)], 0.1),
            skin,
            m,
            outline,
        )
        kit.add(tube([(s * 0.14, 0, 0.95), (s * 0.16, 0, 0.62)], 0.16), short, m, outline)
        kit.add(ball(0.13, 0.22, 0.1), white, m @ move(s * 0.17, -0.06, 0.09), outline)
        z = rng.choice([0.75, 0.8, 1.5])
        hand = (s * 0.62, -0.1, z)
        kit.add(tube(bend((s * 0.25, 0, 1.3), (s * 0.5, 0, 1.15), hand), 0.085), shirt, m, outline)
        kit.add(ball(0.1, n=16), skin, m @ move(*hand), outline)
    kit.add(
        lathe([(0, 0.85), (0.3, 0.85), (0.31, 1.1), (0.24, 1.38), (0, 1.42)]), shirt, m, outline
    )
    head = m @ move(0, 0, 1.75) @ turn("z", rng.uniform(-20, 20)) @ turn("y", rng.uniform(-8, 8))
    kit.add(ball(0.4, 0.38, 0.38), skin, head, outline)
    kit.add(ball(0.43, 0.4, 0.36), hair, head @ move(0, 0.08, 0.11), outline)
    for s in (-1, 1):
        kit.add(ball(0.08, 0.06, 0.1, n=16), skin, head @ move(s * 0.4, 0, -0.02), outline)
        kit.add(ball(0.045, 0.02, 0.065, n=14), ink, head @ move(s * 0.13, -0.365, 0.0))
        if glasses:
            kit.add(place(ring(0.115, 0.014), turn("x", 90)), ink, head @ move(s * 0.13, -0.39, 0))
    kit.add(ball(0.04, n=12), skin, head @ move(0, -0.39, -0.08), outline * 0.5)
    u = np.linspace(-1, 1, 10)
    smile = np.stack([0.12 * u, -0.2 + 0.05 * u**2], -1)
    curve, _ = on_front(smile, (0, 0, 0), (0.4, 0.38, 0.38), 0.004)
    kit.add(tube(curve, 0.012, 6), ink, head)


def bear(kit, make, rng, m, outline=0.0):
    """A sitting teddy bear."""
    fur, pale, ink = (
        make(rng.choice(["8a5a33", "b98a5a", "c9c2b8"])),
        make("e3cfae"),
        make("15110f"),
    )
    kit.add(ball(0.42, 0.38, 0.45), fur, m @ move(0, 0, 0.42), outline)
    kit.add(ball(0.27, 0.2, 0.3), pale, m @ move(0, -0.22, 0.42))
    head = (
        m @ move(0, -0.03, 1.08) @ turn("z", rng.uniform(-20, 20)) @ turn("y", rng.uniform(-12, 12))
    )
    kit.add(ball(0.4, 0.36, 0.36), fur, head, outline)
    kit.add(ball(0.17, 0.14, 0.13), pale, head @ move(0, -0.3, -0.08), outline * 0.5)
    kit.add(ball(0.05, n=12), ink, head @ move(0, -0.43, -0.03))
    for s in (-1, 1):
        kit.add(ball(0.14, 0.07, 0.14), fur, head @ move(s * 0.3, 0, 0.29), outline)
        kit.add(ball(0.04, n=12), ink, head @ move(s * 0.14, -0.33, 0.06))
        kit.add(
            tube(bend((s * 0.35, 0, 0.65), (s * 0.55, -0.1, 0.5), (s * 0.5, -0.3, 0.35)), 0.12),
            fur,
            m,
            outline,
        )
        kit.add(ball(0.17, 0.3, 0.17), fur, m @ move(s * 0.3, -0.38, 0.17), outline)


def duck(kit, make, rng, m, outline=0.0):
    """A rubber duck."""
    skin, bill, ink = make("f5cf22", "plastic"), make("ef7d1a", "plastic"), make("101010")
    kit.add(ball(0.45, 0.6, 0.4), skin, m @ move(0, 0, 0.38), outline)
    kit.add(ball(0.2, 0.3, 0.2), skin, m @ move(0, 0.5, 0.6) @ turn("x", 40), outline)
    kit.add(ball(0.34), skin, m @ move(0, -0.3, 0.95), outline)
    kit.add(ball(0.17, 0.2, 0.06), bill, m @ move(0, -0.66, 0.9), outline)
    for s in (-1, 1):
        kit.add(ball(0.045, n=12), ink, m @ move(s * 0.14, -0.59, 1.05))
        kit.add(ball(0.1, 0.3, 0.2), skin, m @ move(s * 0.43, 0.05, 0.45), outline)


def penguin(kit, make, rng, m, outline=0.0):
    """A penguin in dark blue."""
    coat, white, beak = make(rng.choice(["1d3f7a", "20242e"])), make("f2f2ef"), make("f0a028")
    ink = make("0d0d0d")
    kit.add(ball(0.42, 0.38, 0.62), coat, m @ move(0, 0, 0.66), outline)
    kit.add(ball(0.32, 0.25, 0.5), white, m @ move(0, -0.18, 0.6))
    kit.add(ball(0.34, 0.32, 0.31), coat, m @ move(0, 0, 1.38), outline)
    kit.add(
        place(sh.cone(0.08, 0.22, 16), turn("x", 90)), beak, m @ move(0, -0.27, 1.35), outline * 0.5
    )
    for s in (-1, 1):
        kit.add(ball(0.06, 0.03, 0.07, n=14), white, m @ move(s * 0.12, -0.29, 1.47))
        kit.add(ball(0.03, n=10), ink, m @ move(s * 0.12, -0.32, 1.47))
        kit.add(
            ball(0.08, 0.2, 0.4), coat, m @ move(s * 0.45, 0, 0.7) @ turn("y", s * -20), outline
        )
        kit.add(ball(0.15, 0.22, 0.06), beak, m @ move(s * 0.18, -0.15, 0.06), outline)


def snowman(kit, make, rng, m, outline=0.0):
    """A snowman with a carrot."""
    snow, ink, carrot = make("f3f6fa"), make("121212"), make("ec7a1c")
    for z, r in ((0.42, 0.48), (1.08, 0.36), (1.58, 0.26)):
        kit.add(ball(r), snow, m @ move(0, 0, z), outline)
    kit.add(
        place(sh.cone(0.06, 0.35, 12), turn("x", 90)),
        carrot,
        m @ move(0, -0.22, 1.58),
        outline * 0.5,
    )
    for s in (-1, 1):
        kit.add(ball(0.035, n=10), ink, m @ move(s * 0.1, -0.23, 1.66))
        kit.add(tube([(s * 0.3, 0, 1.2), (s * 0.85, -0.1, 1.5)], 0.025, 6), make("4a321f"), m)
    for z in (0.95, 1.08, 1.22):
        kit.add(ball(0.04, n=10), ink, m @ move(0, -0.35, z))


OTHERS = {
    "orb": orb_robot,
    "boy": boy,
    "bear": bear,
    "duck": duck,
    "penguin": penguin,
    "snowman": snowman,
}


# What they wear --------------------------------------------------------------------------------


def santa_hat(kit, make, robot, m, r, outline=0.0):
    """Red cap with white brim and bobble."""
    red, white = make("c81e24"), make("f7f5f0")
    kit.add(ring(r, r * 0.2), white, m, outline)
    line = bend((0, 0, 0), (0, 0.02, r * 1.7), (r * 0.5, 0.05, r * 1.9), (r * 1.2, 0, r * 0.9))
    kit.add(tube(line, np.linspace(r, r * 0.12, 14), 24), red, m, outline)
    kit.add(ball(r * 0.26), white, m @ move(r * 1.25, 0, r * 0.85), outline)


def top_hat(kit, make, robot, m, r, outline=0.0):
    """Black top hat with a band."""
    ink, band = make("1a1a20", "satin"), make("b5202a")
    kit.add(rod(r * 1.45, r * 0.1), ink, m, outline)
    kit.add(rod(r * 0.95, r * 1.5), ink, m @ move(0, 0, r * 0.75), outline)
    kit.add(rod(r * 0.98, r * 0.3), band, m @ move(0, 0, r * 0.25))


def party_hat(kit, make, robot, m, r, outline=0.0):
    """Striped cone."""
    skin = make("e84f8a", "satin", "stripes", "35b7c9", 9)
    kit.add(sh.cone(r * 0.8, r * 2.0), skin, m, outline)
    kit.add(ball(r * 0.2), make("ffe14a"), m @ move(0, 0, r * 2.0), outline)


def straw_hat(kit, make, robot, m, r, outline=0.0):
    """Straw hat with a ribbon."""
    straw, ribbon = make("dcb76a", "matte", "noise", "b98f45", 14), make("2757a8")
    kit.add(lathe([(0, 0), (r * 1.8, -0.04), (r * 1.8, 0), (0, 0.05)]), straw, m, outline)
    kit.add(ball(r * 0.95, r * 0.95, r * 0.75), straw, m @ move(0, 0, r * 0.1), outline)
    kit.add(rod(r * 0.99, r * 0.22), ribbon, m @ move(0, 0, r * 0.16))


def crown(kit, make, robot, m, r, outline=0.0):
    """Golden crown."""
    gold, gem = make("e8b92c", "metal"), make("b3202f", "glass")
    kit.add(
        lathe(
            [(r * 0.85, 0), (r * 0.9, 0), (r * 0.95, r * 0.5), (r * 0.9, r * 0.5), (r * 0.85, 0)]
        ),
        gold,
        m,
        outline,
    )
    for k in range(7):
        at = m @ turn("z", k * 360 / 7) @ move(r * 0.93, 0, r * 0.45)
        kit.add(sh.cone(r * 0.3, r * 0.55, 8), gold, at, outline)
        kit.add(ball(r * 0.09, n=10), gem, at @ move(0, 0, r * 0.6), outline)


def scarf(kit, make, robot, m, r, colour, outline=0.0):
    """Scarf round the neck, both ends hanging."""
    wool = make(colour, "matte", "stripes", "f2f0e6", 8)
    kit.add(place(ring(r, r * 0.27), flat(1, 1, 1)), wool, m, outline)
    for x, k in ((0.1, 0.55), (0.28, 0.42)):
        end = [(x, -r - 0.1, 0), (x + 0.03, -r - 0.2, -k / 2), (x + 0.05, -r - 0.12, -k)]
        kit.add(tube(bend(*end), 0.1, 10), wool, m, outline)


def cape(kit, make, robot, m, colour, outline=0.0):
    """Cape down the back, from shoulder height."""
    u, v = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(0, 1, 10))
    wide = 0.42 + 0.42 * v
    p = np.stack([u * wide, 0.5 - 0.3 * u**2 + 0.35 * v + 0.05 * np.cos(9 * u), -0.9 * v], -1)
    n = np.stack([u * 0.4, 1 + 0 * u, 0.3 + 0 * u], -1)
    cloth = make(colour, "satin")
    kit.add(sh.sheet(p, n), cloth, m)
    kit.add(sh.sheet(p - 0.015 * sh.unit(n), -n), cloth, m)


def sunglasses(kit, make, robot, m, gap, r, outline=0.0):
    """Dark glasses for two round eyes ``gap`` apart."""
    ink = make("101014", "glass")
    for s in (-1, 1):
        kit.add(box(r * 2.1, 0.05, r * 1.5, 0.05), ink, m @ move(s * gap, 0, 0), outline)
    kit.add(beam((-gap, 0, r * 0.4), (gap, 0, r * 0.4), 0.04, 0.05), ink, m)


def bow(kit, make, robot, m, colour, outline=0.0):
    """Bow tie."""
    silk = make(colour, "satin", "dots", "ffffff", 12)
    for s in (-1, 1):
        kit.add(
            place(sh.cone(0.16, 0.28, 16, 0.04), turn("y", s * -90)),
            silk,
            m @ move(s * 0.28, 0, 0) @ flat(1, 0.5, 1),
            outline,
        )
    kit.add(ball(0.07), silk, m, outline)


PALETTE = [
    rgb(c) for c in ("c8283a", "2c6fb5", "e3b02b", "3a8f56", "7a4ba0", "e67a2e", "e9e4d8", "39404a")
]
