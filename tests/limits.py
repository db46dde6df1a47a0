"""A poor machine, for real: another user, a disk with no room, a folder that can't be written to.

Much of it takes root and Linux; a test that can't have it is skipped, and says why.
"""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
ROOT_ON_LINUX = hasattr(os, "setresuid") and os.geteuid() == 0 and Path("/proc").exists()
needs_root = pytest.mark.skipif(not ROOT_ON_LINUX, reason="only root on Linux can be somebody else")


def as_nobody(user=NOBODY):
    """The beginning of a command that runs the rest of it as an ordinary user, given by number.

    That user may read all, since Python may lie in root's own folder, but write nothing of root's.
    """
    if not shutil.which("setpriv"):
        pytest.skip("this machine has no setpriv")
    read = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *read]


@contextmanager
def ordinary_user():
    """Let this very process be an ordinary user for a while, who may not even read root's files."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public():
    """An empty folder that every user can reach and write to; pytest's own are for root alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@contextmanager
def mounted(folder, *options):
    """Mount something on a folder, or skip the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def small_disk(folder, size):
    """A disk of `size` bytes, in place of a folder."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


@contextmanager
def read_only(folder):
    """Make all that lies in a folder read-only, as on a CD or a locked share, for root too."""
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield folder
