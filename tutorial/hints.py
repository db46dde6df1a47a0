"""For the reader who skipped a step: which step makes the name that is missing."""

import json
import re
import symtable
from functools import cache
from pathlib import Path

import fastai.vision.all

__all__ = ["explain_skipped_steps", "step_of"]

NOTEBOOK = Path(__file__).resolve().parent.parent / "demo.ipynb"


def explain_skipped_steps():
    """Have IPython answer a skipped step with a hint; step 1. Outside a notebook, do nothing."""
    try:
        shell = get_ipython()
    except NameError:
        return
    shell.set_custom_exc((NameError,), _name_the_step)
    # fastai brings a function of this name, which would hide that step 10 has been skipped.
    if shell.user_ns.get("first") is fastai.vision.all.first:
        del shell.user_ns["first"]


@cache
def step_of(notebook=NOTEBOOK):
    """Return the number of the step that first makes each name, read from the notebook.

    Parameters
    ----------
    notebook : Path
        The English edition; the cells of the other are the same.

    Returns
    -------
    dict of str to int
        Without names of one letter, which count things in a loop.
    """
    made, step = {}, 0
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = re.search(r"^### Step (\d+)", text, re.MULTILINE)
            step = int(heading[1]) if heading else step
        elif cell["cell_type"] == "code":
            for symbol in symtable.symtable(text, cell["id"], "exec").get_symbols():
                if symbol.is_assigned() and len(symbol.get_name()) > 1:
                    made.setdefault(symbol.get_name(), step)
    return made


def _name_the_step(shell, kind, error, trace, tb_offset=None):
    """Show a `NameError` for a name of the notebook as a hint, any other as usual."""
    last = trace
    while last.tb_next:
        last = last.tb_next
    in_a_cell = last.tb_frame.f_locals is last.tb_frame.f_globals  # and not in a function
    if in_a_cell and NOTEBOOK.exists() and error.name in step_of():
        hint = (
            f"`{error.name}` is made in step {step_of()[error.name]}, which has not been run yet."
            " Choose Run > Run All Above Selected Cell, then run this cell again."
        )
        error._render_traceback_ = lambda: [hint]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
