"""Keep a trained network and ask it later: where to put it, as what, and one question.

A network can be kept in two ways. `learn.export` writes a *pickle*: all of the learner, but whoever
opens a pickle runs whatever code is in it. *safetensors* holds nothing but named numbers, which
can't do anything; the price is that whoever loads them must build the same network first.
"""

import errno
import json
import os
import shutil
import tempfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from fastai.vision.core import PILImage
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from .errors import TutorialError
from .files import write_whole

__all__ = ["ask", "load_weights", "results_folder", "save_weights"]

ROOM = 200_000_000  # bytes: the network twice, 87 MB each, and the small files


def results_folder():
    """Return the folder that results go to, made and found to be writable, with room for them.

    It is the one that the environment variable OUT names, else `out` in the notebook's folder. If
    that can't be written to, as on a read-only copy of the tutorial, one printed sentence says so
    and names a temporary folder, which is used instead until this kernel ends.

    Raises
    ------
    TutorialError
        If OUT names a folder that can't be written to or has no room.
    """
    wanted = os.environ.get("OUT")
    folder = Path(wanted or "out").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # asking the system is not as sure as trying
            pass
        # An export that fails for want of room would leave `learn` without its data.
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError(errno.ENOSPC, f"less than {ROOM / 1e6:.0f} MB are free there")
        return folder
    except OSError as error:
        why = f"can't be written to ({error.strerror})"
    if wanted:
        raise TutorialError(f"The folder OUT={wanted} {why}: name another one.")
    folder = _temporary_folder()
    print(f"The folder `out` {why}, so results go to {folder}; copy from there what you need.")
    return folder


@lru_cache  # one a kernel, however often the cell is run
def _temporary_folder():
    return Path(tempfile.mkdtemp(prefix="results-"))


def save_weights(learn, file):
    """Save the numbers of a learner's network, and the names of its classes, as safetensors.

    `file` ends in ``.safetensors`` by custom. It is written whole or not at all, and only over one
    that an earlier call wrote.

    Raises
    ------
    TutorialError
        If `file` exists and is something else, or if it can't be written to.
    """
    file = Path(file)
    if file.exists():
        _read_vocab(file, f"and is not overwritten. Move {file} or choose another name.")
    numbers = {name: t.detach().cpu().contiguous() for name, t in learn.model.state_dict().items()}
    vocab = json.dumps([str(name) for name in learn.dls.vocab])
    write_whole(file, save(numbers, {"vocab": vocab}))


def load_weights(learn, file):
    """Load what `save_weights` wrote into a learner with the same network and the same classes.

    All is compared before the first number changes, so a failed call leaves `learn` as it was.

    Raises
    ------
    TutorialError
        If `file` is missing or damaged, holds no classes, or was saved from a learner with other
        classes or another network.
    """
    file = Path(file)
    if not file.is_file():
        raise TutorialError(f"There is no file {file}: save it with `save_weights` first.")
    vocab = _read_vocab(file, "and can't be loaded.")
    mine = [str(name) for name in learn.dls.vocab]
    if vocab != mine:
        raise TutorialError(
            f"{file} tells {_listed(vocab)} apart, but this learner {_listed(mine)}: load it into a"
            " learner whose pictures have the same classes."
        )
    numbers, own = load_file(file), learn.model.state_dict()
    shapes, own_shapes = ({name: t.shape for name, t in d.items()} for d in (numbers, own))
    if shapes != own_shapes:
        different = set(shapes.items()) ^ set(own_shapes.items())
        raise TutorialError(
            f"{file} was saved from another network than this learner has (they differ in"
            f" {min(different)[0]}, for one): build the learner with the architecture that was"
            " trained."
        )
    learn.model.load_state_dict(numbers)


def ask(learn, picture):
    """Ask a learner about one picture, and put its answer into words, such as "walle, 98.3%".

    Parameters
    ----------
    learn : Learner
    picture : path or bytes
        A file, or the content of one, as an upload button gives it.

    Raises
    ------
    TutorialError
        If it is no picture that can be read.
    """
    what = "This" if isinstance(picture, bytes) else str(picture)
    try:
        content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        opened = PILImage.create(BytesIO(content))
    except FileNotFoundError:
        raise TutorialError(f"There is no file {what}.") from None
    except Exception as error:  # Pillow raises a dozen kinds, depending on the format
        raise TutorialError(
            f"{what} is not a picture that can be read ({type(error).__name__}): try a JPEG or a"
            " PNG."
        ) from None
    with learn.no_bar():
        guess, _, probs = learn.predict(opened)
    return f"{guess}, {float(probs.max()):.1%}"


def _listed(names, most=6):
    """Join names with commas, the first few of them if they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read_vocab(file, then):
    """Return the classes in a file that `save_weights` wrote, else raise; `then` ends the error."""
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {})["vocab"])
    except (SafetensorError, OSError, KeyError, ValueError):
        raise TutorialError(f"{file} is not a whole file of `save_weights`, {then}") from None
