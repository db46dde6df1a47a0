"""nbval compares the outputs that demo.ipynb holds with those of a fresh run.

`pytest --nbval demo.ipynb` would run the notebook once more, which takes minutes; so nbval is given
the one run that all tests share. Outputs that differ from run to run carry the tag
nbval-ignore-output; test_run.py says what those must mean.
"""

import nbformat
import pytest
from conftest import NOTEBOOK, ROOT, code_cells
from nbval.plugin import (
    IPyNbFile,
    coalesce_streams,
    find_metadata_tags,
    get_sanitize_patterns,
)

COMPARED = [
    cell.id
    for cell in code_cells(nbformat.read(NOTEBOOK, as_version=4))
    if dict(find_metadata_tags(cell.metadata)).get("check", True)
]


@pytest.fixture(scope="module")
def comparers(request):
    """nbval's own view of each code cell, by id."""
    file = IPyNbFile.from_parent(request.session, path=NOTEBOOK)
    patterns = (ROOT / "tests" / "sanitize.cfg").read_text(encoding="utf-8")
    file.sanitize_patterns.update(get_sanitize_patterns(patterns))
    return {item.cell.id: item for item in file.collect()}


@pytest.mark.parametrize("id", COMPARED)
def test_a_fresh_run_gives_the_stored_outputs(executed, comparers, id):
    item, ran = comparers[id], next(cell for cell in code_cells(executed.nb) if cell.id == id)
    stored = coalesce_streams(item.cell.outputs)
    assert item.compare_outputs(coalesce_streams(ran.outputs), stored), "\n".join(
        item.comparison_traceback
    )


def test_every_cell_whose_output_can_be_foreseen_is_compared():
    assert len(COMPARED) >= 16
