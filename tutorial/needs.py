"""Load the packages that all of this stands on, or say in one sentence why that can't be done."""

import sys
from importlib import import_module

from .errors import TutorialError

__all__ = ["load_packages"]

PACKAGES = [
    "torch",
    "torchvision",
    "fastai.vision.all",
    "safetensors.torch",
    "sklearn",
    "imagehash",
    "psutil",
]


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
        " close JupyterLab and start it with `make lab`."
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
            " delete the folder .venv and type `make lab`, which installs all of them anew."
        ) from None
