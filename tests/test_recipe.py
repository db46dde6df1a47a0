"""tutorial/recipe.py trains as the notebook's own cells do, to the last digit."""

import os

from conftest import code_cells
from fastai.torch_core import set_seed
from shapes import make

from tutorial import recipe
from tutorial.defaults import OURS, fast_defaults

TRAINING = ("import", "dls", "learn", "fit-head", "rates", "fit-all")


def test_the_recipe_is_that_of_the_notebooks_cells(stored, tmp_path, monkeypatch):
    from fastai.learner import defaults

    monkeypatch.setattr(defaults, "callbacks", list(defaults.callbacks))
    imgs = make(tmp_path / "imgs", ["apple", "brick"], "folders")
    walk = os.walk

    def in_order(*args, **how):  # as the recipe takes the files, and the notebook as the disk does
        for folder, folders, files in walk(*args, **how):
            folders.sort()
            yield folder, folders, sorted(files)

    monkeypatch.setattr(os, "walk", in_order)
    cells = {cell.id: cell.source for cell in code_cells(stored)}
    names, found = {"path": imgs}, []
    for id in TRAINING:
        exec(compile(cells[id], id, "exec"), names)
        if id.startswith("fit"):
            found.append(list(names["learn"].recorder.values))

    fast_defaults()
    set_seed(recipe.SEED, reproducible=True)
    learn, again = recipe.learner(recipe.loaders(imgs)), []
    for stage in recipe.stages(learn):
        learn.fit_one_cycle(stage.epochs, stage.rate)
        again.append(list(learn.recorder.values))
    assert again == found and len(again[0]) == recipe.HEAD.epochs
    assert learn.fit_log.fits == names["learn"].fit_log.fits
    assert {type(cb) for cb in learn.cbs} == {type(cb) for cb in names["learn"].cbs} > set(OURS)
