"""Files that are written whole or not at all: under another name first, renamed when complete.

Who is killed meanwhile, or whose disk is full, spoils nothing that was there before.
"""

import os
from contextlib import contextmanager
from pathlib import Path

from .errors import TutorialError

__all__ = ["replacing", "write_whole", "written_whole"]


@contextmanager
def replacing(file):
    """Yield a temporary name beside a file, to write to; in the end it takes the file's place.

    The folder is made as needed. If the block raises, nothing is left of the temporary file.

    Raises
    ------
    OSError
        If it can't be written to.
    """
    file = Path(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb+") as written:
            os.fsync(written.fileno())  # or after a power cut the new name may hold nothing
        os.replace(part, file)
    finally:
        if part.exists():  # not unlink(missing_ok): it raises where the folder is a file
            part.unlink()


@contextmanager
def written_whole(file, then="choose another folder"):
    """Do as `replacing`, and raise a `TutorialError` that ends with `then` if it can't be done."""
    try:
        with replacing(file) as part:
            yield part
    except (OSError, RuntimeError) as error:  # the second is what PyTorch raises on a full disk
        why = getattr(error, "strerror", None) or "is there room on the disk?"
        raise TutorialError(f"{file} can't be written to ({why}): {then}.") from None


def write_whole(file, content):
    """Write text or bytes to a file by `written_whole`.

    What UTF-8 does not have, as in a file's name that is none, is written out: ``\\udcff``, for
    example, which JSON reads as it was.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with written_whole(file) as part:
        part.write_bytes(content)
