"""Compare schedules for the notebook's two trainings, on held-out fifths of imgs/train.

    python tools/pretrain_body/schedules.py head       epochs and rate of the head
    python tools/pretrain_body/schedules.py all        fine-tuning, after the notebook's head

This is how the notebook's epochs and rates are chosen. Neither `imgs/valid` nor `imgs/test` is
read, so both stay fit to judge. Other schedules than the built-in ones can be named, for example
`head 2,1e-2` or `all 3,1e-5,3e-4`. With `,still` at its end, the batch norms of the body keep the
averages that they came with in fine-tuning as well.

Heads train on features that the frozen body has seen once, in pictures augmented `DRAWS` times:
hundreds of heads in a few minutes. Fine-tuning has no such short cut, so a seed of it takes many
minutes. Of two schedules that score alike, the loss tells more: fifths of 280 pictures move by
whole errors.
"""

import argparse
import copy
import random
import statistics
import warnings

import torch
from evaluate import add_plan, fifths, notebook_learner
from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze
from fastai.torch_core import set_seed
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import TensorDataset
from tqdm import tqdm

# Python finds this package because evaluate, above, has told it where.
from tutorial.luck import head_learner
from tutorial.report import table
from tutorial.rivals import class_numbers, features_of, frozen_features

HEADS = ["1,3e-3", "2,3e-3", "3,2e-3", "3,3e-3", "3,6e-3", "4,3e-3", "5,3e-3", "6,3e-3"]
TUNINGS = ["3,1e-4,1e-3", "3,1e-4,1e-3,still", "3,1e-5,3e-4"]
DRAWS = 12  # augmented looks at each picture
SEEDS = {"head": 24, "all": 2}


class StillBatchNorm(Callback):
    """Let the batch norms of the whole body keep their averages, not only of the frozen part."""

    run_after = BnFreeze.run_after  # after fastai has put the model into training mode

    def before_train(self):
        for module in self.model[0].modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def schedule(text):
    """Read "epochs,rate" or "epochs,lowest,highest": epochs, and what `fit_one_cycle` takes.

    The third value is the callbacks: `StillBatchNorm` if the text ends with ",still".
    """
    epochs, *rates = text.removesuffix(",still").split(",")
    rates = [float(rate) for rate in rates]
    if len(rates) not in (1, 2):
        raise ValueError(f"{len(rates)} rates")
    cbs = [StillBatchNorm] if text.endswith(",still") else []
    return int(epochs), rates[0] if len(rates) == 1 else slice(*rates), cbs


def fit(learn, epochs, rates, cbs=()):
    """Train silently; loss and share right on the held-out pictures."""
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, rates, cbs=cbs)
        return tuple(float(value) for value in learn.validate())


class Augmented:
    """Features of some pictures: one of the augmented looks at each, another every time."""

    def __init__(self, looks, labels):
        self.looks, self.labels = looks, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.looks[random.randrange(len(self.looks)), i], self.labels[i]


def compare_heads(plan):
    """{schedule: [[(loss, share right) for each fifth] for each seed]}, only the head learning."""
    learn = notebook_learner(plan.body, plan, 0)
    files, vocab = list(learn.dls.train_ds.items), learn.dls.vocab
    plain, labels = frozen_features(learn, files), class_numbers(files, vocab)
    augmenting = learn.dls.train.new(shuffle=False, drop_last=False)
    looks = torch.stack([features_of(learn, augmenting) for _ in tqdm(range(DRAWS), "features")])
    parts = [
        (Augmented(looks[:, train], labels[train]), TensorDataset(plain[held], labels[held]))
        for train, held in fifths(0).split(plain, labels)
    ]
    results = {text: [] for text in plan.schedules}
    for seed in tqdm(range(plan.seeds), "seeds"):
        for text, how in plan.schedules.items():
            results[text].append([])
            for part in parts:
                set_seed(seed)
                results[text][-1].append(fit(head_learner(*part, len(vocab), plan.batch), *how))
    return results


def compare_tunings(plan):
    """The same for all layers learning, each schedule beginning with the same trained head."""
    results = {text: [] for text in plan.schedules}
    for seed in tqdm(range(plan.seeds), "seeds"):
        for rows in results.values():
            rows.append([])
        for fifth in tqdm(range(5), "fifths", leave=False):
            learn = notebook_learner(plan.body, plan, seed, fifth)
            fit(learn, plan.head_epochs, plan.head_rate)
            trained = copy.deepcopy(learn.model.state_dict())
            learn.unfreeze()
            for text, how in plan.schedules.items():
                learn.model.load_state_dict(trained)
                learn.opt = None  # a new one, as a new learner would have
                set_seed(seed)
                learn.dls.train.rng = random.Random(seed)  # the same order of pictures
                results[text][-1].append(fit(learn, *how))
    return results


def markdown(results):
    """A table of means over fifths and seeds, with the standard error over the seeds."""
    lines = []
    for text, rows in results.items():
        rights = [statistics.mean(right for _, right in row) for row in rows]
        error = f"{statistics.stdev(rights) / len(rows) ** 0.5:.1%}" if len(rows) > 1 else "-"
        loss = statistics.mean(loss for row in rows for loss, _ in row)
        lines.append([text, f"{statistics.mean(rights):.1%}", error, f"{loss:.3f}"])
    return table(["epochs, rates", "right", "standard error", "loss"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=SEEDS)
    parser.add_argument("schedules", nargs="*", metavar="EPOCHS,RATE[,RATE]")
    parser.add_argument("--seeds", type=int, help="how many; 24 of the head, 2 of all layers")
    add_plan(parser)
    plan = parser.parse_args()
    named = plan.schedules or (HEADS if plan.stage == "head" else TUNINGS)
    plan.schedules = {}
    for text in named:
        try:
            plan.schedules[text] = schedule(text)
        except ValueError:
            parser.error(f"{text}: say epochs and one or two rates, as 2,3e-3 or 3,1e-5,3e-4.")
        if plan.stage == "head" and text.endswith(",still"):
            parser.error(f"{text}: the head learns without a body here, so leave out ',still'.")
    plan.seeds = plan.seeds or SEEDS[plan.stage]
    warnings.filterwarnings("ignore", module="torch")
    compare = compare_heads if plan.stage == "head" else compare_tunings
    print(markdown(compare(plan)))


if __name__ == "__main__":
    main()
