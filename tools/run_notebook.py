"""Run a notebook from top to bottom without a browser: what `make run` does once .venv is there.

    python tools/run_notebook.py demo.ipynb            writes out/demo.ipynb and out/demo.html
    python tools/run_notebook.py demo.ipynb --store    and stores the outputs in demo.ipynb itself

IMGS, BODY and OUT in the environment change the pictures, the network's weights and the folder.
"""

import argparse
import copy
import logging
import os
import re
import shutil
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import nbformat
import zmq
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import run_sync
from nbconvert import HTMLExporter
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.helpers import ROOT, again, why_not_writable, write  # noqa: E402

NAMES, BODIES = ("IMGS", "BODY", "OUT"), ("auto", "imagenet", "bundled")
# The last line of a section: to the same place in the other edition (see dev/editions.py).
LINK = re.compile(r"\s*^\[(?:English|中文)\]\([^)\s]*\.ipynb#cell-id=[^)\s]*\)\s*\Z", re.M)
# In fastai's progress bars: how many of how many, and the time left.
BAR = re.compile(r"\[(\d+)/([1-9]\d*) [\d:]+(?:<|&lt;)([\d:]+|\?)")


class RunError(Exception):
    """The run can't begin, fails or can't be saved; the message is for people."""


def settings(environ):
    """Those of IMGS, BODY and OUT that are set, checked, as absolute paths; OUT always is."""
    given = {"OUT": ROOT / "out", **{name: environ[name] for name in NAMES if environ.get(name)}}
    paths = {name: Path(text).expanduser().resolve() for name, text in given.items()}
    if "IMGS" in given and not paths["IMGS"].is_dir():
        inside = "give the path of one that has train/ and valid/ inside."
        raise RunError(f"IMGS={given['IMGS']} is not a folder here: {inside}")
    if (body := given.get("BODY")) in BODIES:
        paths["BODY"] = body
    elif body and not body.endswith((".pth", ".safetensors")):
        known = f"{', '.join(BODIES)}, or the path of a .pth or .safetensors file."
        raise RunError(f"BODY={body} is unknown: use one of {known}")
    elif body and not paths["BODY"].is_file():
        raise RunError(f"BODY={body} is not a file here.")
    return {name: str(path) for name, path in paths.items()}


def read(path):
    """The notebook in a file."""
    if not path.is_file():
        raise RunError(f"There is no notebook {path} in {Path.cwd()}.")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises half a dozen kinds
        raise RunError(
            f"{path} can't be read as a notebook ({type(error).__name__}), as after a merge that "
            f"was left half done: mend it, or `git checkout {path}` for the stored one."
        ) from None


def check_out(folder, notebook):
    """Make the folder for the results, and see that they fit there, before minutes of work."""
    another = f"name another folder, `{again('run', OUT='folder')}`."
    if notebook.resolve().parent == folder:
        raise RunError(
            f"OUT={folder} is where {notebook.name} itself lies, and the results would overwrite"
            f" it: {another}"
        )
    if why := why_not_writable(folder):
        raise RunError(f"Results can't be written to {folder} ({why}): {another}")


def headings(nb):
    """For each cell, the text of the heading it stands under."""
    current, found = "", []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"(?ms)^```.*?^```", "", cell.source)
            current = [current, *re.findall(r"(?m)^#{1,6}[ \t]+(.*)", text)][-1].strip()
        found.append(current)
    return found


class Client(NotebookClient):
    """Runs cells, and hands on what their progress bars say while they run."""

    watch = staticmethod(lambda words: None)

    def process_message(self, msg, cell, cell_index):
        html = msg["content"].get("data", {}).get("text/html", "")
        if words := progress("".join(html)):
            self.watch(words)
        return super().process_message(msg, cell, cell_index)


def progress(html):
    """Put fastai's progress bars into words: "epoch 1 of 2, 37 %, 00:41 left".

    Two bars are those of a training, the epochs above the batches. Without one, it is "".
    """
    bars = BAR.findall(html)
    if not bars:
        return ""
    done, total, left = bars[-1]
    epoch = f"epoch {int(bars[0][0]) + 1} of {bars[0][1]}, " if len(bars) > 1 else ""
    return f"{epoch}{int(done) / int(total):.0%}, {left} left"


def rewriter(line):
    """Return a function that, in a terminal, writes words behind `line` and over the last ones."""
    if not sys.stdout.isatty():
        return lambda words: None
    width = max(0, shutil.get_terminal_size().columns - 1 - len(line))

    def rewrite(words):
        text = f"\r{line}{words[:width]}"
        print(f"{text:<{len(line) + width + 1}}{text}", end="", flush=True)

    return rewrite


def why_failed(error):
    """What stopped a cell, in one line."""
    if isinstance(error, DeadKernelError):
        hint = "most often for want of memory; close other programs and try again."
        return f"Python itself ended, {hint}"
    last = f"{error.ename}: {error.evalue}".strip().splitlines()[-1]
    return last if last.startswith(error.ename) else f"{error.ename}: ... {last}"


def execute(nb, env):
    """Run all code cells of `nb` in place, in a fresh kernel at the repo's root.

    Parameters
    ----------
    nb : NotebookNode
        If a cell raises or the kernel dies, it holds what ran until there.
    env : dict of str
        The kernel's environment.
    """
    code = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    for i in code:
        nb.cells[i].outputs, nb.cells[i].execution_count = [], None
    encryption = "auto" if zmq.has("curve") else "disabled"  # else the kernel warns of the lack
    client = Client(
        nb,
        timeout=None,  # training on a slow machine may take its time; the progress shows it lives
        startup_timeout=120,
        kernel_name="python3",
        record_timing=False,
        config=Config(KernelManager={"transport_encryption": encryption}),
        resources={"metadata": {"path": str(ROOT)}},
    )
    under = headings(nb)
    with client.setup_kernel(env=env), ExitStack() as end:
        # Asked to end, it may print a traceback, of an interrupted cell or of its sockets. Killed,
        # it loses nothing: cells write what they leave at once.
        end.callback(run_sync(client.km.provisioner.kill))
        for n, i in enumerate(code, 1):
            line = f"[{n:>{len(str(len(code)))}}/{len(code)}] {under[i]} ... "
            print(line, end="", flush=True)
            client.watch = rewriter(line)
            start = time.monotonic()
            try:
                client.execute_cell(nb.cells[i], i)
            except (CellExecutionError, DeadKernelError) as error:
                print("failed", flush=True)
                where = f"Cell {n} of {len(code)}" + (f' (under "{under[i]}")' if under[i] else "")
                raise RunError(f"{where} failed: {why_failed(error)}") from None
            client.watch("")
            print(f"{time.monotonic() - start:.1f} s", flush=True)


def without_link(text):
    """A markdown text without the link to the other edition, and without blanks at its end."""
    return LINK.sub("", text).rstrip()


def as_text(nb):
    """An .ipynb file's text, as JupyterLab writes it."""
    return nbformat.writes(nb, version=4) + "\n"


def to_html(nb, name):
    """The notebook as one HTML page with its pictures inside, which needs no network to be read.

    nbconvert's page loads scripts from the web: for formulas, which stays where there are any, and
    for widgets and diagrams, which goes.
    """
    nb = copy.deepcopy(nb)
    markdown = [cell for cell in nb.cells if cell.cell_type == "markdown"]
    for cell in markdown:
        cell.source = without_link(cell.source)  # the page stands alone
    drop = ["html_head_js_requirejs", "html_head_js_mermaidjs", "jupyter_widgets"]
    if not any("$" in cell.source for cell in markdown):
        drop.append("html_head_js_mathjax")
    blocks = "".join(f"{{% block {b} %}}{{% endblock %}}" for b in drop)
    # Not embed_images=True: it parses each piece of HTML alone, which closes a <details> too soon.
    exporter = HTMLExporter(raw_template="{% extends 'lab/index.html.j2' %}" + blocks)
    exporter.log.setLevel(logging.ERROR)  # it warns of pictures without alt text; Jupyter has none
    resources = {"metadata": {"name": name, "path": str(ROOT)}}
    return exporter.from_notebook_node(nb, resources=resources)[0]


def save(nb, folder, name):
    """Write the notebook and its page, whatever of it has run, and return the page's path."""
    page = folder / f"{name}.html"
    try:
        write(page.with_suffix(".ipynb"), as_text(nb))
        write(page, to_html(nb, name))
    except OSError as error:
        raise RunError(f"The results can't be written to {folder} ({error.strerror}).") from None
    return page


def run(notebook):
    """Run the notebook in a file, save what ran even if a cell failed, and return it."""
    ours = settings(os.environ)
    nb, out = read(notebook), Path(ours["OUT"])
    check_out(out, notebook)
    others = {name: text for name, text in os.environ.items() if name not in NAMES}
    start = time.monotonic()
    try:
        execute(nb, {**others, **ours})
    except (RunError, KeyboardInterrupt) as error:
        with suppress(RunError):  # the first failure says more
            error.add_note(f"What ran until there is in {save(nb, out, notebook.stem)}")
        raise
    page = save(nb, out, notebook.stem)
    print(f"Done in {time.monotonic() - start:.0f} s. To read it, open {page} in a browser.")
    return nb


def main(argv=None):
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="?", default="demo.ipynb", type=Path)
    parser.add_argument("--store", action="store_true", help="store the outputs in the notebook")
    args = parser.parse_args(argv)
    try:
        nb = run(args.notebook)
    except RunError as error:
        print(error, *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("\nInterrupted.", *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        return 130
    if args.store:
        from tools.dev.store import store  # for who changes the notebook

        store(nb, args.notebook)
    return 0


if __name__ == "__main__":
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this Python's kernel, no other
    sys.exit(main())
