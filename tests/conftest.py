"""What the tests share: the stored notebook, and one run of it whose kernel stays alive."""

import ast
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "demo.ipynb"
# The stored outputs come from the bundled body on the project's own pictures, on a CPU.
os.environ.update(BODY="bundled", CUDA_VISIBLE_DEVICES="", JUPYTER_PREFER_ENV_PATH="1")
os.environ.pop("IMGS", None)
os.environ.setdefault("MAKELEVEL", "1")  # as under `make test`
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def code_cells(nb):
    """The notebook's code cells, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def project_files():
    """Paths of the files that belong to the repo: tracked, or new and not ignored."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


# What the tests need to know of moments that have passed when a run is over: cell id, and the code
# that notes it in the kernel behind that cell. Names begin with an underscore.
PROBES = {
    "learn": """
def _numbers():
    parts = zip(("body", "head"), learn.model)
    return {f"{part} {name}": p.detach().cpu().clone()
            for part, m in parts for name, p in m.state_dict().items()}
def _moved():
    global _then
    old, _then = _then, _numbers()
    return {name: p.ndim for name, p in _then.items() if not torch.equal(p, old[name])}
_then = _at_start = _numbers()
""",
    "fit-head": """
_moved_by_head = _moved()
_head_cycle = [float(rate) for rate in learn.recorder.hps["lr"]]
""",
    "rates": "_rates = [group['lr'] for group in learn.opt.hypers]",
    "fit-all": "_moved_by_tuning = _moved()",
}


class Run:
    """A notebook that was run, and its live kernel.

    Attributes
    ----------
    nb : NotebookNode
        With the outputs of this run.
    """

    def __init__(self, nb, client):
        self.nb, self._client = nb, client

    def value(self, expression):
        """The value of a Python expression in the kernel, carried over as JSON.

        Arrays and tensors come as lists, paths and other objects as their text.

        Raises
        ------
        RuntimeError
            If the kernel can't evaluate it.
        """
        plain = "lambda o: o.tolist() if hasattr(o, 'tolist') else str(o)"
        question = f"__import__('json').dumps({expression}, default={plain})"
        reply = run_sync(self._client.kc.execute_interactive)(
            "",
            silent=True,
            store_history=False,
            user_expressions={"it": question},
            output_hook=lambda message: None,
            timeout=600,
        )["content"]["user_expressions"]["it"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        return json.loads(ast.literal_eval(reply["data"]["text/plain"]))

    def do(self, code):
        """Run code that leaves no trace in the notebook.

        Raises
        ------
        RuntimeError
            If it raises.
        """
        reply = run_sync(self._client.kc.execute_interactive)(
            code, silent=True, store_history=False, output_hook=lambda message: None, timeout=600
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{code}: {reply['ename']}: {reply['evalue']}")

    def cell(self, source):
        """Run more code in the kernel, as a cell below the notebook; returns its outputs.

        Raises
        ------
        nbclient.exceptions.CellExecutionError
            If it raises.
        """
        cell = nbformat.v4.new_code_cell(source)
        self.nb.cells.append(cell)
        try:
            self._client.execute_cell(cell, len(self.nb.cells) - 1)
        finally:
            self.nb.cells.remove(cell)
        return cell.outputs


@pytest.fixture(scope="session")
def stored():
    """demo.ipynb as it is in the repo."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory):
    """A small folder of three classes, and what `make run` gives for it.

    Returns
    -------
    (Path, Path, subprocess.CompletedProcess)
        The folder, the folder of the results, and how it ended.
    """
    from shapes import make, run

    root = tmp_path_factory.mktemp("shapes")
    imgs = make(root / "我的 pictures", ["apple", "brick", "cone"], "folders")
    return imgs, root / "out", run(imgs, root / "out")


@pytest.fixture(scope="session")
def executed(stored):
    """One run of demo.ipynb in a fresh kernel, which answers questions until the tests end.

    It takes minutes, so no slow test asks for it: `make test-all` would run it a second time.
    """
    nb = copy.deepcopy(stored)
    for cell in code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        nb, timeout=3000, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    with client.setup_kernel():
        run = Run(nb, client)
        for i, cell in enumerate(list(nb.cells)):
            client.execute_cell(cell, i)
            if cell.id in PROBES:
                run.do(PROBES[cell.id])
        yield run
