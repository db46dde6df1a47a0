"""How a picture's file is read, by fastai and by the images doctor; a bad one is named.

fastai opens each picture by its function `load_image`, whose errors are Pillow's and often name no
file. `name_bad_pictures` puts another function of that name in its place.
"""

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock

import fastai.vision.core
from PIL import Image, UnidentifiedImageError

from ..errors import PictureError
from .findings import SLOW, SMALL, Finding

HUGE = 25_000_000  # pixels; such pictures are decoded one at a time, to spare memory
ORIENTATION = 274  # the EXIF tag that says how the camera was held
one_at_a_time = Lock()
plain_load_image = fastai.vision.core.load_image


def load_image(file, mode=None):
    """Do as fastai's `load_image`, but name a file that is to blame itself.

    Raises
    ------
    PictureError
        If the file is no picture that can be read whole.
    """
    try:
        return plain_load_image(file, mode)
    except Exception as error:  # Pillow raises a dozen kinds, depending on the format
        for finding in examine(Path(file)) if isinstance(file, str | Path) else ():
            if finding.stops:
                raise PictureError(
                    f"{finding} Then run again from step 2 on."
                    " check_images(path) finds all such files at once."
                ) from error
        raise


def name_bad_pictures():
    """Let fastai open pictures by the `load_image` of this module, from now on."""
    fastai.vision.core.load_image = load_image


def examine(file):
    """Look at one picture as fastai would: first its header, then all of it.

    Returns
    -------
    list of Finding
    """
    try:
        if not os.path.isfile(file):  # a broken link, or a pipe, on which opening would hang
            return [Finding(file, "unreadable")]
        with open(file, "rb") as stream:
            stream.read(1)
    except OSError as error:
        return [Finding(file, "unreadable", error.strerror or "")]
    try:
        with Image.open(file) as picture:
            notes = list(look_at(picture, f".{file.name.split('.')[-1].lower()}"))
    except UnidentifiedImageError:
        notes = [("not an image",)]
    except Image.DecompressionBombError:
        notes = [("far too huge",)]
    except Exception as error:  # Pillow's readers raise all sorts of errors on damaged bytes
        notes = [("truncated" if "truncated" in str(error).lower() else "damaged",)]
    return [Finding(file, *note) for note in notes]


def look_at(picture, extension):
    """Yield problem and detail of what a picture's header, its pixels and its marks tell."""
    size, pixels = f"{picture.width} x {picture.height}", picture.width * picture.height
    kind = "JPEG" if picture.format == "MPO" else picture.format  # MPO: what many phones write
    if min(picture.size) < SMALL:
        yield "tiny", size
    if pixels > SLOW:
        yield "huge", size
    if picture.mode == "CMYK":
        yield ("CMYK",)
    if picture.mode.startswith(("I", "F")):
        yield "16-bit or more", f"mode {picture.mode}"
    if Image.registered_extensions().get(extension) != kind:
        yield "wrong extension", kind
    # A JPEG can be decoded to an eighth of its size, which still reads the file to its end.
    picture.draft(picture.mode, (32, 32))
    with one_at_a_time if pixels > HUGE else nullcontext():
        picture.load()
        picture.convert("RGB")  # as fastai does
        if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3][0] < 255:
            yield ("transparent",)
    with suppress(Exception):  # of damaged marks; fastai does not read them either
        if picture.getexif().get(ORIENTATION) in range(2, 9):
            yield ("rotated",)
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            yield ("animated",)


def format_of(file):
    """Return the format of a picture, whatever its name; "" if there is none to be read."""
    with suppress(Exception):  # Pillow's readers raise all sorts of errors on other bytes
        if os.path.isfile(file):  # opening a pipe would wait for ever
            with Image.open(file) as picture:
                return picture.format
    return ""
