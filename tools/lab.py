"""Open demo.ipynb in JupyterLab: what `make lab` does once .venv is there.

PORT=8081 in the environment changes the port; `--no-browser` leaves the browser alone.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import zmq
from jupyter_core.paths import jupyter_runtime_dir

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.helpers import ROOT, again, port_trouble, read_port, why_not_writable  # noqa: E402

# Environment variables that name the folders which are else in the user's home.
KEPT_IN_HOME = "JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTERLAB_SETTINGS_DIR"
KEPT_IN_HOME += " JUPYTERLAB_WORKSPACES_DIR IPYTHONDIR MPLCONFIGDIR"


class LabError(Exception):
    """Something the user must put right; the message is one sentence that says what and how."""


def port_from(environ):
    """The port to listen on: PORT, else 8080."""
    try:
        return read_port(environ.get("PORT") or "8080")
    except ValueError as error:
        raise LabError(f"PORT={error}") from None


def check_port(port):
    """Raise LabError if we can't listen on this port."""
    if trouble := port_trouble(port, f"type `{again('lab', PORT='{port}')}`"):
        raise LabError(trouble)


def has_display(environ, platform=sys.platform):
    """Whether a browser window can be opened here."""
    if platform.startswith("linux"):
        return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    return not environ.get("SSH_CONNECTION")


def command(port, browser):
    """The JupyterLab command line.

    There is no token: the server listens on 127.0.0.1 alone, so only programs on this very machine
    can reach it, and Jupyter refuses requests that another website's page sends there (it checks
    the host, the origin and a cookie). On a machine shared with others use a token, as the guide
    to the rented GPU does.
    """
    args = [
        *(sys.executable, "-m", "jupyterlab"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",  # else a taken port silently becomes another one
        f"--ServerApp.root_dir={ROOT}",
        # The address is ours to say, so no setting of the user's own may change it.
        "--ServerApp.base_url=/",
        "--ServerApp.certfile=",
        "--ServerApp.keyfile=",
        "--IdentityProvider.token=",
        "--PasswordIdentityProvider.hashed_password=",
        "--LabApp.default_url=/lab/tree/demo.ipynb",
        "--ServerApp.allow_root=True",
        "--Application.log_level=ERROR",
    ]
    if zmq.has("curve"):  # else each kernel warns that it talks to us without encryption
        args.append("--KernelManager.transport_encryption=auto")
    if not browser:
        args.append("--ServerApp.open_browser=False")
    return args


def lab_environment(environ):
    """Environment of the server: our JupyterLab settings, and this Python's kernel.

    The settings (no question about news at the first visit) lie beside the user's own, which win.
    A kernel named python3 that the user once installed for another Python must not win. What
    JupyterLab and the kernel keep in the user's home goes elsewhere if it can't be written to.
    """
    ours = [str(ROOT / "tools" / "jupyter"), environ.get("JUPYTER_CONFIG_PATH", "")]
    env = dict(
        environ,
        JUPYTER_CONFIG_PATH=os.pathsep.join(filter(None, ours)),
        JUPYTER_PREFER_ENV_PATH="1",
    )
    try:
        lacking = why_not_writable(jupyter_runtime_dir())  # it does not start without
    except RuntimeError as error:  # a container's user may have no home at all
        lacking = error
    if lacking:
        home = tempfile.mkdtemp(prefix="jupyter-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        env.update({name: os.path.join(home, name.lower()) for name in KEPT_IN_HOME.split()})
        env.setdefault("HOME", home)
        print("Your home folder can't be written to: JupyterLab forgets its settings at the end.")
    return env


def start(port, browser):
    """Start JupyterLab where Ctrl-C does not reach it: it would ask "Shut down (y/[n])?"."""
    return subprocess.Popen(
        command(port, browser),
        cwd=ROOT,
        env=lab_environment(os.environ),
        stderr=subprocess.PIPE,
        start_new_session=True,  # which does nothing on Windows, and there is the flag
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def say_when_ready(port, server, browser):
    """Print what to click, as soon as the server answers."""
    address = f"http://localhost:{port}/lab/tree/demo.ipynb"
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=5).close()
        except OSError:
            time.sleep(0.1)
            continue
        print(
            f"{'Your browser shows' if browser else 'Open in a browser:'} {address}\n"
            "Wait until the circle at the top right is empty, then choose Run > Run All Cells; "
            "when it is empty again, all is done. Ctrl-C here closes JupyterLab.",
            flush=True,
        )
        return


def hand_on(log, asked):
    """Print what JupyterLab logs until it is to end: a kernel that only starts dies noisily."""
    for line in log:
        if not asked.is_set():
            print(line.decode(errors="replace"), end="", file=sys.stderr, flush=True)


def main():
    """Run JupyterLab until Ctrl-C; raises LabError if it can't start, or ends by itself."""
    port = port_from(os.environ)
    check_port(port)
    if why_not_writable(ROOT) or not os.access(ROOT / "demo.ipynb", os.W_OK):
        print(
            "demo.ipynb can't be saved here, as this folder can't be written to: all runs, and "
            "File > Download keeps a copy of what you see."
        )
    browser = "--no-browser" not in sys.argv[1:] and has_display(os.environ)
    asked = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: asked.set())
    server = start(port, browser)
    threading.Thread(target=say_when_ready, args=(port, server, browser), daemon=True).start()
    log = threading.Thread(target=hand_on, args=(server.stderr, asked), daemon=True)
    log.start()
    while server.poll() is None and not asked.wait(0.2):
        pass
    if not asked.is_set():
        log.join(2)
        raise LabError(
            f"JupyterLab ended by itself (status {server.returncode}); the lines above say why, and"
            f" if your own Jupyter settings are at fault, `{again('lab', JUPYTER_NO_CONFIG=1)}`"
            " does without them."
        )
    server.terminate()  # JupyterLab then shuts its kernels down and ends
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
    print("\nJupyterLab is closed.")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
