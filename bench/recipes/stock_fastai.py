"""Run the same cells with plain fastai's learner, in float32."""

import part_one


def train(path, epochs, seed, notes):
    """Run the cells of Part I without what the notebook adds to fastai."""
    part_one.train(path, epochs, seed, notes, stock=True)
