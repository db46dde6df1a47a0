"""Errors for people: in a notebook they show one sentence, not a traceback."""

from inspect import isfunction

# The step of the notebook that makes each name, for the reader who skipped it.
MADE_IN_STEP = {
    "path": 1,
    "dls": 2,
    "learn": 4,
    "right": 6,
    "valid_probs": 6,
    "valid_truth": 6,
    "interp": 7,
    "test_files": 8,
    "probs": 9,
    "guesses": 9,
    "first": 10,
    "history": 12,
    "tuned_right": 13,
    "valid_probs_tuned": 13,
    "probs_tuned": 14,
    "second": 14,
    "summary": 15,
    "borrowed": 16,
    "pictures": 16,
    "seen": 16,
    "x_train": 16,
    "x_valid": 16,
    "y_train": 16,
    "y_valid": 16,
    "rights": 16,
    "leaks": 17,
    "heads": 18,
    "hits": 18,
    "again": 18,
    "tuned": 18,
    "before": 18,
    "after": 18,
    "train": 18,
    "valid": 18,
    "curve": 19,
    "start": 20,
    "wrong": 20,
    "visitors": 22,
    "visitor_probs": 22,
    "lite": 24,
    "lite_probs": 24,
    "out": 25,
    "fresh": 25,
    "hint": 25,
    "asked": 26,
    "exported": 26,
    "record": 28,
}


class TutorialError(Exception):
    """A mistake that a person can put right; its message says what is wrong and what to do."""

    def _render_traceback_(self):
        """Return the lines that IPython shows: the message alone."""
        return [f"{type(self).__name__}: {self}"]


class FolderError(TutorialError):
    """The folder of pictures cannot be used as it is."""


class PictureError(TutorialError):
    """A picture cannot be read."""

    def __init__(self, message):
        # From a worker process of PyTorch's it comes with that one's whole traceback before it.
        super().__init__(message.rstrip().split(f"{__name__}.PictureError: ")[-1])


def _name_the_step(shell, kind, error, trace, tb_offset=None):
    """Show a `NameError` for a name of the tutorial as a hint, any other as usual."""
    if error.name in MADE_IN_STEP:
        hint = (
            f"`{error.name}` is made in step {MADE_IN_STEP[error.name]}, which has not been run"
            " yet. Choose Run > Run All Above Selected Cell, then run this cell again."
        )
        error._render_traceback_ = lambda: [hint]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def explain_skipped_steps():
    """Ask IPython to answer a skipped step with a hint. Outside a notebook, do nothing."""
    try:
        shell = get_ipython()
    except NameError:
        return
    shell.set_custom_exc((NameError,), _name_the_step)
    for name in MADE_IN_STEP:  # fastai brings a function `first`, which would hide a skipped step
        if isfunction(shell.user_ns.get(name)):
            del shell.user_ns[name]
