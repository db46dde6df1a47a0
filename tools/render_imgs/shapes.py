"""Meshes as numpy arrays: every part of every model is one of these few shapes.

A shape is ``(points, normals, triangles)`` of shapes (n, 3), (n, 3) and (m, 3); lengths are in
metres of the scene, where both robots stand about 2.2 high, look along -y and have z up.
"""

import numpy as np


def move(x=0.0, y=0.0, z=0.0):
    """4x4 matrix of a translation."""
    m = np.eye(4)
    m[:3, 3] = x, y, z
    return m


def turn(axis, degrees):
    """4x4 matrix of a rotation about ``axis`` ('x', 'y' or 'z')."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    m = np.eye(4)
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def size(s):
    """4x4 matrix of a uniform scaling."""
    m = np.eye(4)
    m[:3, :3] *= s
    return m


def unit(v):
    """Vectors of length one along the last axis (zero vectors stay zero)."""
    v = np.asarray(v, float)
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def sheet(points, normals, wrap_u=False, wrap_v=False):
    """Triangulate a grid of shape (v, u, 3); the winding follows the normals."""
    nv, nu = points.shape[:2]
    index = np.arange(nv * nu).reshape(nv, nu)
    if wrap_u:
        index = np.concatenate([index, index[:, :1]], 1)
    if wrap_v:
        index = np.concatenate([index, index[:1]], 0)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    tris = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    p, n = points.reshape(-1, 3), unit(normals.reshape(-1, 3))
    corner = p[tris]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    keep = np.linalg.norm(area, axis=1) > 1e-10
    flip = (area * n[tris].mean(1)).sum(1) < 0
    tris[flip] = tris[flip][:, ::-1]
    return p, n, tris[keep]


def join(*shapes):
    """One shape out of several."""
    start = np.cumsum([0] + [len(s[0]) for s in shapes])
    tris = np.concatenate([s[2] + o for s, o in zip(shapes, start, strict=False)])
    return np.concatenate([s[0] for s in shapes]), np.concatenate([s[1] for s in shapes]), tris


def ball(rx, ry=None, rz=None, n=32):
    """Ellipsoid about the origin."""
    radii = np.array([rx, ry or rx, rz or ry or rx])
    theta = np.linspace(0, np.pi, n // 2 + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, n, endpoint=False)[None]
    d = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi], -1
    )
    return sheet(d * radii, d / radii, wrap_u=True)


def box(x, y, z, r=0.04, m=3):
    """Box of side lengths x, y, z with edges rounded by radius r."""
    half = np.array([x, y, z]) / 2
    r = min(r, half.min() * 0.98)
    arc = np.linspace(0, np.pi / 2, m + 1)
    phi = np.concatenate([arc + k * np.pi / 2 for k in range(4)])[None]
    sx = np.repeat([1, -1, -1, 1], m + 1)[None]
    sy = np.repeat([1, 1, -1, -1], m + 1)[None]
    theta = np.concatenate([arc, arc + np.pi / 2])[:, None]
    sz = np.repeat([1, -1], m + 1)[:, None]
    d = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi], -1
    )
    side = np.stack(np.broadcast_arrays(sx, sy, sz), -1) * (half - r)
    skin = sheet(side + r * d, d, wrap_u=True)
    caps = []
    for k in (1, -1):
        w = half[:2] - r
        grid = np.array([[[-w[0], -w[1]], [w[0], -w[1]]], [[-w[0], w[1]], [w[0], w[1]]]])
        p = np.concatenate([grid, np.full((2, 2, 1), k * half[2])], -1)
        caps.append(sheet(p, np.zeros_like(p) + [0, 0, k]))
    return join(skin, *caps)


def lathe(profile, n=32, smooth=False):
    """Surface of revolution about z.

    Parameters
    ----------
    profile : sequence of (radius, z)
        From one end to the other.
    smooth : bool
        Round the corners' shading; else they stay crisp.
    """
    if smooth:
        p, phi = np.array(profile, float), np.linspace(0, 2 * np.pi, n, endpoint=False)
        d = np.gradient(p, axis=0)
        rings = [
            np.stack([q[:, :1] * np.cos(phi), q[:, :1] * np.sin(phi)], -1) for q in (p, -d[:, ::-1])
        ]
        z = [np.broadcast_to(q[:, None, None], (len(p), n, 1)) for q in (p[:, 1], d[:, 0])]
        points, normals = (np.concatenate([r, h], -1) for r, h in zip(rings, z, strict=True))
        return sheet(points, -normals, wrap_u=True)
    rings = []
    for (r0, z0), (r1, z1) in zip(profile[:-1], profile[1:], strict=True):
        phi = np.linspace(0, 2 * np.pi, n, endpoint=False)
        c, s = np.cos(phi), np.sin(phi)
        nr, nz = z1 - z0, r0 - r1
        p = np.stack([np.stack([r * c, r * s, 0 * c + z], -1) for r, z in ((r0, z0), (r1, z1))])
        d = np.stack([np.stack([nr * c, nr * s, 0 * c + nz], -1)] * 2)
        rings.append(sheet(p, d, wrap_u=True))
    return join(*rings)


def rod(r, length, n=32, edge=0.15):
    """Cylinder about z, centred, with its rim cut by ``edge`` of the radius."""
    e, h = min(edge * r, length * 0.3), length / 2
    return lathe([(0, h), (r - e, h), (r, h - e), (r, -h + e), (r - e, -h), (0, -h)][::-1], n)


def cone(r, h, n=24, top=0.0):
    """Cone or frustum about z, standing on z = 0."""
    return lathe([(0, 0), (r, 0), (top, h), (0, h)], n)


def ring(R, r, n=40, m=12):
    """Torus about z."""
    u = np.linspace(0, 2 * np.pi, n, endpoint=False)[None]
    v = np.linspace(0, 2 * np.pi, m, endpoint=False)[:, None]
    d = np.stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v) + 0 * u], -1)
    centre = np.stack([np.cos(u) + 0 * v, np.sin(u) + 0 * v, 0 * u + 0 * v], -1) * R
    return sheet(centre + r * d, d, wrap_u=True, wrap_v=True)


def tube(points, radius, n=12):
    """Round tube along a line.

    Parameters
    ----------
    points : array-like of shape (k, 3)
    radius : float or array-like of shape (k,)
    """
    p = np.asarray(points, float)
    radius = np.broadcast_to(radius, len(p)).astype(float)
    ahead = unit(np.gradient(p, axis=0))
    side = np.cross(ahead[0], [0, 0, 1.0] if abs(ahead[0][2]) < 0.9 else [1.0, 0, 0])
    rings = []
    for t in ahead:
        side = unit(side - t * (side @ t))
        rings.append((side, np.cross(t, side)))
    a, b = (np.array(x)[:, None] for x in zip(*rings, strict=True))
    phi = np.linspace(0, 2 * np.pi, n, endpoint=False)[None, :, None]
    d = np.cos(phi) * a + np.sin(phi) * b
    skin = sheet(p[:, None] + radius[:, None, None] * d, d, wrap_u=True)
    ends = []
    for k, s in ((0, -1), (-1, 1)):
        r = radius[k]
        q = np.stack([p[k] + r * d[k], p[k] + 0.6 * r * (d[k] + s * 0.6 * ahead[k])])
        q = np.concatenate([q, np.broadcast_to(p[k] + s * 0.5 * r * ahead[k], q[:1].shape)])
        ends.append(sheet(q, np.stack([d[k], d[k] + s * ahead[k], 0 * d[k] + s * ahead[k]]), True))
    return join(skin, *ends)


def bend(*knots, n=14):
    """Points of a Bezier curve through its end knots, shape (n, 3)."""
    p = [np.broadcast_to(np.asarray(k, float), (n, 3)) for k in knots]
    t = np.linspace(0, 1, n)[:, None]
    while len(p) > 1:
        p = [(1 - t) * a + t * b for a, b in zip(p[:-1], p[1:], strict=True)]
    return p[0]


def beam(a, b, w, h, r=0.02):
    """Box with cross-section w by h from point a to point b."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    d = unit(b - a)
    side = unit(np.cross(d, [0, 0, 1.0] if abs(d[2]) < 0.95 else [0, 1.0, 0]))
    m = np.eye(4)
    m[:3, 0], m[:3, 1], m[:3, 2], m[:3, 3] = side, np.cross(d, side), d, (a + b) / 2
    return place(box(w, h, np.linalg.norm(b - a), r), m)


def decal(outline, centre, radii, lift=0.012, rings=5):
    """Flat shape laid on the front of an ellipsoid.

    Parameters
    ----------
    outline : array-like of shape (k, 2)
        x and z of the shape's edge, star-shaped about its mean.
    centre, radii : sequence of 3 floats
        The ellipsoid; its front is at -y.
    lift : float
        Distance from the surface.
    """
    o = np.asarray(outline, float)
    mid = o.mean(0)
    k = np.linspace(0, 1, rings)[:, None, None]
    flat = mid + k * (o - mid)
    return sheet(*on_front(flat, centre, radii, lift), wrap_u=True)


def on_front(flat, centre, radii, lift=0.012):
    """Project points (x, z) to the front of an ellipsoid; returns points and normals."""
    flat, c, r = np.asarray(flat, float), np.asarray(centre, float), np.asarray(radii, float)
    u, v = (flat[..., 0] - c[0]) / r[0], (flat[..., 1] - c[2]) / r[2]
    w = -np.sqrt(np.clip(1 - u * u - v * v, 0.02, 1))
    p = np.stack([flat[..., 0], c[1] + r[1] * w, flat[..., 1]], -1)
    n = unit(np.stack([u / r[0], w / r[1], v / r[2]], -1))
    return p + lift * n, n


def belt(loop, width, thick):
    """Endless belt: a closed loop of (y, z) points swept along x.

    Parameters
    ----------
    loop : array of shape (k, 2)
        Outer edge, counter-clockwise.
    """
    tangent = unit(np.roll(loop, -1, 0) - np.roll(loop, 1, 0))
    out = np.stack([tangent[:, 1], -tangent[:, 0]], -1)
    inner = loop - thick * out
    x = width / 2

    def strip(a, b, xa, xb, normal):
        p = np.stack(
            [np.concatenate([np.full((len(a), 1), s), q], 1) for s, q in ((xa, a), (xb, b))]
        )
        return sheet(p, np.broadcast_to(normal, p.shape), wrap_u=True)

    n3 = np.concatenate([np.zeros((len(out), 1)), out], 1)
    return join(
        strip(loop, loop, -x, x, n3),
        strip(inner, inner, -x, x, -n3),
        strip(loop, inner, x, x, [1.0, 0, 0]),
        strip(loop, inner, -x, -x, [-1.0, 0, 0]),
    )


def place(shape, m):
    """Shape moved by a 4x4 matrix (rotation, translation, uniform or uneven scale)."""
    p, n, t = shape
    t = t[:, ::-1] if np.linalg.det(m[:3, :3]) < 0 else t
    return p @ m[:3, :3].T + m[:3, 3], unit(n @ np.linalg.inv(m[:3, :3])), t
