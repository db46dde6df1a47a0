"""What a person gets on a computer that is too old, too small, too full or locked, for real.

The folder of the tutorial is made read-only, disks are filled, other users take over, and what is
said then is compared with the table in README.md.
"""

import ast
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import nbformat
import pytest
import requests
from conftest import NOTEBOOK, ROOT, code_cells
from limits import as_nobody, needs_root, public, read_only, small_disk  # noqa: F401
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from promises import keeps, untouched
from test_setup import run, write_notebook

from tools import helpers, lab, run_notebook, setup_env
from tutorial import needs
from tutorial.hints import step_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="the means to try it are Linux's")


# --- set-up


@pytest.fixture
def project(tmp_path):
    """What `make` needs before .venv is there, in a folder whose name is not all English."""
    root = tmp_path / "a b 中文"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", root)
    shutil.copy(ROOT / "tools" / "setup_env.py", root / "tools")
    (root / "requirements.txt").write_text("uv==1 --hash=sha256:00\n")
    return root


def make(root, *prefix, **environ):
    """`make lab` there with this very Python, which fails; returns all that was printed."""
    done = subprocess.run(
        [*prefix, "make", "--no-print-directory", "lab", f"PYTHON={sys.executable}"],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    return said


def module(folder, name, code):
    """Put a module where Python looks before its own; returns the variable that makes it look."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


OLD = "import sys; sys.version_info = (3, 8, 10)"


@pytest.mark.parametrize(
    "case, name, code",
    [
        ("too old a Python", "sitecustomize", OLD),
        ("a Python without venv", "venv", "raise ImportError"),
    ],
)
def test_a_python_that_will_not_do(case, name, code, project, tmp_path):
    with untouched(project):
        keeps(case, make(project, **module(tmp_path / "less", name, code)))


@needs_root
def test_a_disk_that_is_too_small(project):
    files = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    with small_disk(project, "1m"):
        for path, content in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        with untouched(project):
            keeps("a disk that is too small", make(project))


@needs_root
def test_a_folder_of_another_user(public, project):  # noqa: F811
    root = public / "tutorial"
    shutil.copytree(project, root)
    nobody = {"HOME": "/nonexistent"}
    with untouched(root):
        said = make(root, *as_nobody(), **nobody)
    keeps("a folder that can't be written to, before the set-up", said)
    (root / ".venv" / "lib").mkdir(parents=True)  # as after `sudo make lab`
    root.chmod(0o777)
    with untouched(root / ".venv"):
        keeps("a .venv that another user made", make(root, *as_nobody(), **nobody))


@pytest.mark.slow
@linux
def test_packages_that_cannot_be_had(project, tmp_path):
    """No index answers, then one is silent and the person gives up."""
    # As on Debian, whose Python brings no pip into the environment: that saves seconds.
    offline = module(tmp_path / "debian", "ensurepip", "raise ImportError")
    offline |= {"PIP_RETRIES": "0", "PIP_INDEX_URL": "http://127.0.0.1:1", "UV_DEFAULT_INDEX": "x"}
    keeps("the packages can't be downloaded", make(project, **offline))
    assert not (project / ".venv" / ".installed").exists()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        offline["PIP_INDEX_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            ["make", "lab", f"PYTHON={sys.executable}"],
            cwd=project,
            env={**os.environ, **offline},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # As at a terminal, also where these tests run behind something that ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        silent.settimeout(60)
        with silent.accept()[0]:  # pip has connected, and waits for an answer
            os.killpg(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    keeps("the set-up is interrupted", said)


@linux
def test_two_makes_at_once(project):
    pins = project / "requirements.txt"
    wait = [sys.executable, "-c", f"import setup_env; setup_env.only_one({str(pins)!r})"]
    with pins.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(wait, cwd=project / "tools", stdout=subprocess.PIPE, text=True)
        keeps("two makes at once", process.stdout.readline())
        assert process.poll() is None
    with process:
        assert process.wait(30) == 0


def test_a_venv_from_another_machine(project, monkeypatch):
    venv = project / ".venv"
    python = setup_env.venv_python(str(venv))
    os.makedirs(os.path.dirname(python))
    os.symlink("/no/such/python", python)
    (venv / "of the other machine").touch()
    for name in ("check_disk", "install", "first_import"):
        monkeypatch.setattr(setup_env, name, lambda *args: None)
    monkeypatch.setattr(setup_env, "make_venv", lambda python, venv: os.mkdir(venv))
    setup_env.set_up(str(project))
    assert os.listdir(venv) == [".installed"]
    keeps("a .venv copied from another machine")


# --- packages that don't fit, a kernel of another Python


@pytest.mark.slow
@linux
def test_torch_and_torchvision_that_do_not_match(tmp_path):
    """torchvision without the compiled part that this torch takes, as in a wrong pair."""
    import torchvision

    theirs = os.path.dirname(torchvision.__file__)
    ours = tmp_path / "packages" / "torchvision"
    ours.mkdir(parents=True)
    for name in os.listdir(theirs):
        if not name.startswith("_C"):
            (ours / name).symlink_to(os.path.join(theirs, name))
    notebook = write_notebook(tmp_path / "first.ipynb", "import tutorial")
    done = run(notebook, OUT=str(tmp_path / "out"), PYTHONPATH=str(ours.parent))
    assert done.returncode == 1
    keeps("torch and torchvision that don't match", done.stderr)
    shown = (tmp_path / "out" / "first.ipynb").read_text(encoding="utf-8")
    assert "Traceback" not in done.stderr + shown


@pytest.mark.parametrize(
    "case, before",
    [
        ("a kernel of another Python", ""),
        ("a kernel of a Python that is too old", "import sys; sys.version_info = (3, 9, 1)\n"),
    ],
)
def test_a_kernel_of_another_python(case, before):
    """-S leaves the packages out, as they are missing in another Python."""
    code = "try: import tutorial\nexcept Exception as error: print(*error._render_traceback_())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", before + code], cwd=ROOT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    keeps(case, done.stdout)


# --- computers that are not ours


@pytest.mark.parametrize("windows", [False, True], ids=["unix", "windows"])
@pytest.mark.parametrize("by", ["make", "hand", "conda"])
def test_each_is_told_the_command_that_they_use(by, windows, tmp_path, monkeypatch):
    """Windows has no make, and conda needs none."""
    monkeypatch.setattr(needs, "ROOT", tmp_path)
    monkeypatch.setattr(needs, "WINDOWS", windows)
    if by != "conda":
        (tmp_path / ".venv").mkdir()
    if by == "make":
        (tmp_path / ".venv" / ".installed").touch()
    venv = r".venv\Scripts\python" if windows else ".venv/bin/python"
    for told in (needs.open_lab(), needs.install_anew()):
        assert ("make lab" in told) == (by == "make")
        assert (venv in told) == (by == "hand")


def test_a_command_is_repeated_as_it_was_typed(monkeypatch):
    assert helpers.again("lab", PORT=1) == "PORT=1 make lab"  # tests run as under make
    monkeypatch.delenv("MAKELEVEL")
    monkeypatch.setattr(sys, "orig_argv", ["a b/python", "tools/lab.py"])
    assert shlex.split(helpers.again("lab", PORT=1)) == ["PORT=1", "a b/python", "tools/lab.py"]
    monkeypatch.setattr(sys, "orig_argv", [r".venv\Scripts\python", r"tools\lab.py"])
    typed = helpers.again("lab", windows=True, PORT=1)
    assert typed == r'$env:PORT="1"; .venv\Scripts\python tools\lab.py'  # in PowerShell


@pytest.mark.slow
def test_what_is_told_without_make_can_be_typed(tmp_path):
    notebook = write_notebook(tmp_path / "tiny.ipynb", "print(1)")
    env = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"}
    command = [sys.executable, ROOT / "tools" / "run_notebook.py", notebook]
    how = {"env": {**env, "OUT": "."}, "cwd": tmp_path, "capture_output": True, "text": True}
    told = subprocess.run(command, **how).stderr
    subprocess.run(told.split("`")[1], shell=True, check=True, **how)
    assert (tmp_path / "folder" / "tiny.html").exists()


def test_ctrl_c_does_not_reach_jupyterlab_on_windows(monkeypatch):
    """There a session of its own does not keep it away, but a process group does."""
    seen = {}
    monkeypatch.setattr(lab.subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(lab.subprocess, "Popen", lambda *args, **how: seen.update(how))
    lab.start(8080, browser=False)
    assert seen["creationflags"] == 512


# --- a poor computer


def squares(root, classes=("red", "blue"), train=16, valid=4):
    """Pictures of noise, each class brighter than the one before."""
    for split, many in (("train", train), ("valid", valid)):
        for i in range(many):
            place = i % len(classes)
            file = root / split / classes[place] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = Image.effect_noise((60, 50), 30).point(lambda p, up=90 * place: p + up)
            noise.convert("RGB").save(file)
    return root


POOR = """
import torch
torch.cpu.get_capabilities = lambda: {"avx2": True}  # of a CPU that has no bfloat16
del __import__("os").environ["OUT"]  # as in JupyterLab
"""
LAST = """
shm = os.statvfs("/dev/shm")
print("on /dev/shm:", shm.f_blocks - shm.f_bfree)
import resource
print("megabytes:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
out = results_folder()
shutil.rmtree(out)
"""


@pytest.mark.slow
@needs_root
def test_part_one_on_a_poor_computer(public):  # noqa: F811
    """One core by quota, no bfloat16, 1 MB of /dev/shm, no font, no home, nothing to write to."""
    if not shutil.which("unshare"):
        pytest.skip("this machine has no unshare")
    imgs = squares(public / "图", ["红", "蓝"])
    stored = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell.source for cell in code_cells(stored)]
    until = [cell.id for cell in code_cells(stored)].index("accuracy")
    poor = new_notebook(cells=[new_code_cell(c) for c in [POOR, *cells[: until + 1], LAST]])
    nbformat.write(poor, public / "poor.ipynb")
    hide = "mount -t tmpfs -o size=1m tmpfs /dev/shm && mount -t tmpfs tmpfs /sys/fs/cgroup && "
    hide += "echo 100000 100000 >/sys/fs/cgroup/cpu.max && "  # as a container says it
    hide += "if [ -d /usr/share/fonts ]; then mount -t tmpfs tmpfs /usr/share/fonts; fi && "
    with untouched(imgs), untouched(ROOT / "tutorial"), untouched(ROOT / "weights"):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", hide + 'exec "$@"', "sh", *as_nobody(), sys.executable]
            + ["tools/run_notebook.py", public / "poor.ipynb"],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if "DISPLAY" not in k},
                "HOME": "/nonexistent",
                "TMPDIR": str(public),
                "IMGS": str(imgs),
                "OUT": str(public / "out"),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    ran = nbformat.read(public / "out" / "poor.ipynb", as_version=4)
    said = "".join(out.get("text", "") for cell in ran.cells for out in cell.outputs)
    pictures = [out for cell in ran.cells for out in cell.outputs if "image/png" in str(out)]
    assert len(pictures) >= 2 and "the classes are 红, 蓝" in said
    for case in ("one core", "a processor without bfloat16", "/dev/shm of 64 MB"):
        keeps(case, said)
    keeps("no font for the names of the classes", said)
    keeps("no home folder, in the notebook", said)
    keeps("the folder out can't be written to", said)
    assert int(said.split("megabytes: ")[1].split()[0]) < 2000
    keeps("2 GB of memory")


WORKERS = """
import multiprocessing
import sys
import time
import warnings

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    import tutorial
    from fastai.vision.all import *
    for workers in (0, 1):
        dls = ImageDataLoaders.from_folder(
            Path(sys.argv[1]),
            valid="valid",
            item_tfms=Resize(32),
            batch_tfms=aug_transforms(),
            bs=8,
            num_workers=workers,
            device="cpu",
        )
        print(workers, "workers:", len(dls.train.one_batch()[1]), "pictures")
"""


@pytest.mark.slow
def test_workers_where_each_is_a_fresh_python(tmp_path):
    """As on Windows and macOS. The notebook's 0 starts none; who asks for more gets them."""
    (tmp_path / "script.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "script.py", squares(tmp_path / "imgs", train=8, valid=2)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0 workers: 8 pictures", "1 workers: 8 pictures"]
    keeps("workers on Windows and macOS", done.stdout)


# --- JupyterLab


@pytest.fixture
def copy(tmp_path):
    """The files that JupyterLab is started with, in a folder with a space and Chinese letters."""
    root = tmp_path / "a b 中文"
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(NOTEBOOK, root)
    return root


class Lab:
    """A JupyterLab started as `make lab` does; `said` is all that it has printed, once it ended."""

    def __init__(self, root, *prefix, port=None, **environ):
        self.port, self.said, self.ready = port or helpers.free_port(), "", threading.Event()
        here = {name: text for name, text in os.environ.items() if "DISPLAY" not in name}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "tools/lab.py"],
            cwd=root,
            env={**here, "PYTHONDONTWRITEBYTECODE": "1", "PORT": str(self.port), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.said += line
                if "Run > Run All Cells" in line:
                    self.ready.set()
        self.ready.set()

    def ask(self, method, path, content=None):
        """One request, as the page in the browser would make it; returns status and answer."""
        address, page = f"http://127.0.0.1:{self.port}", requests.Session()
        page.get(f"{address}/lab", timeout=30)
        headers = {"X-XSRFToken": page.cookies["_xsrf"]}
        answer = page.request(method, address + path, json=content, headers=headers, timeout=30)
        return answer.status_code, answer.json()

    def save(self):
        """Save the notebook, as Ctrl-S does."""
        _, model = self.ask("GET", f"/api/contents/{NOTEBOOK.name}")
        content = {key: model[key] for key in ("type", "format", "content")}
        return self.ask("PUT", f"/api/contents/{NOTEBOOK.name}", content)

    def end(self, how=signal.SIGINT):
        """Press Ctrl-C, or what else `how` says; returns the status and all that was printed."""
        self.process.send_signal(how)  # does nothing if it has ended by itself
        status = self.process.wait(60)
        self.reader.join(30)
        return status, self.said


@contextmanager
def opened(*args, **kwargs):
    """A `Lab` that is ready, and is gone afterwards."""
    started = Lab(*args, **kwargs)
    try:
        assert started.ready.wait(120) and "http://localhost" in started.said, started.said
        yield started
    finally:
        started.end(signal.SIGTERM)


def children(pid):
    """The processes below a process."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        found = [int(child) for child in file.read().split()]
    return found + [one for child in found for one in children(child)]


@pytest.mark.slow
@linux
def test_a_second_start_and_ctrl_c(copy):
    with untouched(copy), opened(copy) as first:
        keeps("no display", first.said)
        keeps("a path with spaces and Chinese letters", first.said)
        second = Lab(copy, port=first.port)
        assert second.process.wait(60) != 0
        keeps("a second start", second.end()[1])
        assert second.said.count("\n") == 1
        assert first.ask("POST", "/api/kernels", {"name": "python3"})[0] == 201
        ours = children(first.process.pid)
        assert len(ours) == 2  # the server and the kernel, which is still starting
        status, said = first.end()
    assert status == 0 and "y/[n]" not in said and "Traceback" not in said
    assert not [pid for pid in ours if os.path.exists(f"/proc/{pid}")]
    keeps("Ctrl-C in the terminal", said)


@pytest.mark.slow
@needs_root
def test_a_folder_that_is_read_only_even_for_root(copy):
    with read_only(copy), untouched(copy), opened(copy) as lab:
        keeps("a read-only checkout", lab.said)
        status, answer = lab.save()
        assert status == 403
        keeps("saving in a read-only checkout", answer["message"])


@pytest.mark.slow
@needs_root
def test_an_ordinary_user_without_a_home(public):  # noqa: F811
    """In a container a user may have no home, no name, and none of the files."""
    nobody = as_nobody(54321)
    with untouched(ROOT / "tools"), opened(ROOT, *nobody, HOME="/nonexistent") as lab:
        assert lab.ask("POST", "/api/kernels", {"name": "python3"})[0] == 201
        assert lab.save()[0] == 403
        status, said = lab.end()
    assert status == 0 and "Traceback" not in said
    keeps("no home folder", said)
    keeps("an ordinary user, files of another", said)
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) > 80:
            refused = Lab(ROOT, *nobody, port=80)
            assert refused.process.wait(60) != 0
            keeps("a port for root alone", refused.end()[1])


MINE = {
    "ServerApp": {"base_url": "/mine", "certfile": "/no/such", "port": 1, "ip": "*"},
    "PasswordIdentityProvider": {"hashed_password": "argon2:x"},
}


@pytest.mark.slow
@linux
def test_settings_of_ones_own(copy, tmp_path):
    """A broken file and one that changes the address, then one that JupyterLab refuses."""
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "jupyter_server_config.json").write_text(json.dumps(MINE))
    (folder / "jupyter_server_config.py").write_text("c.ServerApp.port = = 1\n")
    with opened(copy, JUPYTER_CONFIG_DIR=str(folder)) as lab:
        assert lab.save()[0] == 200
        keeps("Jupyter settings that change the address")
        status, said = lab.end(signal.SIGHUP)
    assert status == 0
    keeps("a broken file of Jupyter settings", said)
    keeps("the terminal is closed", said)
    refused = "c.ServerApp.allow_remote_access = 'perhaps'\n"
    (folder / "jupyter_server_config.py").write_text(refused)
    lab = Lab(copy, JUPYTER_CONFIG_DIR=str(folder))
    assert lab.process.wait(60) != 0 and "Traceback" not in lab.end()[1]
    keeps("Jupyter settings that it refuses", lab.said)
    with opened(copy, JUPYTER_CONFIG_DIR=str(folder), JUPYTER_NO_CONFIG="1", TMPDIR=str(tmp_path)):
        pass  # as the sentence promised


# --- stepping through the notebook

# fastai has a `copy` of its own, so without step 17 no name is missing.
MADE = {name: step for name, step in step_of().items() if name != "copy"}
STEPS = {
    "import": "import tutorial\nfrom fastai.vision.all import *\nfrom tutorial import *\n"
    "explain_skipped_steps()",
    **{f"skipped {name}": f"print({name})" for name in MADE},
    "wrong path": 'hello(Path("no/such/folder"), 2, 3)',
    "a file": 'hello(Path("README.md"), 2, 3)',
    "tiny": """
path = Path(os.environ["IMGS"])
dls = ImageDataLoaders.from_folder(
    path, valid="valid", item_tfms=Resize(32), bs=4, num_workers=0, device="cpu"
)
fast_defaults()
learn = vision_learner(dls, resnet34, metrics=accuracy)


class Stop(Callback):
    def after_pred(self):
        if self.training and self.iter == 1:
            os.kill(os.getpid(), 2)  # what the square button does
            time.sleep(60)
""",
    "stopped": "learn.fit_one_cycle(2, 3e-3, cbs=Stop())\nhistory = epoch_losses(learn.recorder)",
    "after the stop": "show_losses(*history)",
    "going on": """
valid_probs, valid_truth = learn.get_preds()
learn.fit_one_cycle(1, 3e-3)
history = epoch_losses(learn.recorder)
show_losses(*history)
print("went on,", len(valid_probs), "answers,", learn.n_epoch, "epoch")
""",
}


@pytest.fixture(scope="module")
def stepped(tmp_path_factory):
    """What a kernel shows for each of STEPS, run one by one as with Shift+Enter."""
    nb = new_notebook(cells=[new_code_cell(source) for source in STEPS.values()])
    imgs = squares(tmp_path_factory.mktemp("pictures") / "imgs")
    settings = {"IMGS": str(imgs), "OMP_NUM_THREADS": "1", "BODY": "bundled"}
    client = NotebookClient(
        nb, allow_errors=True, timeout=300, resources={"metadata": {"path": str(ROOT)}}
    )
    with untouched(imgs):
        client.execute(env={**os.environ, **settings})
    shown = {}
    for name, cell in zip(STEPS, nb.cells, strict=True):
        texts = [out.get("text") or "\n".join(out.get("traceback", [])) for out in cell.outputs]
        shown[name] = "\n".join(texts)
    return shown


def test_every_skipped_step_gets_a_hint(stepped):
    """Each name, with the step whose cells do make it; and each that a later cell reads."""
    made, read, step = {}, set(), 0
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "markdown":
            step = int((re.findall(r"(?m)^### Step (\d+)", cell.source) or [step])[-1])
        else:
            nodes = list(ast.walk(ast.parse(cell.source)))
            names = [node for node in nodes if isinstance(node, ast.Name)]
            here = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            own = here | {node.arg for node in nodes if isinstance(node, ast.arg)}
            own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
            read |= {node.id for node in names if node.id in made} - own
            made |= {name: step for name in (here | own) - set(made)}
    assert read <= set(step_of())
    for name, number in MADE.items():
        said = stepped[f"skipped {name}"]
        assert made[name] == number and said.startswith(f"`{name}` is made in step {number},")
        assert "\n" not in said
        keeps("a step is skipped", said)


def test_a_path_that_names_no_pictures(stepped):
    for case, said in (
        ("path names a folder that is not there", stepped["wrong path"]),
        ("path names a file", stepped["a file"]),
    ):
        assert said.startswith("FolderError: ") and "\n" not in said
        keeps(case, said)


def test_a_training_that_is_stopped(stepped):
    assert stepped["tiny"].startswith("The body is")
    assert "KeyboardInterrupt" in stepped["stopped"].splitlines()[-1]
    keeps("a cell that needs what a stopped one did not make", stepped["after the stop"])
    keeps("Stop during training", stepped["going on"])


@pytest.mark.slow
def test_a_kernel_that_dies_while_training(tmp_path):
    """As the system ends it when memory is short: without a word."""
    die = "print('epoch 0', flush=True)\nimport os, time\ntime.sleep(2)\nos.kill(os.getpid(), 9)"
    notebook = write_notebook(tmp_path / "tiny.ipynb", "print('kept')", die, "print('never')")
    with untouched(notebook):
        done = run(notebook, OUT=str(tmp_path / "out"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    keeps("the kernel dies", done.stderr)
    ran = nbformat.read(tmp_path / "out" / "tiny.ipynb", as_version=4)
    assert [cell.outputs and cell.outputs[0].text for cell in code_cells(ran)] == [
        "kept\n",
        "epoch 0\n",
        [],
    ]


@pytest.mark.slow
@needs_root
def test_results_that_have_no_place(tmp_path):
    notebook = write_notebook(tmp_path / "tiny.ipynb", "print(1)")
    locked = tmp_path / "locked"
    locked.mkdir()
    with read_only(locked), untouched(locked):
        done = run(notebook, OUT=str(locked))
        assert done.returncode == 1 and "[1/1]" not in done.stdout  # before any work
        keeps("the results of make run can't be written", done.stderr)
        assert done.stderr.count("\n") == 1
    with small_disk(tmp_path / "full", "64k") as full:
        done = run(notebook, OUT=str(full))
        assert done.returncode == 1 and "Traceback" not in done.stderr
        keeps("the disk is full when make run ends", done.stderr)
        assert not list(full.glob(".*"))


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{ broken", "<<<<<<< HEAD"])
def test_a_notebook_that_cannot_be_read(content, tmp_path, monkeypatch, capsys):
    notebook = tmp_path / "merged.ipynb"
    notebook.write_text(content)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    with untouched(tmp_path):
        assert run_notebook.main([str(notebook)]) == 1
    keeps("a notebook left broken by a merge", capsys.readouterr().err)
