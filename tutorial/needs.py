"""Load the packages that all of this stands on, or say in one sentence why that can't be done."""

import os
import sys
from importlib import import_module
from pathlib import Path

from .errors import TutorialError

__all__ = ["install_anew", "load_packages"]

ROOT, WINDOWS = Path(__file__).resolve().parent.parent, os.name == "nt"
PACKAGES = [
    "torch",
    "torchvision",
    "fastai.vision.all",
    "safetensors.torch",
    "sklearn",
    "imagehash",
    "psutil",
]


def made_by_make():
    """Whether this person uses make, which Windows lacks: the mark that its set-up leaves."""
    return (ROOT / ".venv" / ".installed").exists()


def python():
    """How one calls the Python that has the packages, where make is not used."""
    if not (ROOT / ".venv").exists():  # with conda
        return "python"
    return r".venv\Scripts\python" if WINDOWS else ".venv/bin/python"


def open_lab():
    """How one starts JupyterLab, as the words behind "start it"."""
    if made_by_make():
        return "with `make lab`"
    if not (ROOT / ".venv").exists():  # conda, or nothing is set up yet
        return "as README.md says"
    return f"with `{python()} {Path('tools', 'lab.py')}`"


def install_anew():
    """How one installs all packages anew, as the words behind a colon."""
    if made_by_make():
        return "delete the folder .venv and type `make lab`"
    pip = "-m pip install --force-reinstall --require-hashes -r requirements.txt"
    return f"type `{python()} {pip}`"


def load_packages():
    """Import the packages, which the other files here would do a moment later.

    Raises
    ------
    TutorialError
        If the kernel's Python is too old or lacks one of them, as that of another kernel may, or if
        one can't be loaded, as when torch and torchvision don't fit together.
    """
    here = f"This notebook's Python, {sys.executable},"
    choose = (
        "choose Kernel > Change Kernel... > Python 3 (ipykernel), and if that is the one you have,"
        f" close JupyterLab and start it {open_lab()}."
    )
    if sys.version_info < (3, 11):  # noqa: UP036  the kernel may be that of another Python
        version = "{}.{}".format(*sys.version_info)
        raise TutorialError(f"{here} is {version}, too old for the tutorial: {choose}")
    try:
        for name in PACKAGES:
            import_module(name)
    except ModuleNotFoundError as error:
        raise TutorialError(f"{here} has no package {error.name}: {choose}") from None
    except Exception as error:  # whatever a package raises that finds itself in the wrong company
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TutorialError(
            f"The package {name} can't be loaded ({why}), as when two packages don't fit together:"
            f" {install_anew()}, which installs all of them anew."
        ) from None
