"""Measure a body beside a random body and a colour histogram, mean and sd over five seeds.

    python tools/pretrain_body/evaluate.py                 everything: the tables of the model card
    python tools/pretrain_body/evaluate.py --no-notebook   without the slow part, fine-tuning

Nothing here chooses anything: pictures of `imgs/valid` only score, `imgs/test` is not read.
"""

import argparse
import statistics
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from drawings import draw_colours, draw_figure, draw_pictures
from export import NAME, WEIGHTS, load_body, recalibrate
from PIL import Image
from scenes import MEAN, STD, SceneSource
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.models import resnet34
from tqdm import tqdm
from train import effective_rank

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the package tutorial
SEEDS = range(5)
TASKS, SHOTS, TESTS = 4, 60, 100  # drawn pairs a seed; pictures of each figure


def random_body(seed):
    """An untrained resnet34 whose batch norms have at least met generated pictures."""
    torch.manual_seed(seed)
    body = resnet34()
    body.fc = nn.Identity()
    recalibrate(body, 256, 96)
    return body


@torch.no_grad()
def features(body, pictures):
    """Pooled features of uint8 RGB pictures, shape (n, side, side, 3) to (n, 512)."""
    rows = []
    for i in range(0, len(pictures), 32):
        x = (pictures[i : i + 32].astype(np.float32) / 255 - MEAN) / STD
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(body(torch.from_numpy(x).permute(0, 3, 1, 2)))
    return torch.cat(rows).float().numpy()


def histograms(pictures):
    """8 x 8 x 8 hue-saturation-value histograms, shape (n, 512), as shares."""
    rows = []
    for picture in pictures:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])
        rows.append(counts.ravel() / counts.sum())
    return np.stack(rows)


def classifier():
    """Logistic regression on standardised features; strength by cross-validation on them."""
    model = LogisticRegressionCV(Cs=[1e-4, 1e-3, 1e-2, 1e-1, 1.0], cv=4, max_iter=500)
    return make_pipeline(StandardScaler(), model)


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


def drawn_task(rng, same_colours):
    """A two-class task of the second renderer: x, y for training, x, y for testing."""
    colours = draw_colours(rng)
    figures = [(draw_figure(rng), colours if same_colours else draw_colours(rng)) for _ in range(2)]
    return *draw_pictures(rng, figures, SHOTS), *draw_pictures(rng, figures, TESTS)


def frozen(encode, seed, imgs):
    """Accuracies of one encoder with one seed, as a dict from what is measured to a share."""
    rng = np.random.default_rng(1000 + seed)
    result = {}
    for name, same in (("drawn pairs, colour and shape", False), ("drawn pairs, shape only", True)):
        scores = []
        for _ in range(TASKS):
            x, y, test, truth = drawn_task(rng, same)
            scores.append(classifier().fit(encode(x), y).score(encode(test), truth))
        result[name] = float(np.mean(scores))
    if imgs:
        (x, y), (valid, truth), grey = imgs
        some = rng.permutation(len(y))[: int(0.9 * len(y))]
        model = classifier().fit(encode(x)[some], y[some])
        result["imgs/ valid"] = model.score(encode(valid), truth)
        result["imgs/ valid, greyed"] = model.score(encode(grey), truth)
        folds = cross_val_score(classifier(), encode(x), y, cv=fifths(seed))
        result["imgs/ train, fifths held out"] = float(folds.mean())
    return result


def once(encode):
    """Remember the features of the last few arrays: `imgs/` is the same for all seeds."""
    known = {}

    def remembered(pictures):
        if len(pictures) and pictures.shape[1] == 224:
            if id(pictures) not in known:
                known[id(pictures)] = encode(pictures)
            return known[id(pictures)]
        return encode(pictures)

    return remembered


def frozen_table(body, imgs):
    """{measure: {encoder: [one score a seed]}} for the body, random bodies and the histogram."""
    table = {}
    trained, counted = once(lambda p: features(body, p)), once(histograms)
    for seed in tqdm(SEEDS, "frozen features"):
        untrained = random_body(seed)
        encoders = {
            "body": trained,
            "random body": lambda p, net=untrained: features(net, p),
            "colour histogram": counted,
        }
        for name, encode in encoders.items():
            for what, score in frozen(encode, seed, imgs).items():
                table.setdefault(what, {}).setdefault(name, []).append(score)
        scenes = SceneSource(5_000_011 + seed, 256, 200, fresh=False)
        pictures = np.concatenate([scenes.batch(32, 128)[0] for _ in range(8)]).astype(np.uint8)
        ranks = table.setdefault("effective rank, generated", {})
        ranks.setdefault("body", []).append(
            effective_rank(torch.from_numpy(features(body, pictures)))
        )
        of_random = effective_rank(torch.from_numpy(features(untrained, pictures)))
        ranks.setdefault("random body", []).append(of_random)
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


def loaders(plan, fifth=None):
    """The notebook's loaders; with a `fifth` of 0 to 4, that part of train in place of valid."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        FuncSplitter,
        ImageBlock,
        IndexSplitter,
        Resize,
        aug_transforms,
        parent_label,
    )

    folders = ("train", "valid") if fifth is None else ("train",)
    files = sorted(file for folder in folders for file in (plan.imgs / folder).glob("*/*.jpg"))
    splitter = FuncSplitter(lambda file: file.parent.parent.name == "valid")
    if fifth is not None:
        splits = fifths(0).split(files, [file.parent.name for file in files])
        splitter = IndexSplitter(list(splits)[fifth][1])
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda _: files,
        get_y=parent_label,
        splitter=splitter,
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
    )
    return block.dataloaders(plan.imgs, bs=plan.batch, num_workers=0)


def notebook_learner(path, plan, seed, fifth=None):
    """The notebook's learner, with the body of a file or a random one, its head untrained."""
    from fastai.vision.all import BnFreeze, accuracy, set_seed, vision_learner

    from tutorial import native_precision

    set_seed(seed)
    return vision_learner(
        loaders(plan, fifth),
        architecture(path),
        metrics=accuracy,
        train_bn=False,
        cbs=[native_precision(), BnFreeze],
    )


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


def show(scores, share=True):
    """Mean and sd over the seeds as text."""
    k = 100 if share else 1
    mean, sd = (
        statistics.mean(scores) * k,
        (statistics.stdev(scores) if len(scores) > 1 else 0.0) * k,
    )
    return f"{mean:.1f} ± {sd:.1f}" + (" %" if share else "")


def markdown(table, columns):
    """The table in Markdown, one measure a row."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for what, row in table.items():
        cells = [show(row[c], "rank" not in what) if c in row else "" for c in columns]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_plan(parser):
    """Add body, pictures, and the notebook's two trainings; the defaults are its own."""
    parser.add_argument("--body", type=Path, default=WEIGHTS / NAME)
    parser.add_argument("--imgs", type=Path, default=ROOT / "imgs")
    parser.add_argument("--head-epochs", type=int, default=3)
    parser.add_argument("--head-rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs=2, default=(1e-5, 3e-4))
    parser.add_argument("--batch", type=int, default=16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--no-notebook", dest="notebook", action="store_false")
    add_plan(parser)
    plan = parser.parse_args()

    warnings.filterwarnings("ignore", module="sklearn")  # several lines at each of many fits
    imgs = None
    if (plan.imgs / "train").is_dir():
        valid, truth = load_pictures(plan.imgs / "valid")
        imgs = load_pictures(plan.imgs / "train"), (valid, truth), greyed(valid)
    columns = ["body", "random body", "colour histogram"]
    print(markdown(frozen_table(load_body(plan.body), imgs), columns), flush=True)
    if imgs and plan.notebook:
        table = notebook_table(plan)
        print(
            f"\nvision_learner, {plan.head_epochs} + {plan.epochs} epochs, batch {plan.batch}, "
            f"rates {plan.head_rate:g}, then slice({plan.rates[0]:g}, {plan.rates[1]:g}):\n"
        )
        print(markdown(table, columns[:2]))
        for measure, row in table.items():
            each = ", ".join(f"{score:.1%}" for score in row["body"])
            print(f"{measure}, the body one by one: {each}")


if __name__ == "__main__":
    main()
