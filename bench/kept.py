"""Runs that are kept as they end, so that an interrupted measurement goes on after the last one."""

import hashlib
import json

from bench.report import ROOT, hardware
from tutorial.download import sha256
from tutorial.files import write_whole

__all__ = ["Kept"]

# What the numbers depend on, besides the code that measures.
FILES = ["backbone", "defaults", "precision", "folders/reading", "recipe", "start", "verdict"]
FILES = [ROOT / "tutorial" / f"{name}.py" for name in FILES]
FOLDERS = ["weights", "imgs/train", "imgs/valid", "imgs/test"]


class Kept:
    """The finished runs of one way to measure, by seed, in a file.

    Parameters
    ----------
    file : Path
        One run a line, as JSON.
    code : object
        Of the measurement; with it, what it depends on and the hardware, runs fit together.

    Attributes
    ----------
    rows : dict of int to dict
    """

    def __init__(self, file, code):
        self.file, self.mark = file, fingerprint(code)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows = map(json.loads, lines)
        self.rows = {row["seed"]: row for row in rows if row["recipe"] == self.mark}

    def add(self, seed, row):
        """Keep one more, and write them all."""
        self.rows[seed] = {"recipe": self.mark, "seed": seed, **row}
        write_whole(self.file, "".join(json.dumps(row) + "\n" for row in self.rows.values()))


def fingerprint(code):
    """Return 16 digits that change with all that the numbers depend on."""
    mark = hashlib.sha256(repr((code, hardware())).encode())
    there = [file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.*"))]
    for file in [*FILES, *there]:
        mark.update(f"{file.relative_to(ROOT).as_posix()} {sha256(file)}".encode())
    return mark.hexdigest()[:16]
