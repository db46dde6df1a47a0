"""Run a notebook from top to bottom without a browser: what `make run` does once .venv is there.

    python tools/run_notebook.py demo.ipynb            writes out/demo.ipynb and out/demo.html
    python tools/run_notebook.py demo.ipynb --store    and stores the outputs in demo.ipynb itself

IMGS, BODY and OUT in the environment change the pictures, the network's weights and the folder.
"""

import argparse
import base64
import copy
import io
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import nbformat
import zmq
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import run_sync
from nbconvert import HTMLExporter
from PIL import Image
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
BODIES = ("auto", "imagenet", "bundled")
# Cells whose pictures the READMEs show.
SHOWN = {"compare": "verdict.png", "grey": "rivals.png", "visitors": "strangers.png"}
WIDGET = "application/vnd.jupyter.widget-view+json"
# The last line of a section: to the same place in the other edition (see editions.py).
LINK = re.compile(r"\s*^\[(?:English|中文)\]\([^)\s]*\.ipynb#cell-id=[^)\s]*\)\s*\Z", re.M)


# In fastai's progress bars: how many of how many, and the time left.
BAR = re.compile(r"\[(\d+)/([1-9]\d*) [\d:]+(?:<|&lt;)([\d:]+|\?)")


class RunError(Exception):
    """The run failed; the message is for people."""


def settings(environ):
    """Check IMGS, BODY and OUT, and make the paths absolute, since the kernel starts elsewhere.

    Returns
    -------
    dict of str
        The variables to export to the kernel; OUT is always there.
    """
    found = {"OUT": str(Path(environ.get("OUT") or ROOT / "out").expanduser().resolve())}
    if environ.get("IMGS"):
        imgs = Path(environ["IMGS"]).expanduser().resolve()
        if not imgs.is_dir():
            raise RunError(
                f"IMGS={environ['IMGS']} is not a folder here: give the path of one that has "
                "train/ and valid/ inside."
            )
        found["IMGS"] = str(imgs)
    if body := environ.get("BODY"):
        if body not in BODIES:
            if not body.endswith((".pth", ".safetensors")):
                raise RunError(
                    f"BODY={body} is unknown: use one of {', '.join(BODIES)}, or the path of a"
                    " .pth or .safetensors file."
                )
            body = str(Path(body).expanduser().resolve())
            if not Path(body).is_file():
                raise RunError(f"BODY={environ['BODY']} is not a file here.")
        found["BODY"] = body
    return found


def read(path):
    """Return the notebook in a file.

    Raises
    ------
    RunError
        If there is no such file, or no notebook in it.
    """
    if not path.is_file():
        raise RunError(f"There is no notebook {path} in {Path.cwd()}.")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises half a dozen kinds
        raise RunError(
            f"{path} can't be read as a notebook ({type(error).__name__}), as after a merge that "
            f"was left half done: mend it, or `git checkout {path}` for the stored one."
        ) from None


def headings(nb):
    """For each cell, the text of the heading it stands under."""
    current, found = "", []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            lines = re.sub(r"(?ms)^```.*?^```", "", cell.source).splitlines()
            titles = [m[1].strip() for m in map(re.compile(r"#{1,6}\s+(.*)").match, lines) if m]
            current = titles[-1] if titles else current
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
    words = f"epoch {int(bars[0][0]) + 1} of {bars[0][1]}, " if len(bars) > 1 else ""
    return words + f"{int(done) / int(total):.0%}, {left} left"


def execute(nb, say=print):
    """Run all code cells of `nb` in place, in a fresh kernel at the repo's root.

    Raises
    ------
    RunError
        If a cell raises or the kernel dies; `nb` then holds what ran until there.
    """
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    code = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    under = headings(nb)
    client = Client(
        nb,
        timeout=None,  # training on a slow machine may take its time; the progress shows it lives
        startup_timeout=120,
        kernel_name="python3",
        record_timing=False,
        # else the kernel warns that it talks to us without encryption
        config=Config(
            KernelManager={"transport_encryption": "auto" if zmq.has("curve") else "disabled"}
        ),
        resources={"metadata": {"path": str(ROOT)}},
    )
    with client.setup_kernel(), ExitStack() as end:
        # Asked to end, it may print a traceback: of a cell that was interrupted, or of its sockets,
        # which close in any order. Killed, it loses nothing: cells write what they leave at once.
        end.callback(run_sync(client.km.provisioner.kill))
        for n, i in enumerate(code, 1):
            where = f"Cell {n} of {len(code)}" + (f' (under "{under[i]}")' if under[i] else "")
            line = f"[{n:>{len(str(len(code)))}}/{len(code)}] {under[i]} ... "
            say(line, end="", flush=True)
            client.watch = rewriter(line, say)
            start = time.monotonic()
            try:
                client.execute_cell(nb.cells[i], i)
            except CellExecutionError as error:
                say("failed", flush=True)
                last = f"{error.ename}: {error.evalue}".strip().splitlines()[-1]
                if not last.startswith(error.ename):
                    last = f"{error.ename}: ... {last}"
                raise RunError(f"{where} failed: {last}") from None
            except DeadKernelError:
                say("failed", flush=True)
                raise RunError(
                    f"{where} failed: Python itself ended, most often for want of memory; close "
                    "other programs and try again."
                ) from None
            client.watch("")
            say(f"{time.monotonic() - start:.1f} s", flush=True)


def rewriter(line, say):
    """Return a function that, in a terminal, writes words behind `line` and over the last ones."""
    if not sys.stdout.isatty():
        return lambda words: None
    room = shutil.get_terminal_size().columns - 1
    width = max(0, room - len(line))

    def write(words):
        say(f"\r{line}{words[:width]:<{width}}\r{line}{words[:width]}", end="", flush=True)

    return write


def without_link(text):
    """A markdown text without the link to the other edition, and without blanks at its end."""
    return LINK.sub("", text).rstrip()


def to_html(nb, name):
    """The notebook as one HTML page with its pictures inside, which needs no network to be read.

    nbconvert's page loads scripts from the web: for formulas, which stays where there are any, and
    for widgets and diagrams, which goes.
    """
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = without_link(cell.source)  # the page stands alone
    formulas = any(c.cell_type == "markdown" and "$" in c.source for c in nb.cells)
    drop = ["html_head_js_requirejs", "html_head_js_mermaidjs", "jupyter_widgets"]
    drop += [] if formulas else ["html_head_js_mathjax"]
    blocks = "".join(f"{{% block {b} %}}{{% endblock %}}" for b in drop)
    # Not embed_images=True: it parses each piece of HTML alone, which closes a <details> too soon.
    exporter = HTMLExporter(raw_template="{% extends 'lab/index.html.j2' %}" + blocks)
    exporter.log.setLevel(logging.ERROR)  # it warns of pictures without alt text; Jupyter has none
    return exporter.from_notebook_node(
        nb, resources={"metadata": {"name": name, "path": str(ROOT)}}
    )[0]


def check_apart(notebook, folder):
    """Raise RunError if the results would be written over the notebook that is run."""
    if notebook.resolve().parent == folder:
        raise RunError(
            f"OUT={folder} is where {notebook.name} itself lies, and the results would overwrite"
            " it: name another folder, `make run OUT=folder`."
        )


def check_writable(folder):
    """Make the folder for the results, and raise RunError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # asking the system is not as sure as trying
            pass
    except OSError as error:
        raise RunError(
            f"Results can't be written to {folder} ({error.strerror}): name another folder, "
            "`make run OUT=folder`."
        ) from None


def write(path, text):
    """Write a file whole or not at all: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def as_text(nb):
    """An .ipynb file's text, as JupyterLab writes it."""
    return nbformat.writes(nb, version=4) + "\n"


def lighter(png):
    """The same picture in 256 colours, a third of its size (history keeps every one), as base64."""
    picture, buffer = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(
        buffer, "PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode()


def joined(outputs):
    """The outputs, with what was printed in pieces, as chance will have it, in one piece."""
    whole = []
    for output in copy.deepcopy(outputs):
        last = whole[-1] if whole else {}
        if "name" in output and output["name"] == last.get("name"):
            last["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def normalised(nb, root=ROOT, prefix=sys.prefix):
    """A copy without what differs from machine to machine: times, paths, widgets' state, versions.

    What the cells printed stays, except that paths inside the repo lose what is before it; pictures
    are kept in 256 colours.
    """
    places = sorted({f"{prefix}{os.sep}": f".venv{os.sep}", f"{root}{os.sep}": ""}.items())
    places = sorted(places, key=lambda pair: -len(pair[0]))  # .venv lies inside the repo

    def clean(value):
        if isinstance(value, str):
            for place, short in places:
                value = value.replace(place, short)
            return value
        if isinstance(value, list):
            return [clean(v) for v in value]
        return {k: clean(v) for k, v in value.items()} if isinstance(value, dict) else value

    nb = nbformat.from_dict(nb.copy())
    nb.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {
                "file_extension": ".py",
                "mimetype": "text/x-python",
                "name": "python",
                "pygments_lexer": "ipython3",
            },
        }
    )
    for cell in nb.cells:
        for key in ("execution", "collapsed", "scrolled", "ExecuteTime", "trusted"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = nbformat.from_dict(clean(joined(cell.outputs)))
            for output in cell.outputs:
                data = output.get("data", {})
                data.pop(WIDGET, None)
                if "image/png" in data:
                    data["image/png"] = lighter(data["image/png"])
    return nb


def picture_of(nb, id):
    """The bytes of the first PNG that the cell with this id shows, or None."""
    for cell in nb.cells:
        for output in cell.get("outputs", []) if cell.id == id else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output.data["image/png"])
    return None


def main(argv=None):
    """Run, save what ran even if a cell failed, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="?", default="demo.ipynb")
    parser.add_argument("--store", action="store_true", help="store the outputs in the notebook")
    args = parser.parse_args(argv)
    start = time.monotonic()
    notebook = Path(args.notebook)
    try:
        variables = settings(os.environ)
        nb = read(notebook)
        out = Path(variables["OUT"])
        check_apart(notebook, out)
        check_writable(out)  # now, not after minutes of work
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("IMGS", "BODY"):
        os.environ.pop(name, None)  # `make run BODY=` means the default
    os.environ.update(variables, JUPYTER_PREFER_ENV_PATH="1")  # this Python's kernel, no other
    failure, status = None, 0
    try:
        execute(nb)
    except RunError as error:
        failure, status = str(error), 1
    except KeyboardInterrupt:
        failure, status = "\nInterrupted.", 130
    saved = [out / f"{notebook.stem}{suffix}" for suffix in (".ipynb", ".html")]
    try:
        write(saved[0], as_text(nb))
        write(saved[1], to_html(nb, notebook.stem))
    except OSError as error:
        failure = failure or f"The results can't be written to {out} ({error.strerror})."
        print(failure, file=sys.stderr)
        return status or 1
    if failure:
        print(f"{failure}\nWhat ran until there is in {saved[1]}", file=sys.stderr)
        return status
    if args.store:
        nb = normalised(nb)
        write(notebook, as_text(nb))
        print(f"The outputs are stored in {notebook}")
        for id, name in SHOWN.items():
            if picture := picture_of(nb, id):
                (ROOT / "imgs" / name).write_bytes(picture)
    print(f"Done in {time.monotonic() - start:.0f} s. To read it, open {saved[1]} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
