"""What the programs here and gcp/vm.py share; needs nothing but Python's standard library.

Nothing of it lies in `tutorial`, which takes seconds to import, or fails if packages don't fit.
"""

import errno
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shown(command, windows=os.name == "nt"):
    """A command, given as a list, as one types it."""
    return subprocess.list2cmdline(command) if windows else shlex.join(command)


def again(target, windows=os.name == "nt", **variables):
    """The command that was typed, to be typed again with environment variables before it.

    It is `make` and the target if make has started us. Windows has none, nor needs conda one: there
    it is this program's own command, on Windows for PowerShell, as in the README.
    """
    typed = f"make {target}" if "MAKELEVEL" in os.environ else shown(sys.orig_argv, windows)
    for name, value in variables.items():
        typed = f'$env:{name}="{value}"; {typed}' if windows else f"{name}={value} {typed}"
    return typed


def read_port(text):
    """The number of a port; raises ValueError, whose sentence begins with the text."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{text} is not a port: give a number from 1 to 65535.")
    return int(text)


def port_trouble(port, another):
    """Why we can't listen on a port of this computer, in one sentence, or "".

    A browser may go to ::1, where Jupyter would not notice another program. The text `another` says
    how to ask for the port `{port}` instead.
    """
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            socket.create_server((host, port), family=family).close()
        except PermissionError:
            return f"Port {port} is not for ordinary users: take one above 1023."
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # else this computer has no such address
                another = another.format(port=port + 1 if port < 65535 else 8080)
                return (
                    f"Port {port} is already taken, perhaps by a JupyterLab left open: close that"
                    f" one, or {another} for another port."
                )
    return ""


def free_port():
    """A port of this computer on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def why_not_writable(folder):
    """Why no file can be made in a folder, which is made if need be; "" if one can."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # asking the system is not as sure as trying
            return ""
    except OSError as error:
        return error.strerror


def write(path, text):
    """Write a file whole or not at all: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
