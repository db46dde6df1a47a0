"""Files that are written whole or not at all.

A file of results is written under another name first and gets its own when it is complete: who is
killed meanwhile, or whose disk is full, spoils nothing that was there before.
"""

import os
from contextlib import contextmanager

from .errors import TutorialError

__all__ = ["replacing", "write_whole", "written_whole"]


@contextmanager
def replacing(file):
    """Have a file written under a temporary name beside it, which takes its place in the end.

    Parameters
    ----------
    file : Path
        Its folder is made as needed.

    Yields
    ------
    Path
        The temporary name, to write to. If the block raises, nothing is left of it.

    Raises
    ------
    OSError
        If it can't be written to.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb+") as written:
            os.fsync(written.fileno())  # or after a power cut the new name may hold nothing
        os.replace(part, file)
    finally:
        if part.exists():
            part.unlink()


@contextmanager
def written_whole(file, then="choose another folder"):
    """Do as `replacing`, and say in one sentence why a file can't be written.

    Parameters
    ----------
    file : Path
    then : str
        What to do if that fails.

    Raises
    ------
    TutorialError
        If it can't be written to.
    """
    try:
        with replacing(file) as part:
            yield part
    except (OSError, RuntimeError) as error:  # the second is what PyTorch raises on a full disk
        why = getattr(error, "strerror", None) or "is there room on the disk?"
        raise TutorialError(f"{file} can't be written to ({why}): {then}.") from None


def write_whole(file, text):
    """Write text, or bytes, to a file by `written_whole`.

    Characters that UTF-8 does not have, as in a file's name that is none, are written out:
    ``\\udcff``, for example, which JSON reads as it was.
    """
    content = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
    with written_whole(file) as part:
        part.write_bytes(content)
