"""A picture that fastai can't read is named, and what to do about it is said.

fastai opens each picture by its function `load_image`, whose errors are Pillow's and often name no
file. Here another function of that name takes its place.
"""

from pathlib import Path

import fastai.vision.core

from .doctor import _examine, _printable
from .errors import PictureError
from .findings import FINDINGS

_plain_load_image = fastai.vision.core.load_image


def load_image(file, mode=None):
    """Do as fastai's `load_image`, but raise `PictureError` for a file that is to blame itself."""
    try:
        return _plain_load_image(file, mode)
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


fastai.vision.core.load_image = load_image
