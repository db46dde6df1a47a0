"""Blender side of the renderer: meshes by material, and materials by style."""

import colorsys

import bpy
import numpy as np

from . import shapes as sh

# Colours in sRGB by the part of a robot they belong to.
CAT = {
    "coat": "1f86d6",
    "white": "f6f6f2",
    "red": "d8202a",
    "gold": "f2c230",
    "line": "15151a",
    "tongue": "f07a5a",
    "mouth": "8c1220",
}
ROVER = {
    "coat": "e0a526",
    "panel": "c98f1f",
    "metal": "8b8b86",
    "shell": "b3a888",
    "dark": "34322f",
    "lens": "0b0d12",
    "line": "1c1a18",
    "red": "c4281c",
    "white": "e8e4da",
}


def rgb(colour):
    """sRGB triple in [0, 1] of a hex string or a triple."""
    if isinstance(colour, str):
        return tuple(int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return tuple(colour)


def linear(colour):
    """Linear RGBA, as Blender wants it."""
    c = np.array(rgb(colour))
    low = c / 12.92
    return (*np.where(c <= 0.04045, low, ((c + 0.055) / 1.055) ** 2.4), 1.0)


def shift(colour, hue=0.0, sat=1.0, val=1.0):
    """Colour with its hue moved (in turns) and saturation and value scaled."""
    h, s, v = colorsys.rgb_to_hsv(*rgb(colour))
    return colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * sat), min(1, v * val))


class Kit:
    """Collects shapes by material and makes one Blender mesh of each collection.

    Parameters
    ----------
    drawn : bool
        Stepped emission instead of physical materials.
    flat : bool
        Drawn without any shade.
    sun : sequence of 3 floats
        Direction towards the light of drawn materials.
    """

    def __init__(self, drawn=False, flat=False, sun=(-0.5, -0.6, 0.65)):
        self.drawn, self.flat, self.sun = drawn, flat, sh.unit(sun)
        self.buckets, self.mats = {}, {}
        self.log = None

    def add(self, shape, material, m=None, outline=0.0):
        """Put a shape, moved by matrix ``m``, into the mesh of ``material``."""
        shape = shape if m is None else sh.place(shape, m)
        self.buckets.setdefault(material.name, []).append(shape)
        if self.log is not None:
            self.log.append(shape[0])
        if outline:
            p, n, t = shape
            ink = self.ink()
            self.buckets.setdefault(ink.name, []).append((p + outline * n, -n, t[:, ::-1]))

    def flush(self):
        """Create the Blender objects."""
        for name, parts in self.buckets.items():
            p, n, t = sh.join(*parts)
            mesh = bpy.data.meshes.new(name)
            mesh.vertices.add(len(p))
            mesh.vertices.foreach_set("co", p.astype(np.float32).ravel())
            mesh.loops.add(t.size)
            mesh.loops.foreach_set("vertex_index", t.astype(np.int32).ravel())
            mesh.polygons.add(len(t))
            mesh.polygons.foreach_set("loop_start", np.arange(0, t.size, 3, dtype=np.int32))
            mesh.update(calc_edges=True)
            mesh.normals_split_custom_set_from_vertices(n.astype(np.float32))
            mesh.materials.append(bpy.data.materials[name])
            bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, mesh))
        self.buckets = {}

    # Materials -----------------------------------------------------------------------------

    def _new(self, key):
        mat = bpy.data.materials.new(f"m{len(self.mats)}")
        mat.use_nodes = True
        mat.node_tree.nodes.clear()
        self.mats[key] = mat
        return mat, mat.node_tree.nodes, mat.node_tree.links.new

    def ink(self):
        """Black of the outlines: seen only where the hull's inside faces the camera."""
        if "ink" in self.mats:
            return self.mats["ink"]
        mat, nodes, link = self._new("ink")
        geo, mix = nodes.new("ShaderNodeNewGeometry"), nodes.new("ShaderNodeMixShader")
        black, clear = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeBsdfTransparent")
        black.inputs["Color"].default_value = linear("101014")
        link(geo.outputs["Backfacing"], mix.inputs[0])
        link(black.outputs[0], mix.inputs[1])
        link(clear.outputs[0], mix.inputs[2])
        link(mix.outputs[0], nodes.new("ShaderNodeOutputMaterial").inputs[0])
        return mat

    def glow(self, colour, power=1.0):
        """Plain emission."""
        key = ("glow", rgb(colour), power)
        if key in self.mats:
            return self.mats[key]
        mat, nodes, link = self._new(key)
        e = nodes.new("ShaderNodeEmission")
        e.inputs["Color"].default_value = linear(colour)
        e.inputs["Strength"].default_value = power
        link(e.outputs[0], nodes.new("ShaderNodeOutputMaterial").inputs[0])
        return mat

    def mat(self, colour, finish="matte", pattern=None, second=None, scale=3.0, amount=0.5):
        """Material of a colour.

        Parameters
        ----------
        colour, second : hex string or sRGB triple
        finish : {'plastic', 'matte', 'metal', 'rubber', 'glass', 'satin'}
        pattern : {None, 'noise', 'wood', 'checker', 'stripes', 'dots', 'bricks', 'windows'}
            How ``second`` is laid over ``colour``.
        scale : float
            Of the pattern, per metre.
        amount : float
            Share of ``second`` in a noise.
        """
        second = second or shift(colour, 0, 0.9, 0.85 if self.drawn else 0.65)
        key = (rgb(colour), finish, pattern, rgb(second), scale, amount)
        if key in self.mats:
            return self.mats[key]
        mat, nodes, link = self._new(key)
        out = nodes.new("ShaderNodeOutputMaterial")
        base = self._pattern(nodes, link, pattern, colour, second, scale, amount)
        if self.drawn:
            link(self._toon(nodes, link, base, colour).outputs[0], out.inputs[0])
            return mat
        b = nodes.new("ShaderNodeBsdfPrincipled")
        rough, metal, coat = {
            "plastic": (0.28, 0, 0.3),
            "satin": (0.45, 0, 0),
            "matte": (0.75, 0, 0),
            "metal": (0.38, 0.85, 0),
            "rubber": (0.65, 0, 0),
            "glass": (0.06, 0, 1.0),
        }[finish]
        b.inputs["Roughness"].default_value = rough
        b.inputs["Metallic"].default_value = metal
        b.inputs["Coat Weight"].default_value = coat
        if base is None:
            b.inputs["Base Color"].default_value = linear(colour)
        else:
            link(base, b.inputs["Base Color"])
        link(b.outputs[0], out.inputs[0])
        return mat

    def _pattern(self, nodes, link, pattern, colour, second, scale, amount):
        """Colour socket of a pattern, None for a plain colour."""
        if pattern is None:
            return None
        where = nodes.new("ShaderNodeTexCoord").outputs["Object"]
        ramp = nodes.new("ShaderNodeValToRGB")
        ramp.color_ramp.elements[0].color = linear(colour)
        ramp.color_ramp.elements[1].color = linear(second)
        low, high = 0.45, 0.55
        if pattern in ("noise", "wood"):
            tex = nodes.new("ShaderNodeTexNoise")
            tex.inputs["Scale"].default_value = scale
            tex.inputs["Detail"].default_value = 3
            low = 0.72 - 0.45 * amount
            high = low + (0.02 if self.drawn else 0.14)
            if pattern == "wood":
                stretch = nodes.new("ShaderNodeMapping")
                stretch.inputs["Scale"].default_value = (0.12, 1.6, 1.6)
                link(where, stretch.inputs[0])
                where = stretch.outputs[0]
                low, high = 0.3, 0.7
            value = tex.outputs[0]
        elif pattern == "checker":
            tex = nodes.new("ShaderNodeTexChecker")
            tex.inputs["Scale"].default_value = scale
            value = tex.outputs["Fac"]
        elif pattern == "stripes":
            tex = nodes.new("ShaderNodeTexWave")
            tex.inputs["Scale"].default_value = scale * 0.31
            value = tex.outputs["Fac"]
        elif pattern == "dots":
            tex = nodes.new("ShaderNodeTexVoronoi")
            tex.inputs["Scale"].default_value = scale
            tex.inputs["Randomness"].default_value = 0.35
            value, low, high = tex.outputs["Distance"], 0.22, 0.25
            ramp.color_ramp.elements[0].color = linear(second)
            ramp.color_ramp.elements[1].color = linear(colour)
        else:
            tex = nodes.new("ShaderNodeTexBrick")
            tex.inputs["Scale"].default_value = scale
            tex.inputs["Mortar Size"].default_value = 0.02 if pattern == "bricks" else 0.09
            tex.inputs["Row Height"].default_value = 0.25 if pattern == "bricks" else 0.5
            tex.inputs["Color1"].default_value = linear(colour)
            tex.inputs["Color2"].default_value = linear(shift(colour, 0.01, 1, 0.8))
            tex.inputs["Mortar"].default_value = linear(second)
            if pattern == "windows":
                tex.offset = 0
            upright = nodes.new("ShaderNodeMapping")
            upright.inputs["Rotation"].default_value = (np.pi / 2, 0, 0)
            link(where, upright.inputs[0])
            link(upright.outputs[0], tex.inputs["Vector"])
            return tex.outputs["Color"]
        link(where, tex.inputs["Vector"])
        ramp.color_ramp.elements[0].position = low
        ramp.color_ramp.elements[1].position = high
        link(value, ramp.inputs[0])
        return ramp.outputs[0]

    def _toon(self, nodes, link, base, colour):
        """Emission in two or three steps of the angle to the light."""
        e = nodes.new("ShaderNodeEmission")
        if base is None:
            e.inputs["Color"].default_value = linear(colour)
        if self.flat:
            if base is not None:
                link(base, e.inputs["Color"])
            return e
        dot = nodes.new("ShaderNodeVectorMath")
        dot.operation = "DOT_PRODUCT"
        dot.inputs[1].default_value = self.sun
        link(nodes.new("ShaderNodeNewGeometry").outputs["Normal"], dot.inputs[0])
        ramp = nodes.new("ShaderNodeValToRGB")
        ramp.color_ramp.interpolation = "CONSTANT"
        ramp.color_ramp.elements[0].color = (0.42, 0.4, 0.5, 1)
        ramp.color_ramp.elements[1].color = (1, 1, 1, 1)
        ramp.color_ramp.elements[1].position = 0.05
        link(dot.outputs["Value"], ramp.inputs[0])
        mix = nodes.new("ShaderNodeMixRGB")
        mix.blend_type = "MULTIPLY"
        mix.inputs[0].default_value = 1
        mix.inputs[1].default_value = linear(colour)
        if base is not None:
            link(base, mix.inputs[1])
        link(ramp.outputs[0], mix.inputs[2])
        link(mix.outputs[0], e.inputs["Color"])
        return e


class Coat:
    """Paint of one robot: the materials of its parts.

    Parameters
    ----------
    kit : Kit
    table : dict
        ``CAT`` or ``ROVER``.
    kind : {'plastic', 'film', 'drawn', 'line', 'stone', 'bronze', 'clay', 'faded', 'repaint'}
    rng : random.Random
    """

    def __init__(self, kit, table, kind, rng):
        self.kit, self.kind, self.table = kit, kind, dict(table)
        self.outline = 0.0
        self.hue = rng.uniform(-0.02, 0.02)
        self.sat, self.val = rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.08)
        self.wear = rng.uniform(0.25, 0.6)
        self.rust = rng.choice(["6b3a1c", "4a3524", "7d4a22"])
        self.scale = rng.uniform(3, 8)
        if kind in ("drawn", "line"):
            self.outline = rng.uniform(0.018, 0.03)
        if kind == "stone":
            tone = rng.uniform(0.45, 0.72)
            self.mono = shift((tone, tone * 0.98, tone * 0.94))
        if kind == "bronze":
            self.mono = rgb(rng.choice(["6e4a25", "5a4630", "7a5a2c", "4f5b4a"]))
        if kind == "clay":
            self.mono = rgb(rng.choice(["b9b4ab", "c9a98a", "d8d4cc", "9aa4ad"]))
        if kind == "repaint":
            self.table["coat"] = rng.choice(
                ["8a8f93", "d9d7d0", "58605f", "c7b7a6", "d7879b", "79b59a", "b34a3c", "6b5f8f"]
            )
            self.table["panel"] = shift(self.table["coat"], 0, 1, 0.85)
            self.hue, self.sat, self.val = 0, 1, 1
        if kind == "faded":
            self.sat, self.val = rng.uniform(0.15, 0.45), rng.uniform(0.75, 1.0)

    def __call__(self, part):
        """Material of a part, by its name in the table."""
        colour, kit = self.table[part], self.kit
        if self.kind == "line":
            ink = part in ("line", "lens", "dark")
            return kit.mat("1a1a1e" if ink else "fdfdfb")
        if self.kind in ("stone", "bronze", "clay"):
            shade = {"line": 0.3, "lens": 0.3, "dark": 0.6, "mouth": 0.5}.get(part, 1)
            tone = shift(self.mono, 0, 1, shade)
            second = shift(self.mono, 0.02, 1, 0.86 * shade)
            if self.kind == "bronze":
                second = shift("5f8f7a", 0, 0.8, 0.9 * shade)
                return kit.mat(tone, "metal", "noise", second, self.scale, 0.35)
            if self.kind == "clay":
                return kit.mat(tone, "matte")
            return kit.mat(tone, "matte", "noise", second, self.scale * 2, 0.55)
        if part in ("coat", "panel"):
            colour = shift(colour, self.hue, self.sat, self.val)
        elif self.kind == "faded":
            colour = shift(colour, 0, self.sat + 0.2, 0.9)
        if self.kind == "drawn":
            return kit.mat(colour)
        if part in ("line", "lens"):
            return kit.mat(colour, "glass")
        if self.kind in ("film", "faded"):
            worn = self.wear * {"coat": 1, "panel": 1, "metal": 0.8}.get(part, 0.25)
            if "tongue" in self.table:  # a cat gets dirty, but does not rust
                worn *= 0.35
            finish = "metal" if part == "metal" else "satin"
            return kit.mat(colour, finish, "noise", self.rust, self.scale, worn)
        finish = {"metal": "metal", "gold": "metal", "dark": "rubber"}.get(part, "plastic")
        return kit.mat(colour, finish)
