"""Make .venv and install requirements.txt into it, once: what `make` does before each command.

With --dev, requirements-dev.txt too, which is added to the same .venv. Needs nothing but Python's
standard library, and reads as far back as Python 3.6, so that a machine with an old Python hears a
sentence rather than a SyntaxError.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUPPORTED = ("3.13", "3.12", "3.11")
# torch's Linux wheels bring the CUDA libraries along: .venv measured 6.5 GB. Elsewhere it has none.
DISK_GB = 8 if sys.platform.startswith("linux") else 3


class SetupError(Exception):
    """Something the user must put right; the message is one sentence that says what and how."""


def python_version(python):
    """The "major.minor" of an interpreter, or None where it can't be started.

    It is started rather than looked up, since pyenv leaves commands on the path that only fail.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        out = subprocess.run(
            [python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.decode().strip() if out.returncode == 0 else None


def choose_python(first=sys.executable):
    """The interpreter that called us if it will do, else a suitable one by name.

    Returns
    -------
    python, version : str
        Path of the interpreter and its "major.minor".

    Raises
    ------
    SetupError
        If this machine has no Python 3.11 to 3.13.
    """
    version = python_version(first)
    if version in SUPPORTED:
        return first, version
    for supported in SUPPORTED:
        python = shutil.which("python" + supported)
        if python and python_version(python) == supported:
            return python, supported
    raise SetupError(
        f"This is Python {version}, and the tutorial needs 3.11, 3.12 or 3.13: install one of "
        "them, then type `make lab PYTHON=python3.12` with the version you installed."
    )


def venv_python(venv):
    """Path of the interpreter inside a virtual environment."""
    return os.path.join(
        venv, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"])
    )


def stamp(root, name, version):
    """The line in .venv/.installed for one list of pins: its name, its checksum, the Python."""
    with open(os.path.join(root, name), "rb") as f:
        return f"{name} {hashlib.sha256(f.read()).hexdigest()} python {version}\n"


def to_install(root, names, versions):
    """Those of the lists `names` whose very pins are not all in .venv, for a Python of `versions`.

    Its Python does not start if the folder was copied from another machine. A folder merely moved
    on this one is fine: everything is called as `python -m ...`, never by the scripts whose first
    lines hold the old path.
    """
    venv = os.path.join(root, ".venv")
    try:
        with open(os.path.join(venv, ".installed")) as f:
            done = f.readlines()
    except OSError:
        return names
    version = python_version(venv_python(venv))
    if version not in versions:
        return names
    return [name for name in names if stamp(root, name, version) not in done]


def check_disk(folder, need_gb=DISK_GB):
    """Raise SetupError unless `folder`'s disk has `need_gb` (10^9 bytes) free."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < need_gb:
        raise SetupError(
            f"Not enough disk space: setting up needs about {need_gb} GB and {free:.1f} GB are "
            f"free in {folder}; free some, then run make again."
        )


def check_writable(folder):
    """Raise SetupError unless files can be made in `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(
            f"The folder {folder} can't be written to ({error.strerror}): copy the tutorial into "
            "one of your own and run make there."
        ) from None


def remove(venv):
    """Remove an environment, or the link to one.

    Raises
    ------
    SetupError
        If it can't be removed, as when it was made with `sudo`.
    """
    try:
        if os.path.islink(venv):
            os.unlink(venv)
        elif os.path.isdir(venv):
            shutil.rmtree(venv)
    except OSError as error:
        raise SetupError(
            f"The old {venv} can't be removed ({error.strerror}): delete it by other means, then "
            "run make again."
        ) from None


def make_venv(python, venv):
    """Create the virtual environment.

    Raises
    ------
    SetupError
        If Python has neither the means to put pip in nor a pip of its own.
    """

    def has(modules):
        return subprocess.call([python, "-c", "import " + modules], stderr=subprocess.DEVNULL) == 0

    own_pip = has("venv, ensurepip")  # Debian and Ubuntu leave ensurepip out of their Python
    if not own_pip and not has("venv, pip"):
        raise SetupError(
            "This Python has no venv module: on Debian or Ubuntu type "
            "`sudo apt install python3-venv`, then run make again."
        )
    subprocess.check_call([python, "-m", "venv"] + ([] if own_pip else ["--without-pip"]) + [venv])


def pip_for(python, venv):
    """The command that installs into an environment: its own pip, else that of `python`."""
    inner = venv_python(venv)
    if subprocess.call([inner, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0:
        return [inner, "-m", "pip"]
    return [python, "-m", "pip", "--python", inner]


def install_environment(environ, pip):
    """Environment variables for pip and uv.

    Our pins are complete and hashed, so a constraints file from the machine's pip settings could
    only contradict them; pip ignores an empty PIP_CONSTRAINT, but not an empty file. And uv does
    not read pip's settings, so the mirror that someone has set there is handed on to it.
    """
    env = dict(environ, PIP_CONSTRAINT=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1")
    env.setdefault("UV_HTTP_TIMEOUT", "180")  # seconds without a byte
    if not (env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL")):
        out = subprocess.run(
            pip + ["config", "get", "global.index-url"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        mirror = env.get("PIP_INDEX_URL") or out.stdout.decode().strip()
        if mirror:
            env["UV_DEFAULT_INDEX"] = mirror
    return env


def pinned(requirements, name):
    """The lines of one package, with its hashes, from a compiled requirements file."""
    lines, inside = [], False
    with open(requirements, encoding="utf-8") as f:
        for line in f:
            if not line.startswith((" ", "#")):
                inside = line.startswith(name + "==")
            if inside and not line.lstrip().startswith("#"):
                lines.append(line)
    return "".join(lines)


def install(python, venv, lists):
    """Install the pins in `lists` with uv, which the first one pins, or with pip without it.

    Raises
    ------
    SetupError
        If both fail.
    """
    pip = pip_for(python, venv)
    env = install_environment(os.environ, pip)
    with tempfile.TemporaryDirectory() as tmp:
        uv_only = os.path.join(tmp, "uv.txt")
        with open(uv_only, "w", encoding="utf-8") as f:
            f.write(pinned(lists[0], "uv"))
        get_uv = pip + ["install", "-qq", "--require-hashes", "--no-deps", "-r", uv_only]
        have_uv = subprocess.call(get_uv, env=env) == 0
    inner = venv_python(venv)
    hashed = ["--require-hashes"] + [arg for path in lists for arg in ("-r", path)]
    if have_uv:
        uv = [inner, "-m", "uv", "pip", "install", "--python", inner]
        if subprocess.call(uv + hashed, env=env) == 0:
            return
        check_disk(venv, 0.5)
    print("uv did not manage; trying pip, which is slower.", flush=True)
    # no cache: it would double the disk space
    if subprocess.call(pip + ["install", "--no-cache-dir"] + hashed, env=env) != 0:
        check_disk(venv, 0.5)
        raise SetupError(
            "The packages could not be installed (the lines above say why): check the network "
            "connection, then run make again"
            + ("; what was downloaded is kept." if have_uv else ".")
        )


def first_import(venv):
    """Import what the notebook and JupyterLab import, which has Python compile it, once.

    It would else be done in the notebook's first cell, and each time again where
    PYTHONDONTWRITEBYTECODE is set, as in many containers. It also shows whether torch starts here.

    Raises
    ------
    SetupError
        If an import fails.
    """
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    code = "import fastai.vision.all, ipykernel.kernelapp, jupyterlab.labapp, nbconvert"
    if subprocess.call([venv_python(venv), "-W", "ignore", "-c", code], env=env) != 0:
        raise SetupError(
            "The packages are installed, but Python can't load them (the lines above say why): "
            "delete the folder .venv, then run make again."
        )


def only_one(requirements):
    """Hold a lock until this process ends, so that a second `make` waits for the first.

    The lock is on requirements.txt itself, which needs no further file and frees itself at a crash.
    """
    f = open(requirements, "rb")
    try:
        import fcntl  # not on Windows

        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make is setting up in this folder; waiting for it.", flush=True)
            fcntl.flock(f, fcntl.LOCK_EX)
    except (ImportError, OSError):  # some network disks have no locks
        pass
    return f


def set_up(root=ROOT, this_python=False, dev=False):
    """Bring `root`/.venv up to date with the lists of pins; do nothing if it is.

    Parameters
    ----------
    root : str
        The repo.
    this_python : bool
        Whether the user named the Python that runs us, so that a .venv of another one won't do.
    dev : bool
        Whether requirements-dev.txt is wanted, too.
    """
    venv = os.path.join(root, ".venv")
    names = ["requirements.txt"] + ["requirements-dev.txt"] * dev
    lists = [os.path.join(root, name) for name in names]
    versions = [choose_python()[1]] if this_python else SUPPORTED
    if not to_install(root, names, versions):
        return
    with only_one(lists[0]):
        missing = to_install(root, names, versions)
        if not missing:  # the other make has done it
            return
        python, version = choose_python()
        check_writable(root)
        anew = names[0] in missing
        if anew:
            # A half-made environment can look whole, so it goes; downloads are in uv's cache.
            remove(venv)
            check_disk(root)
            size = "about 3 GB to download, 7 GB on disk" if DISK_GB == 8 else "some minutes"
            print(f"Setting up Python {version} in .venv, once: {size}.", flush=True)
            make_venv(python, venv)
        else:
            print("Adding what tests and bench need to .venv, once.", flush=True)
        install(python, venv, lists)
        if anew:
            print("Loading everything once.", flush=True)
            first_import(venv)
        version = python_version(venv_python(venv))
        with open(os.path.join(venv, ".installed"), "w") as f:
            f.writelines(stamp(root, name, version) for name in names)


if __name__ == "__main__":
    try:
        set_up(this_python="--this-python" in sys.argv, dev="--dev" in sys.argv)
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Set-up interrupted; the next make does it again.")
    except OSError as error:
        sys.exit(f"Set-up failed at {error.filename} ({error.strerror}).")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Set-up failed at `{' '.join(error.cmd)}`; the lines above say why.")
