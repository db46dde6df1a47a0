"""Measured comparisons: `make bench`, `python -m bench.stability`, `python -m bench.endurance`.

Each writes its results, as Markdown, beside its own file.
"""

import tutorial  # noqa: F401 - comes first, to hide a warning of PyTorch's
