"""The few things that the notebooks need and fastai does not have, one job a file."""

import mimetypes
import warnings

# fastai picks pictures by the extensions that the system knows, and not every system knows this.
mimetypes.add_type("image/webp", ".webp")

# Importing fastai makes PyTorch warn about a function that fastai still uses. Harmless; hidden.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)

from .needs import load_packages  # noqa: E402

load_packages()  # else a missing one would show a page of Python's own

from .backbone import BodyError, body_in_use, resnet34  # noqa: E402
from .bodies import compare_bodies  # noqa: E402
from .defaults import fast_defaults  # noqa: E402
from .draw import draw_layers, epoch_losses, overfits, show_change, show_losses  # noqa: E402
from .efficientnet import efficientnet_lite0  # noqa: E402
from .errors import FolderError, TutorialError  # noqa: E402
from .folders import check_folder, check_images, split_images  # noqa: E402
from .folders.reading import name_bad_pictures  # noqa: E402
from .hints import explain_skipped_steps  # noqa: E402
from .leaks import find_leaks, show_leaks  # noqa: E402
from .look import show_looks  # noqa: E402
from .luck import learning_curve, show_learning_curve, show_luck, train_head  # noqa: E402
from .paragraph import methods  # noqa: E402
from .precision import describe_device, native_precision  # noqa: E402
from .record import run_record, write_record  # noqa: E402
from .rivals import (  # noqa: E402
    class_numbers,
    colour_histogram,
    frozen_features,
    mean_colour,
    rival,
    show_rivals,
)
from .share import ask, load_weights, results_folder, save_weights  # noqa: E402
from .start import hello, how_long, trainable_share  # noqa: E402
from .unknown import (  # noqa: E402
    answers,
    distances,
    show_guesses,
    show_reliability,
    strangers,
)
from .verdict import (  # noqa: E402
    score,
    show_verdict,
    true_class,
    verdict,
    what_changed,
    what_it_proves,
    wilson,
)

name_bad_pictures()

__all__ = [
    "BodyError",
    "FolderError",
    "TutorialError",
    "answers",
    "ask",
    "body_in_use",
    "check_folder",
    "check_images",
    "class_numbers",
    "colour_histogram",
    "compare_bodies",
    "describe_device",
    "distances",
    "draw_layers",
    "efficientnet_lite0",
    "epoch_losses",
    "explain_skipped_steps",
    "fast_defaults",
    "find_leaks",
    "frozen_features",
    "hello",
    "how_long",
    "learning_curve",
    "load_weights",
    "mean_colour",
    "methods",
    "native_precision",
    "overfits",
    "resnet34",
    "results_folder",
    "rival",
    "run_record",
    "save_weights",
    "score",
    "show_change",
    "show_guesses",
    "show_leaks",
    "show_learning_curve",
    "show_looks",
    "show_losses",
    "show_luck",
    "show_reliability",
    "show_rivals",
    "show_verdict",
    "split_images",
    "strangers",
    "train_head",
    "trainable_share",
    "true_class",
    "verdict",
    "what_changed",
    "what_it_proves",
    "wilson",
    "write_record",
]
