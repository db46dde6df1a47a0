"""Measured comparisons: `make bench`, and `python -m` bench.stability, .endurance and .scale.

Each writes its results, as Markdown, beside its own file.
"""

import os

import tutorial  # noqa: F401 - comes first, to hide a warning of PyTorch's

os.environ["BODY"] = "bundled"  # as all reports say; and a download is not what is measured
