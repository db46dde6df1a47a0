"""Measure a body beside others: frozen features, then the notebook's schedule.

    python tools/pretrain_body/evaluate.py                 everything: the tables of the model card
    python tools/pretrain_body/evaluate.py --no-notebook   without the slow part, fine-tuning

Mean and standard deviation over five seeds. With `--photos FOLDER`, a folder of class folders,
bodies are judged on these pictures, too; `--before FILE` puts another body beside. Nothing here
trains a body or chooses anything: pictures of `imgs/valid` only score, `imgs/test` is not read.
"""

import argparse
import statistics
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from export import NAME, ROOT, WEIGHTS, load_body
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.models import resnet34
from tqdm import tqdm

sys.path.insert(0, str(ROOT))  # for the package tutorial
SEEDS = range(5)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def random_body():
    """An untrained resnet34."""
    torch.manual_seed(0)
    body = resnet34()
    body.fc = nn.Identity()
    return body.eval()


def teacher_body():
    """EfficientNet-Lite0 without its last layer."""
    from tutorial import efficientnet_lite0

    net = efficientnet_lite0(weights="DEFAULT")
    net.classifier = nn.Identity()
    return net.eval()


@torch.no_grad()
def features(body, pictures):
    """Pooled features of uint8 RGB pictures, shape (n, side, side, 3) to (n, features)."""
    body, rows = body.to(memory_format=torch.channels_last), []
    for i in range(0, len(pictures), 32):
        x = torch.from_numpy((pictures[i : i + 32].astype(np.float32) / 255 - MEAN) / STD)
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(body(x.permute(0, 3, 1, 2)))
    return torch.cat(rows).float().numpy()


def histograms(pictures):
    """8 x 8 x 8 hue-saturation-value histograms, shape (n, 512), as square roots of shares."""
    rows = []
    for picture in pictures:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])
        rows.append(np.sqrt(counts.ravel() / counts.sum()))
    return np.stack(rows)


def classifier():
    """Logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))


def fifths(seed):
    """Five stratified parts, each to be held out once."""
    return StratifiedKFold(5, shuffle=True, random_state=seed)


def load_pictures(folder, side=224):
    """Pictures and labels of class folders, cropped in the middle as fastai's Resize does."""
    pictures, labels = [], []
    for label, sub in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for file in sorted(sub.glob("*.jpg")):
            image = Image.open(file).convert("RGB")
            w, h = image.size
            k = side / min(w, h)
            image = image.resize((max(side, round(w * k)), max(side, round(h * k))), Image.BILINEAR)
            x, y = (image.width - side) // 2, (image.height - side) // 2
            pictures.append(np.asarray(image.crop((x, y, x + side, y + side))))
            labels.append(label)
    if not pictures:
        raise SystemExit(f"No pictures in {folder}; evaluation needs its class folders of .jpg.")
    return np.stack(pictures), np.array(labels)


def greyed(pictures):
    """The pictures without their colour."""
    grey = [cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for p in pictures]
    return np.stack(grey)


def judge(features, imgs, photos):
    """{what is judged: [share right, a seed each]} of features of `imgs` and of `photos`."""
    scores = {}

    def cross_validate(name, x, y):
        scores[name] = [
            float(cross_val_score(classifier(), x, y, cv=fifths(s)).mean()) for s in SEEDS
        ]

    if photos:
        cross_validate("photos, fifths held out", features(photos[0]), photos[1])
    (pictures, labels), (valid, truth), grey = imgs
    x = features(pictures)
    cross_validate("imgs/ train, fifths held out", x, labels)
    for name, test in (("imgs/ valid", valid), ("imgs/ valid, greyed", grey)):
        scores[name] = []
        test = features(test)
        for seed in SEEDS:
            some = np.random.default_rng(seed).permutation(len(labels))[: int(0.9 * len(labels))]
            scores[name].append(classifier().fit(x[some], labels[some]).score(test, truth))
    return scores


def frozen_table(bodies, imgs, photos):
    """{what is judged: {body: [share right, a seed each]}}."""
    table = {}
    for name, body in tqdm(bodies.items(), "frozen features"):
        encode = histograms if body is None else lambda p, body=body: features(body, p)
        for what, scores in judge(encode, imgs, photos).items():
            table.setdefault(what, {})[name] = scores
    return table


def architecture(path):
    """A function that builds resnet34 for fastai, with the weights of a file or random ones."""
    from fastai.vision.learner import model_meta

    def build(weights=None, **_):
        model = resnet34()
        if path is not None:
            model.load_state_dict(load_body(path).state_dict(), strict=False)
        return model

    model_meta[build] = model_meta[resnet34]
    return build


def notebook_learner(path, plan, seed, fifth=None):
    """The notebook's learner, with the body of a file or a random one, its head untrained.

    With a `fifth` of 0 to 4, that part of train takes the place of valid.
    """
    from fastai.torch_core import set_seed

    from tutorial import fast_defaults, recipe

    def split(files):
        return list(fifths(0).split(files, [file.parent.name for file in files]))[fifth]

    how = {} if fifth is None else {"folders": ("train",), "splitter": split}
    fast_defaults()
    set_seed(seed)
    return recipe.learner(recipe.loaders(plan.imgs, bs=plan.batch, **how), architecture(path))


def notebook_run(path, plan, seed, fifth=None):
    """Train as the notebook does; accuracy after the head and after fine-tuning."""
    learn, scores = notebook_learner(path, plan, seed, fifth), []
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(plan.head_epochs, plan.head_rate)
        scores.append(learn.validate()[1])
        learn.unfreeze()
        learn.fit_one_cycle(plan.epochs, slice(*plan.rates))
        scores.append(learn.validate()[1])
    return scores


def notebook_table(plan):
    """{measure: {encoder: [one score a seed, or a part of train]}} for the notebook's schedule."""
    table = {}

    def add(name, scores, where):
        for when, score in zip(("after the head", "after fine-tuning"), scores, strict=True):
            table.setdefault(f"{when}, {where}", {}).setdefault(name, []).append(score)

    for seed in tqdm(SEEDS, "notebook's schedule"):
        add("body", notebook_run(plan.body, plan, seed), "imgs/ valid")
        add("random body", notebook_run(None, plan, seed), "imgs/ valid")
    for fifth in tqdm(range(5), "fifths of train"):
        add("body", notebook_run(plan.body, plan, 0, fifth), "fifths of imgs/ train")
    return table


def show(scores):
    """Mean and sd over the seeds as text."""
    sd = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):.1%} ± {100 * sd:.1f}"


def markdown(scores, columns):
    """The scores in a Markdown table, one measure a row."""
    from tutorial.report import table

    rows = [
        [what, *(show(row[c]) if c in row else "" for c in columns)] for what, row in scores.items()
    ]
    return table(["", *columns], rows)


def add_plan(parser):
    """Add body, pictures, and the notebook's two trainings; the defaults are its own."""
    from tutorial.recipe import ALL, BATCH, HEAD

    parser.add_argument("--body", type=Path, default=WEIGHTS / NAME)
    parser.add_argument("--photos", type=Path, help="class folders of other pictures to judge on")
    parser.add_argument("--before", type=Path, help="another body, to be judged beside")
    parser.add_argument("--imgs", type=Path, default=ROOT / "imgs")
    parser.add_argument("--head-epochs", type=int, default=HEAD.epochs)
    parser.add_argument("--head-rate", type=float, default=HEAD.rate)
    parser.add_argument("--epochs", type=int, default=ALL.epochs)
    rates = ALL.rate.start, ALL.rate.stop
    parser.add_argument("--rates", type=float, nargs=2, default=rates)
    parser.add_argument("--batch", type=int, default=BATCH)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--no-notebook", dest="notebook", action="store_false")
    add_plan(parser)
    plan = parser.parse_args()

    warnings.filterwarnings("ignore", module="sklearn")  # several lines at each of many fits
    valid, truth = load_pictures(plan.imgs / "valid")
    imgs = load_pictures(plan.imgs / "train"), (valid, truth), greyed(valid)
    photos = load_pictures(plan.photos) if plan.photos else None
    bodies = {"body": load_body(plan.body), "random body": random_body(), "colour histogram": None}
    if plan.before:
        bodies["the body before"] = load_body(plan.before)
    bodies["teacher"] = teacher_body()
    print(markdown(frozen_table(bodies, imgs, photos), list(bodies)), flush=True)
    if plan.notebook:
        table = notebook_table(plan)
        print(
            f"\nvision_learner, {plan.head_epochs} + {plan.epochs} epochs, batch {plan.batch}, "
            f"rates {plan.head_rate:g}, then slice({plan.rates[0]:g}, {plan.rates[1]:g}):\n"
        )
        print(markdown(table, ["body", "random body"]))
        for measure, row in table.items():
            each = ", ".join(f"{score:.1%}" for score in row["body"])
            print(f"{measure}, the body one by one: {each}")


if __name__ == "__main__":
    main()
