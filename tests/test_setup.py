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
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, code_cells
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from promises import keeps, untouched

from tools import lab, run_notebook, setup_env

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def tool(name, *args, **environ):
    """Call one of tools/ as make does; `environ` is added to the environment."""
    return subprocess.run(
        [sys.executable, f"tools/{name}.py", *args],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )


@contextlib.contextmanager
def started(name, *args, stdout=subprocess.PIPE, **environ):
    """Start one of tools/, which is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-u", f"tools/{name}.py", *args],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        # As at a terminal, also where these tests run behind something that ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# --- set-up


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with pins, and what was installed there, which is only noted down."""
    root = tmp_path / "a b 中文"
    root.mkdir()
    (root / "requirements.txt").write_text("x==2\n")
    (root / "requirements-dev.txt").write_text("y==2\n")
    installs = []

    def make_venv(python, venv):
        os.makedirs(os.path.dirname(setup_env.venv_python(venv)))
        os.symlink(sys.executable, setup_env.venv_python(venv))

    monkeypatch.setattr(setup_env, "make_venv", make_venv)
    monkeypatch.setattr(setup_env, "check_disk", lambda *args: None)
    monkeypatch.setattr(setup_env, "install", lambda *args: installs.append(args))
    monkeypatch.setattr(setup_env, "first_import", lambda venv: None)
    return root, installs


def test_set_up_installs_once_and_again_when_the_pins_change(project):
    root, installs = project
    for _ in range(2):
        setup_env.set_up(str(root))
        assert len(installs) == 1
    (root / ".venv" / "old").touch()
    (root / "requirements.txt").write_text("x==3\n")
    for _ in range(2):
        setup_env.set_up(str(root))
        assert len(installs) == 2 and not (root / ".venv" / "old").exists()


def test_what_tests_need_is_added_to_the_same_venv(project, monkeypatch):
    root, installs = project
    setup_env.set_up(str(root))
    (root / ".venv" / "kept").touch()
    # The machine's own Python may by now be another one than that of .venv.
    other = next(v for v in setup_env.SUPPORTED if v != HERE)
    monkeypatch.setattr(setup_env, "choose_python", lambda: (f"python{other}", other))
    for many, dev in ((2, True), (2, True), (2, False)):
        setup_env.set_up(str(root), dev=dev)
        assert len(installs) == many
    (root / "requirements-dev.txt").write_text("y==3\n")
    setup_env.set_up(str(root), dev=True)
    assert len(installs) == 3 and (root / ".venv" / "kept").exists()
    (root / "requirements-dev.txt").unlink()  # as on a rented machine
    setup_env.set_up(str(root))
    assert len(installs) == 3


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


def test_a_moved_folder_is_not_set_up_again_but_a_copied_one_is(project):
    root, installs = project
    setup_env.set_up(str(root))
    moved = root.with_name("moved")
    shutil.move(root, moved)
    setup_env.set_up(str(moved))
    assert len(installs) == 1
    python = setup_env.venv_python(str(moved / ".venv"))
    os.unlink(python)
    os.symlink(str(moved / "gone"), python)  # as after copying the folder to another machine
    setup_env.set_up(str(moved))
    assert len(installs) == 2


def test_a_python_asked_for_by_name_replaces_another(project, monkeypatch):
    root, installs = project
    setup_env.set_up(str(root))
    other = next(v for v in setup_env.SUPPORTED if v != HERE)
    monkeypatch.setattr(setup_env, "choose_python", lambda: (f"python{other}", other))
    setup_env.set_up(str(root))
    assert len(installs) == 1
    setup_env.set_up(str(root), this_python=True)
    assert len(installs) == 2


def test_another_suitable_python_is_found(monkeypatch):
    """python3 is too old, python3.13 is a command that only fails, and python3.12 will do."""
    versions = {"python3": "3.9", "/bin/python3.12": "3.12", "/bin/python3.13": None}
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(setup_env, "python_version", versions.get)
    assert setup_env.choose_python("python3") == ("/bin/python3.12", "3.12")


def test_make_without_python_is_one_sentence():
    done = subprocess.run(
        ["make", "--no-print-directory", "run", "PYTHON=no-such-python"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    keeps("no Python at all", done.stdout)


def test_packages_that_do_not_load_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env.subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.first_import(str(tmp_path))
    keeps("packages that are there and don't load", str(error.value))


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
    uv = "uv==1 \\\n    --hash=sha256:0\n"
    pins.write_text(f"{uv}    # via nobody\nx==2 --hash=sha256:0\n")
    asked = []

    def call(args, env):
        asked.append((args[0], Path(args[-1]).read_text()))
        return 0 if args[0] == "pip" else 1

    monkeypatch.setattr(setup_env.subprocess, "call", call)
    monkeypatch.setattr(setup_env, "pip_for", lambda python, venv: ["pip"])
    monkeypatch.setattr(setup_env, "install_environment", lambda environ, pip: {})
    monkeypatch.setattr(setup_env, "check_disk", lambda *args: None)
    setup_env.install("python3", str(tmp_path), [str(pins)])
    inner = setup_env.venv_python(str(tmp_path))
    assert asked == [("pip", uv), (inner, pins.read_text()), ("pip", pins.read_text())]


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


def test_a_port_that_is_taken(taken):
    done = tool("lab", "--no-browser", PORT=str(taken))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"Port {taken} " in done.stderr and f"PORT={taken + 1} make lab" in done.stderr
    keeps("a port that is taken", done.stderr)


def test_which_port():
    assert lab.port_from({}) == lab.port_from({"PORT": ""}) == 8080
    assert lab.port_from({"PORT": "8081"}) == 8081
    for text in ("x", "0", "65536", "80.5", "-1"):
        with pytest.raises(lab.LabError) as error:
            lab.port_from({"PORT": text})
        assert f"PORT={text}" in str(error.value)
        keeps("PORT is no port", str(error.value))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_lab_opens_without_a_token_to_this_machine_alone():
    port = free_port()
    with started("lab", "--no-browser", PORT=str(port)) as process:
        assert f"http://localhost:{port}/lab" in process.stdout.readline()
        assert "Run > Run All Cells" in process.stdout.readline()
        for address in (f"http://localhost:{port}/lab", f"http://localhost:{port}/"):
            with urllib.request.urlopen(address, timeout=30) as page:
                assert page.status == 200
                assert page.url.startswith(f"http://localhost:{port}/lab"), "a login page?"
        with pytest.raises(OSError):  # to other machines it does not listen, nor to this address
            socket.create_connection(("127.0.0.2", port), timeout=5)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "y/[n]" not in rest and "Traceback" not in rest


# --- make run


def write_notebook(path, *cells):
    """A notebook of one-line code cells, each under its own heading."""
    nb = new_notebook(cells=[new_markdown_cell("# Tiny")])
    for n, source in enumerate(cells, 1):
        nb.cells += [new_markdown_cell(f"## Step {n}: do it"), new_code_cell(source)]
    nbformat.write(nb, path)
    return path


def run(path, *args, **environ):
    """`make run` with another notebook."""
    return tool("run_notebook", str(path), *args, **environ)


def test_run_writes_both_files_and_exports_the_settings(tmp_path):
    imgs, out, body = tmp_path / "my pics 图", tmp_path / "out 出", tmp_path / "body.pth"
    imgs.mkdir()
    body.touch()
    notebook = write_notebook(
        tmp_path / "tiny.ipynb",
        "import os; print(os.environ['IMGS'], os.environ['BODY'], os.environ['OUT'])",
        "print(os.getcwd())",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    )
    with untouched(notebook):
        done = run(
            notebook,
            IMGS=os.path.relpath(imgs, ROOT),
            BODY=os.path.relpath(body, ROOT),
            OUT=str(out),
        )
    assert done.returncode == 0, done.stderr
    for n in (1, 2, 3):
        assert f"[{n}/3] Step {n}: do it ... " in done.stdout
    nb = nbformat.read(out / "tiny.ipynb", as_version=4)
    code = code_cells(nb)
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[0].outputs[0].text == f"{imgs} {body} {out}\n"
    assert code[1].outputs[0].text == f"{ROOT}\n"
    page = (out / "tiny.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "<script src=" not in page, "the page wants something from the web"
    assert sorted(p.name for p in out.iterdir()) == ["tiny.html", "tiny.ipynb"]


def test_run_stops_at_the_cell_that_raises_and_stores_nothing(tmp_path):
    notebook = write_notebook(
        tmp_path / "bad.ipynb", "print('came first')", "raise ValueError('one\\ntwo')", "print(3)"
    )
    before = notebook.read_bytes()
    done = run(notebook, "--store", OUT=str(tmp_path / "out"))
    assert done.returncode == 1 and notebook.read_bytes() == before
    assert "two" in done.stderr and "Traceback" not in done.stderr
    keeps("a cell fails in make run", done.stderr)
    nb = nbformat.read(tmp_path / "out" / "bad.ipynb", as_version=4)
    first, second, third = code_cells(nb)
    assert first.outputs[0].text == "came first\n"
    assert second.outputs[0].output_type == "error"
    assert third.outputs == [] and third.execution_count is None
    assert "came first" in (tmp_path / "out" / "bad.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name, environ, case",
    [
        ("tiny.ipynb", {"IMGS": "no/such"}, "IMGS names no folder in make run"),
        ("tiny.ipynb", {"BODY": "best"}, "BODY has a wrong value in make run"),
        ("tiny.ipynb", {"BODY": "no/such.pth"}, "BODY names no file in make run"),
        ("tiny.ipynb", {"OUT": "."}, "the results would overwrite the notebook"),
        ("none.ipynb", {}, "make run without its notebook"),
    ],
)
def test_run_refuses_before_any_work(tmp_path, monkeypatch, capsys, name, environ, case):
    write_notebook(tmp_path / "tiny.ipynb", "1 + 1")
    monkeypatch.setenv("OUT", str(tmp_path / environ.get("OUT", "out")))
    for variable in environ.keys() - {"OUT"}:
        monkeypatch.setenv(variable, environ[variable])
    with untouched(tmp_path):
        assert run_notebook.main([str(tmp_path / name)]) == 1
    printed, error = capsys.readouterr()
    assert not printed and error.count("\n") == 1
    keeps(case, error)


def test_run_ends_cleanly_at_ctrl_c(tmp_path):
    notebook = write_notebook(
        tmp_path / "long.ipynb", "print('one')", "import time; time.sleep(300)"
    )
    with started("run_notebook", str(notebook), OUT=str(tmp_path / "out")) as process:
        assert "Step 1" in process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in said
    keeps("Ctrl-C in make run", said)
    assert "one" in (tmp_path / "out" / "long.ipynb").read_text(encoding="utf-8")


@pytest.mark.slow
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
    code = code_cells(nb)
    assert code[0].outputs[0].text == "imgs .venv/lib\n"
    assert code[0].metadata == {"tags": ["keep"]}
    assert list(code[1].outputs[0].data) == ["text/plain"]
    assert (code[2].outputs[0].name, code[2].outputs[0].text) == ("stderr", "careful\n")
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert "version" not in nb.metadata.language_info


def test_headings_skip_comments_in_code_blocks():
    cells = [
        new_markdown_cell("# One"),
        new_code_cell(""),
        new_markdown_cell("## Two\n```\n# no\n```"),
        new_code_cell(""),
    ]
    assert run_notebook.headings(new_notebook(cells=cells)) == ["One", "One", "Two", "Two"]


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


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_make_run_shows_progress_in_a_terminal(tmp_path):
    import pty

    notebook = write_notebook(
        tmp_path / "bar.ipynb",
        "from IPython.display import HTML, display\n"
        f"bar = display(HTML(''), display_id=True)\nbar.update(HTML({TWO_BARS!r}))",
    )
    ours, theirs = pty.openpty()
    shown = b""
    with started(
        "run_notebook", str(notebook), stdout=theirs, OUT=str(tmp_path / "out")
    ) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # how a terminal ends
            while piece := os.read(ours, 1000):
                shown += piece
        assert process.wait() == 0
    os.close(ours)
    assert b"\r[1/1] Step 1: do it ... epoch 2 of 2, 35%, 00:41 left" in shown
    assert shown.decode().count("\n") == 2, "progress takes no lines of its own"
