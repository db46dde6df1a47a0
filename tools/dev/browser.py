"""Find Chromium for the browser tests, and install it where that is ours to do."""

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APT = ("apt-get update -q", "apt-get install -y -q --no-install-recommends chromium")
LIMIT_S = 600  # for each of the two


def find_browser():
    """Path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def install_browser():
    """Install Chromium by apt, if we are root on Debian or Ubuntu (a container or a CI machine).

    Nobody's own computer is changed: there one is not root. Playwright's own download is not tried,
    since it comes from a host that a machine behind a package proxy can't reach.

    Returns
    -------
    path, reason : str or None
        The browser, or why there is none.
    """
    if path := find_browser():
        return path, None
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return None, "no Chromium or Chrome here (as root on Debian: apt-get install chromium)"
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        for command in APT:
            subprocess.run(
                command.split(), env=env, timeout=LIMIT_S, stdin=subprocess.DEVNULL, check=True
            )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        return None, str(error)
    path = find_browser()
    return path, None if path else "apt-get installed Chromium, but it is not on the path"
