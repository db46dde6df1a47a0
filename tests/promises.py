"""The promises of tests/README.md: what a person gets when something goes wrong.

Each test of such a case calls `keeps` with the case's name and what was really said, so the table
cannot say one thing and the program another. test_static.py sees to it that every case is tried.
"""

import hashlib
import os
import re
from contextlib import contextmanager
from pathlib import Path

TABLE = Path(__file__).with_name("README.md")


def promises():
    """The table: for each case the sentences in code style, in order.

    Returns
    -------
    list of (str, list of str)
    """
    rows = re.findall(r"(?m)^\| (?!case \||---)([^|]+?) \| (.+) \|$", TABLE.read_text("utf-8"))
    return [(case, re.findall(r"`([^`]+)`", given)) for case, given in rows]


def keeps(case, said=""):
    """Assert that every sentence promised for `case` stands in `said`, where … stands for anything.

    Parameters
    ----------
    case : str
        The first column of the table.
    said : str
        What was printed, raised or returned. Line breaks and blanks count as one blank.
    """
    said = " ".join(said.split())
    for sentence in dict(promises())[case]:
        pattern = ".*?".join(re.escape(" ".join(part.split())) for part in sentence.split("…"))
        assert re.search(pattern, said), f"{case}: promised {sentence!r}, but got {said!r}"


def state(root):
    """Everything in a folder, or a file: names, kinds, sizes, times, where links lead, bytes."""
    inside = [(folder, folders + files) for folder, folders, files in os.walk(root)]
    places = [root, *(os.path.join(folder, name) for folder, names in inside for name in names)]
    seen = {}
    for place in map(os.fspath, places):
        about, content = os.lstat(place), b""
        if os.path.islink(place):
            content = os.readlink(place)
        elif os.path.isfile(place) and os.access(place, os.R_OK):
            content = hashlib.sha256(Path(place).read_bytes()).digest()
        seen[place] = about.st_mode, about.st_size, about.st_mtime_ns, content
    return seen


@contextmanager
def untouched(root):
    """Assert that what happens in the ``with`` block leaves a folder as it was."""
    before = state(root)
    yield
    assert state(root) == before
