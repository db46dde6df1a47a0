"""Setting up, `make lab` and `make run`: what they do again, and what they say when they can't."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import namedtuple

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from promises import keeps

from tools import lab, run_notebook, setup_env
from tools.dev import browser

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def one_sentence(error):
    """The message of an error, after checking that it is one sentence."""
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text, text
    return text


# --- set-up


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with pins, where installing is only noted down and takes no time."""
    root = tmp_path / "a b 中文"
    root.mkdir()
    (root / "requirements.txt").write_text(
        "uv==1 \\\n    --hash=sha256:0\n    # via nobody\nx==2\n"
    )
    installs = []

    def make_venv(python, venv):
        os.makedirs(os.path.dirname(setup_env.venv_python(venv)))
        os.symlink(sys.executable, setup_env.venv_python(venv))
        return ["pip"]

    monkeypatch.setattr(setup_env, "make_venv", make_venv)
    monkeypatch.setattr(setup_env, "check_disk", lambda *args: None)
    monkeypatch.setattr(setup_env, "install", lambda *args: installs.append(args))
    monkeypatch.setattr(setup_env, "first_import", lambda venv: None)
    return root, installs


def test_set_up_installs_once_and_again_when_the_pins_change(project):
    root, installs = project
    setup_env.set_up(str(root))
    setup_env.set_up(str(root))
    assert len(installs) == 1
    with open(root / "requirements.txt", "a") as f:
        f.write("y==3\n")
    setup_env.set_up(str(root))
    setup_env.set_up(str(root))
    assert len(installs) == 2


def test_set_up_is_done_again_after_an_interruption(project, monkeypatch):
    root, installs = project

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(setup_env, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup_env.set_up(str(root))
    (root / ".venv" / "half-made").touch()
    setup_env.set_up(str(root))
    assert len(installs) == 1
    assert not (root / ".venv" / "half-made").exists()


def test_set_up_is_done_again_when_the_venv_does_not_start(project):
    root, installs = project
    setup_env.set_up(str(root))
    python = setup_env.venv_python(str(root / ".venv"))
    os.unlink(python)
    os.symlink(str(root / "gone"), python)  # as after copying the folder to another machine
    setup_env.set_up(str(root))
    assert len(installs) == 2


def test_a_moved_folder_is_not_set_up_again(project):
    root, installs = project
    setup_env.set_up(str(root))
    moved = root.with_name("moved")
    shutil.move(root, moved)
    setup_env.set_up(str(moved))
    assert len(installs) == 1


def test_a_python_asked_for_by_name_replaces_another(project, monkeypatch):
    root, installs = project
    setup_env.set_up(str(root))
    other = next(v for v in setup_env.SUPPORTED if v != HERE)
    monkeypatch.setattr(setup_env, "choose_python", lambda: (f"python{other}", other))
    setup_env.set_up(str(root))
    assert len(installs) == 1
    setup_env.set_up(str(root), this_python=True)
    assert len(installs) == 2


def test_wrong_python_is_one_sentence(monkeypatch):
    monkeypatch.setattr(setup_env, "python_version", lambda python: "3.8")
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.choose_python("python3")
    text = one_sentence(error)
    assert text.startswith("This is Python 3.8") and "3.11, 3.12 or 3.13" in text


def test_another_suitable_python_is_found(monkeypatch):
    """python3 is too old, python3.13 is a command that only fails, and python3.12 will do."""
    versions = {"python3": "3.9", "/bin/python3.12": "3.12", "/bin/python3.13": None}
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(setup_env, "python_version", versions.get)
    assert setup_env.choose_python("python3") == ("/bin/python3.12", "3.12")


def test_no_disk_space_is_one_sentence(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda folder: usage(9e9, 8e9, 1e9))
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.check_disk(str(tmp_path / "x"))
    assert "Not enough disk space" in one_sentence(error).split(";")[0]


def test_no_venv_module_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env.subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.make_venv("python3", str(tmp_path / ".venv"))
    assert "python3-venv" in one_sentence(error)


def test_make_sets_up_by_itself_and_passes_the_sentence_on(tmp_path):
    """`make run` with a Python too old for us ends with our sentence, before anything else."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "setup_env.py").write_text("import sys; sys.exit('A sentence.')")
    done = subprocess.run(
        ["make", "run", f"PYTHON={sys.executable}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.startswith("A sentence.\n")


def test_make_without_python_is_one_sentence():
    done = subprocess.run(
        ["make", "--no-print-directory", "run", "PYTHON=no-such-python"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stdout.startswith("No no-such-python on this machine: install Python 3.11")
    keeps("no Python at all", done.stdout)


def test_packages_that_do_not_load_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env.subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.first_import(str(tmp_path))
    keeps("packages that are there and don't load", one_sentence(error))


def test_the_lines_of_one_package():
    uv = setup_env.pinned(str(ROOT / "requirements.txt"), "uv")
    assert uv.startswith("uv==") and uv.count("==") == 1 and "--hash=sha256:" in uv


def test_pip_settings_of_the_machine(monkeypatch):
    """A constraints file is overruled; a mirror is handed on to uv, unless uv has its own."""
    fake = [sys.executable, "-c", "print('https://mirror.example/pins')"]
    env = setup_env.install_environment({"PIP_CONSTRAINT": "c.txt"}, fake)
    assert env["PIP_CONSTRAINT"] == os.devnull
    assert env["UV_DEFAULT_INDEX"] == "https://mirror.example/pins"
    env = setup_env.install_environment({"UV_DEFAULT_INDEX": "https://other.example"}, fake)
    assert env["UV_DEFAULT_INDEX"] == "https://other.example"
    silent = [sys.executable, "-c", "raise SystemExit(1)"]
    assert "UV_DEFAULT_INDEX" not in setup_env.install_environment({}, silent)


def test_pip_takes_over_where_uv_fails(tmp_path, monkeypatch):
    pins = tmp_path / "requirements.txt"
    pins.write_text("uv==1 --hash=sha256:0\nx==2 --hash=sha256:0\n")
    calls = []

    def call(args, env):
        calls.append(args)
        return 0 if args[0] == "pip" else 1

    monkeypatch.setattr(setup_env.subprocess, "call", call)
    monkeypatch.setattr(setup_env, "install_environment", lambda environ, pip: {})
    monkeypatch.setattr(setup_env, "check_disk", lambda *args: None)
    setup_env.install(["pip"], str(tmp_path), str(pins))
    assert [args[0] for args in calls] == ["pip", setup_env.venv_python(str(tmp_path)), "pip"]
    assert "--require-hashes" in calls[-1] and str(pins) in calls[-1]


# --- make lab


@pytest.fixture(params=["127.0.0.1", "::1"])
def taken(request):
    """A port on which another program listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        s = socket.socket(family)
        s.bind((request.param, 0))
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    s.listen()
    yield s.getsockname()[1]
    s.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_taken_port_is_one_sentence(taken):
    with pytest.raises(lab.LabError) as error:
        lab.check_port(taken)
    text = one_sentence(error)
    assert f"Port {taken} is already taken" in text and f"PORT={taken + 1} make lab" in text
    keeps("a port that is taken", text)


def test_taken_port_ends_the_command(taken):
    done = subprocess.run(
        [sys.executable, "tools/lab.py", "--no-browser"],
        cwd=ROOT,
        env=dict(os.environ, PORT=str(taken)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith(f"Port {taken} is already taken") and "Traceback" not in done.stderr
    )


def test_free_port_is_fine():
    lab.check_port(free_port())


@pytest.mark.parametrize("text", ["x", "0", "65536", "80.5", "-1"])
def test_a_port_that_is_none(text):
    with pytest.raises(lab.LabError) as error:
        lab.port_from({"PORT": text})
    assert f"PORT={text}" in str(error.value)
    keeps("PORT is no port", str(error.value))


def test_port_is_8080_by_default():
    assert lab.port_from({}) == lab.port_from({"PORT": ""}) == 8080
    assert lab.port_from({"PORT": "8081"}) == 8081


def test_display():
    assert not lab.has_display({}, "linux")
    assert lab.has_display({"DISPLAY": ":0"}, "linux")
    assert lab.has_display({"WAYLAND_DISPLAY": "wayland-0"}, "linux")
    assert lab.has_display({}, "darwin")


def test_lab_listens_on_this_machine_only():
    args = lab.command(8080, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in args
    assert "--ServerApp.port_retries=0" in args
    assert "--ServerApp.open_browser=False" in args
    assert "--ServerApp.open_browser=False" not in lab.command(8080, browser=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_lab_opens_without_a_token_and_ctrl_c_closes_it():
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "tools/lab.py", "--no-browser"],
        cwd=ROOT,
        env=dict(os.environ, PORT=str(port)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert f"http://localhost:{port}/lab" in process.stdout.readline()
        assert "Run > Run All Cells" in process.stdout.readline()
        for address in (f"http://localhost:{port}/lab", f"http://localhost:{port}/"):
            with urllib.request.urlopen(address, timeout=30) as page:
                assert page.status == 200
                assert page.url.startswith(f"http://localhost:{port}/lab"), "a login page?"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "y/[n]" not in rest and "Traceback" not in rest
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://localhost:{port}/lab", timeout=5)


# --- make run


def write_notebook(path, *cells):
    """A notebook of one-line code cells, each under its own heading."""
    nb = new_notebook(cells=[new_markdown_cell("# Tiny")])
    for n, source in enumerate(cells, 1):
        nb.cells += [new_markdown_cell(f"## Step {n}: do it"), new_code_cell(source)]
    nbformat.write(nb, path)
    return path


def run(path, *args, **environ):
    """Call tools/run_notebook.py as make does; `environ` is added to the environment."""
    return subprocess.run(
        [sys.executable, "tools/run_notebook.py", str(path), *args],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_run_writes_both_files_and_exports_the_settings(tmp_path):
    imgs, out = tmp_path / "my pics 图", tmp_path / "out 出"
    imgs.mkdir()
    notebook = write_notebook(
        tmp_path / "tiny.ipynb",
        "import os; print(os.environ['IMGS'], os.environ['BODY'], os.environ['OUT'])",
        "print(os.getcwd())",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    )
    before = notebook.read_bytes()
    relative = os.path.relpath(imgs, ROOT)
    done = run(notebook, IMGS=relative, BODY="bundled", OUT=str(out))
    assert done.returncode == 0, done.stderr
    for n in (1, 2, 3):
        assert f"[{n}/3] Step {n}: do it ... " in done.stdout
    nb = nbformat.read(out / "tiny.ipynb", as_version=4)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[0].outputs[0].text == f"{imgs} bundled {out}\n"
    assert code[1].outputs[0].text == f"{ROOT}\n"
    page = (out / "tiny.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "<script src=" not in page, "the page wants something from the web"
    assert notebook.read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["tiny.html", "tiny.ipynb"]


def test_run_stops_at_the_cell_that_raises(tmp_path):
    notebook = write_notebook(
        tmp_path / "bad.ipynb", "print('came first')", "raise ValueError('one\\ntwo')", "print(3)"
    )
    done = run(notebook, OUT=str(tmp_path / "out"))
    assert done.returncode == 1
    assert 'Cell 2 of 3 (under "Step 2: do it") failed: ValueError: ' in done.stderr
    assert "two" in done.stderr and "Traceback" not in done.stderr
    keeps("a cell fails in make run", done.stderr)
    nb = nbformat.read(tmp_path / "out" / "bad.ipynb", as_version=4)
    first, second, third = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert first.outputs[0].text == "came first\n"
    assert second.outputs[0].output_type == "error"
    assert third.outputs == [] and third.execution_count is None
    assert "came first" in (tmp_path / "out" / "bad.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "environ, text, case",
    [
        ({"IMGS": "no/such"}, "IMGS=no/such is not a folder", None),
        ({"BODY": "best"}, "BODY=best is unknown", "BODY has a wrong value in make run"),
        ({"BODY": "no/such.pth"}, "BODY=no/such.pth is not", "BODY names no file in make run"),
    ],
)
def test_run_refuses_a_wrong_setting(tmp_path, environ, text, case):
    notebook = write_notebook(tmp_path / "tiny.ipynb", "1 + 1")
    done = run(notebook, OUT=str(tmp_path / "out"), **environ)
    assert done.returncode == 1
    assert done.stderr.startswith(text) and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    if case:
        keeps(case, done.stderr)


def test_a_body_named_by_its_path_is_found_from_anywhere(tmp_path):
    (tmp_path / "body.pth").touch()
    notebook = write_notebook(tmp_path / "tiny.ipynb", "import os; print(os.environ['BODY'])")
    done = run(
        notebook, OUT=str(tmp_path / "out"), BODY=os.path.relpath(tmp_path / "body.pth", ROOT)
    )
    assert done.returncode == 0, done.stderr
    nb = nbformat.read(tmp_path / "out" / "tiny.ipynb", as_version=4)
    assert nb.cells[-1].outputs[0].text == f"{tmp_path / 'body.pth'}\n"


def test_run_does_not_write_over_the_notebook(tmp_path):
    notebook = write_notebook(tmp_path / "tiny.ipynb", "1 + 1")
    before = notebook.read_bytes()
    done = run(notebook, OUT=str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "is where tiny.ipynb itself lies" in done.stderr
    assert notebook.read_bytes() == before and os.listdir(tmp_path) == ["tiny.ipynb"]
    keeps("the results would overwrite the notebook", done.stderr)


def test_run_without_the_notebook(tmp_path):
    done = run(tmp_path / "none.ipynb")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no notebook") and done.stderr.count("\n") == 1
    keeps("make run without its notebook", done.stderr)


def test_run_ends_cleanly_at_ctrl_c(tmp_path):
    notebook = write_notebook(
        tmp_path / "long.ipynb", "print('one')", "import time; time.sleep(300)"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "tools/run_notebook.py", str(notebook)],
        cwd=ROOT,
        env=dict(os.environ, OUT=str(tmp_path / "out")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted." in errors and "Traceback" not in errors
    keeps("Ctrl-C in make run", errors)
    assert "one" in (tmp_path / "out" / "long.ipynb").read_text(encoding="utf-8")


def test_store_keeps_outputs_and_drops_the_machine(tmp_path):
    notebook = write_notebook(
        tmp_path / "tiny.ipynb",
        "import os, sys; print(os.getcwd() + '/imgs', sys.prefix + '/lib')",
        "import ipywidgets; ipywidgets.IntSlider()",
        "import sys; print('careful', file=sys.stderr)",
    )
    nb = nbformat.read(notebook, as_version=4)
    nb.cells[2].metadata = {"tags": ["keep"], "execution": {"iopub.status.busy": "2026"}}
    nbformat.write(nb, notebook)
    done = run(notebook, "--store", OUT=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    nb = nbformat.read(notebook, as_version=4)
    nbformat.validate(nb)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert code[0].outputs[0].text == "imgs .venv/lib\n"
    assert code[0].metadata == {"tags": ["keep"]}
    assert list(code[1].outputs[0].data) == ["text/plain"]
    assert (code[2].outputs[0].name, code[2].outputs[0].text) == ("stderr", "careful\n")
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert "version" not in nb.metadata.language_info


def test_a_failed_run_stores_nothing(tmp_path):
    notebook = write_notebook(tmp_path / "bad.ipynb", "raise ValueError")
    before = notebook.read_bytes()
    assert run(notebook, "--store", OUT=str(tmp_path / "out")).returncode == 1
    assert notebook.read_bytes() == before


def test_headings_skip_comments_in_code_blocks():
    cells = [
        new_markdown_cell("# One"),
        new_code_cell(""),
        new_markdown_cell("## Two\n```\n# no\n```"),
        new_code_cell(""),
    ]
    assert run_notebook.headings(new_notebook(cells=cells)) == ["One", "One", "Two", "Two"]


# --- the browser test's browser


def test_no_browser_and_no_right_to_install_one(monkeypatch):
    monkeypatch.setattr(browser, "find_browser", lambda: None)
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000)
    path, reason = browser.install_browser()
    assert path is None and "apt-get install chromium" in reason


# What fastprogress shows while a network trains: the epochs, the table so far, the batches.
TWO_BARS = """
<div><div><progress max="2" value="1"></progress> 50.00% [1/2 00:05&lt;00:05]</div>
<div><table></table></div><div><progress max="17" value="6"></progress> 35.29% [6/17 00:01&lt;00:41]
</div></div>"""


def test_a_training_tells_how_far_it_is():
    assert run_notebook.progress(TWO_BARS) == "epoch 2 of 2, 35%, 00:41 left"
    assert run_notebook.progress("<div>1% [3/300 00:01&lt;1:02:03]</div>") == "1%, 1:02:03 left"
    assert run_notebook.progress("<div>0% [0/300 00:00&lt;?]</div>") == "0%, ? left"
    assert run_notebook.progress("100% [0/0]") == run_notebook.progress("<b>[1, 2]</b>") == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_make_run_shows_progress_in_a_terminal(tmp_path):
    import pty

    notebook = write_notebook(
        tmp_path / "bar.ipynb",
        "from IPython.display import HTML, display\n"
        f"bar = display(HTML(''), display_id=True)\nbar.update(HTML({TWO_BARS!r}))",
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "tools/run_notebook.py", str(notebook)],
        cwd=ROOT,
        env=dict(os.environ, OUT=str(tmp_path / "out")),
        stdout=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while piece := os.read(ours, 1000):
            shown += piece
    os.close(ours)
    assert process.wait() == 0
    assert b"\r[1/1] Step 1: do it ... epoch 2 of 2, 35%, 00:41 left" in shown
    assert shown.decode().count("\n") == 2, "progress takes no lines of its own"
