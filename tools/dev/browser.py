"""Find Chromium for the browser test, and install it where that is ours to do."""

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser():
    """Path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def install_browser(limit_s=600):
    """Install Chromium by apt, if we are root on Debian or Ubuntu (a container or a CI machine).

    Nobody's own computer is changed: there one is not root. Playwright's own download is not tried,
    since it comes from a host that a machine behind a package proxy can't reach.

    Parameters
    ----------
    limit_s : float
        Seconds that each of the two apt commands may take.

    Returns
    -------
    path, reason : str or None
        The browser, or why there is none.
    """
    if path := find_browser():
        return path, None
    if not shutil.which("apt-get"):
        return None, "no Chromium or Chrome here, and no apt-get to install it"
    if os.geteuid() != 0:
        return None, "no Chromium or Chrome here (as root: apt-get install chromium)"
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for args in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "chromium"]):
        try:
            done = subprocess.run(
                ["apt-get", *args],
                env=env,
                timeout=limit_s,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return None, f"apt-get {args[0]} took more than {limit_s} s"
        if done.returncode:
            return None, f"apt-get {args[0]} failed: {done.stdout.strip().splitlines()[-1:]}"
    path = find_browser()
    return path, None if path else "apt-get installed Chromium, but it is not on the path"


if __name__ == "__main__":
    print(*filter(None, install_browser()))
