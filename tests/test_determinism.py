"""The same seed gives the same answers, in any fresh kernel and in both precisions."""

import copy

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


def part_one(stored, before_learn=""):
    """Run Part I in a fresh kernel, with more code before the learner is made; its `ANSWERS`."""
    nb = copy.deepcopy(stored)
    client = NotebookClient(
        nb, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    with client.setup_kernel():
        run = Run(nb, client)
        for i, cell in enumerate(nb.cells):
            if cell.id == "learn":
                run.do(before_learn)
            client.execute_cell(cell, i)
            if cell.id == LAST:
                return answers(run)


def answers(run):
    """Probabilities of a run, to the last bit: JSON carries a float32 whole."""
    return {name: np.array(run.value(name)) for name in ANSWERS}


def test_two_fresh_kernels_answer_alike_to_the_last_bit(executed, stored):
    again = part_one(stored)
    for name, probs in answers(executed).items():
        assert np.array_equal(probs, again[name]), name


def test_float32_and_bfloat16_judge_alike(executed, stored):
    if best_dtype(torch.device("cpu")) == torch.float32:
        pytest.skip("this CPU has no unit for bfloat16, so float32 is what everything ran in")
    whole = part_one(stored, IN_FLOAT32)
    for name, probs in answers(executed).items():
        assert not np.array_equal(probs, whole[name]), "both ran in the same precision"
        differ = (probs.argmax(1) != whole[name].argmax(1)).sum()
        # Valid holds pictures near the border, which rounding may push across; test must not.
        assert differ <= (2 if name.startswith("valid") else 0), name


def test_measuring_the_speed_uses_up_no_random_numbers():
    # It measures once a kernel, so a second Run All would else meet other numbers than the first.
    start.train_rate.cache_clear()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    start.train_rate(size=32, batch=2)
    assert torch.equal(torch.get_rng_state(), before)
