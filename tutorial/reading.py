"""A picture that fastai can't read is named, and a photo is read no larger than it need be.

fastai opens each picture by its function `load_image`, whose errors are Pillow's and often name no
file. Here another function of that name takes its place.
"""

from pathlib import Path

import fastai.vision.core
from PIL import Image

from .doctor import _examine, _printable
from .errors import PictureError
from .findings import FINDINGS

ENOUGH = 512  # pixels of a photo's shorter side; the notebook makes 224 of them


def load_image(file, mode=None):
    """Do as fastai's `load_image`, with two differences.

    A JPEG several times larger than the network's input is decoded at a half, a quarter or an
    eighth of its size, which JPEG can do at less cost; its shorter side keeps `ENOUGH` pixels. And
    a file that is to blame itself is named.

    Raises
    ------
    PictureError
        If the file is no picture that can be read whole.
    """
    try:
        return _open(file, mode)
    except Exception as error:  # Pillow raises a dozen kinds, depending on the format
        if not isinstance(file, str | Path):
            raise
        for problem, _ in _examine(Path(file)):
            _, stops, advice, _ = FINDINGS[problem]
            if stops:
                raise PictureError(
                    f"{_printable(str(file))}: {problem}. {advice} Then run again from step 2 on."
                    " check_images(path) finds all such files at once."
                ) from error
        raise


def _open(file, mode):
    """Open a picture as fastai does, but a large JPEG smaller."""
    with Image.open(file) as picture:
        picture.draft(None, (ENOUGH, ENOUGH))  # of other formats Pillow takes no notice of it
        return picture.convert(mode or picture.mode)


fastai.vision.core.load_image = load_image
