"""One picture from its name: build the scene, trace it, finish it, write the JPEG."""

import contextlib
import os
import tempfile
from pathlib import Path

import bpy
import numpy as np
from PIL import Image

from .names import seed_of
from .recipes import Stage

QUALITY = 88


@contextlib.contextmanager
def quiet():
    """Keep Blender's own lines off the terminal: it writes to the descriptor, not to Python."""
    with open(os.devnull, "w") as sink:
        saved = os.dup(1)
        os.dup2(sink.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


def render(name, samples=12, scale=1.0):
    """Render one picture.

    Parameters
    ----------
    name : str
        Path below ``imgs/``, as ``train/doraemon/doraemon.17.jpg``.
    samples : int
        Paths a pixel.
    scale : float
        Of the picture's size, for previews.

    Returns
    -------
    picture : PIL.Image.Image
        RGB, long side 480 times ``scale``.
    """
    with quiet():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        stage = Stage(name)
        scene = bpy.context.scene
        settings(scene, stage, samples, scale)
        with tempfile.TemporaryDirectory() as folder:
            scene.render.filepath = str(Path(folder, "picture.png"))
            bpy.ops.render.render(write_still=True)
            raw = Image.open(scene.render.filepath).convert("RGB")
    return finish(raw, stage, np.random.default_rng(seed_of(name)))


def settings(scene, stage, samples, scale):
    """Cycles on the CPU with few samples and the denoiser."""
    c = scene.cycles
    scene.render.engine = "CYCLES"
    c.device, c.samples, c.use_adaptive_sampling = "CPU", samples, False
    c.use_denoising, c.denoiser = not stage.kit.drawn, "OPENIMAGEDENOISE"
    c.denoising_prefilter = "FAST"
    c.max_bounces, c.diffuse_bounces, c.glossy_bounces = 3, 2, 2
    c.transmission_bounces, c.transparent_max_bounces = 1, 24
    c.caustics_reflective = c.caustics_refractive = False
    c.sample_clamp_indirect = 4
    # Skies are smooth and lamps are few: without these two a picture takes half the time.
    c.use_light_tree = False
    scene.world.cycles.sampling_method = "NONE"
    c.seed = 1
    if stage.kit.drawn:
        c.samples, c.max_bounces = max(4, samples // 2), 0
    r = scene.render
    r.use_persistent_data = True
    r.resolution_x, r.resolution_y = round(stage.width * scale), round(stage.height * scale)
    r.image_settings.file_format = "PNG"
    scene.view_settings.view_transform = "Standard" if stage.kit.drawn else "Filmic"
    if not stage.kit.drawn:
        scene.view_settings.look = "Medium High Contrast"
        scene.view_settings.exposure = 0.5 + stage.rng.uniform(-0.15, 0.3)


def finish(raw, stage, rng):
    """What a camera, a printer or the years do to a picture."""
    x = np.asarray(raw, np.float32) / 255
    look = stage.look
    if "grade" in look:
        x = x * np.array(look["grade"], np.float32)
    if "vignette" in look:
        v, u = np.mgrid[-1 : 1 : x.shape[0] * 1j, -1 : 1 : x.shape[1] * 1j]
        x = x * (1 - look["vignette"] * ((u**2 + v**2) / 2)[..., None] ** 1.5)
    grey = x @ np.array([0.3, 0.59, 0.11], np.float32)
    if look.get("tone") == "grey":
        x = np.repeat(grey[..., None], 3, -1)
    elif look.get("tone") == "sepia":
        x = grey[..., None] ** 0.9 * np.array([1.0, 0.88, 0.68], np.float32) + 0.03
    elif look.get("tone") == "pale":
        x = 0.22 + 0.7 * (0.45 * x + 0.55 * grey[..., None])
    if not stage.kit.drawn:
        x = x + rng.normal(0, rng.uniform(0.002, 0.018), x.shape[:2])[..., None]
    return Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))


def save(picture, path):
    """Write a JPEG under a temporary name, then rename: a file that exists is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    picture.save(part, "JPEG", quality=QUALITY, optimize=True)
    part.replace(path)
