"""The same seed gives the same answers, in any fresh kernel and in both precisions."""

import copy
import json
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import ROOT, Run
from nbclient import NotebookClient

from tutorial import start
from tutorial.precision import best_dtype

LAST = "verdict-tuned"  # the cell that ends step 14
ANSWERS = ("valid_probs", "probs", "valid_probs_tuned", "probs_tuned")
IN_FLOAT32 = "import tutorial.precision as p; p.best_dtype = lambda device: torch.float32"


@contextmanager
def fresh_kernel(stored, **variables):
    """Yield a kernel, and a function that runs the cells there and tells what the network answers.

    The answers are probabilities, to the last bit: JSON carries a float32 whole.
    """
    nb = copy.deepcopy(stored)
    client = NotebookClient(
        nb, timeout=3000, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )

    def go(last, before_learn=""):
        for i, cell in enumerate(nb.cells):
            if cell.id == "learn":
                kernel.do(before_learn)
            client.execute_cell(cell, i)
            if cell.id == last:
                return {name: np.array(kernel.value(name)) for name in ANSWERS}

    with client.setup_kernel(env={**os.environ, **variables}):
        kernel = Run(nb, client)
        yield kernel, go


@pytest.mark.slow
def test_a_second_run_and_a_fresh_kernel_answer_alike_to_the_last_bit(stored, three_classes):
    imgs, out, done = three_classes  # `make run`, a kernel of its own
    assert done.returncode == 0, done.stderr
    noted = json.loads((out / "run.json").read_text("utf-8"))["figures"]
    with fresh_kernel(stored, IMGS=str(imgs)) as (kernel, run):
        first, second = run(LAST), run(LAST)
        history = kernel.value("[list(map(float, losses)) for losses in history]")
        tables = {
            "head only": kernel.value("first.probability"),
            "fine-tuned": kernel.value("second.probability"),
        }
    for name in ANSWERS:
        assert np.array_equal(first[name], second[name]), name
    assert noted["losses of fine-tuning"] == history
    for name, probabilities in tables.items():
        rows = noted[f"test, {name}"]["rows"]
        assert [row["probability"] for row in rows] == probabilities, name


@pytest.mark.slow
@pytest.mark.skipif(
    best_dtype(torch.device("cpu")) == torch.float32, reason="this CPU has no unit for bfloat16"
)
def test_float32_and_bfloat16_judge_alike(stored):
    with fresh_kernel(stored) as (_, run):
        half, whole = run(LAST), run(LAST, IN_FLOAT32)
    for name in ANSWERS:
        assert not np.array_equal(half[name], whole[name]), "both ran in the same precision"
        differ = (half[name].argmax(1) != whole[name].argmax(1)).sum()
        # Valid holds pictures near the border, which rounding may push across; test must not.
        assert differ <= (2 if name.startswith("valid") else 0), name


def test_measuring_the_speed_uses_up_no_random_numbers():
    # It measures once a kernel, so a second Run All would else meet other numbers than the first.
    start.train_rate.cache_clear()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    start.train_rate(size=32, batch=2)
    assert torch.equal(torch.get_rng_state(), before)
