"""The few things that the notebooks need and fastai does not have, one job a file."""

import warnings

# Importing fastai makes PyTorch warn about a function that fastai still uses. Harmless; hidden.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)

from .backbone import BodyError, body_in_use, resnet34  # noqa: E402
from .draw import draw_layers, epoch_losses, overfits, show_losses  # noqa: E402
from .errors import FolderError, TutorialError, explain_skipped_steps  # noqa: E402
from .precision import describe_device, native_precision  # noqa: E402
from .start import check_folder, hello, how_long, trainable_share  # noqa: E402
from .verdict import (  # noqa: E402
    score,
    show_verdict,
    true_class,
    verdict,
    what_changed,
    what_it_proves,
    wilson,
)

__all__ = [
    "BodyError",
    "FolderError",
    "TutorialError",
    "body_in_use",
    "check_folder",
    "describe_device",
    "draw_layers",
    "epoch_losses",
    "explain_skipped_steps",
    "hello",
    "how_long",
    "native_precision",
    "overfits",
    "resnet34",
    "score",
    "show_losses",
    "show_verdict",
    "trainable_share",
    "true_class",
    "verdict",
    "what_changed",
    "what_it_proves",
    "wilson",
]
