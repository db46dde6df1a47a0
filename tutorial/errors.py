"""Errors for people: in a notebook they show one sentence, not a traceback."""


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
