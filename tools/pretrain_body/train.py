"""Train a resnet34 body on generated creatures, for as many minutes as there are.

    python tools/pretrain_body/train.py --minutes 120 --out FOLDER

Writes `checkpoint.pt` every five minutes (start the same command again to go on from it) and a
line of `training.csv` every few seconds.  `export.py` makes the file in `weights/` from the
checkpoint.
"""

import argparse
import copy
import csv
import math
import os
import queue
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scenes import DESCRIPTORS, IGNORE, LABELS, MEAN, STD, SceneSource
from torch import nn
from torchvision.models import resnet34
from tqdm import tqdm

PAIRS = 32  # creatures in a batch, two pictures each
SIZES = ((0.78, 64), (0.93, 96), (1.01, 128))  # share of the time until which, pixels
PEAK_RATE, WARM_UP, WEIGHT_DECAY, CLIP = 0.05, 0.03, 5e-5, 5.0
EMA_DECAY, TEMPERATURE, HEAD_SCALE = 0.999, 0.2, 0.2
WEIGHT = {
    "attributes": 2.0,
    "contrast": 0.5,
    "redundancy": 5.0,
    "coarse": 0.3,
    "fine": 0.15,
    "cover": 0.3,
}
COLUMNS = ["minutes", "samples", "side", "rate", *WEIGHT, "rank", "attribute_accuracy", "majority"]


class Student(nn.Module):
    """resnet34 with the heads that only training needs.

    The heads read the pooled features (attributes, contrast), the last map (one 32 px cell each)
    and the map after `layer2` (16 px cells, after 2 x 2 averaging).
    """

    def __init__(self):
        super().__init__()
        self.body = resnet34(zero_init_residual=True)
        self.body.fc = nn.Identity()
        # Standardised and small: raw features, or many that say the same, make the squared errors
        # so steep that training diverges.
        self.norm = nn.BatchNorm1d(512, affine=False)
        self.coarse_norm = nn.BatchNorm2d(512, affine=False)
        self.fine_norm = nn.BatchNorm2d(128, affine=False)
        self.attributes = nn.Linear(512, sum(LABELS.values()))
        self.project = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
        self.coarse = nn.Conv2d(512, DESCRIPTORS + 2, 1)
        self.fine = nn.Conv2d(128, DESCRIPTORS + 2, 1)
        for head in (self.attributes, self.coarse, self.fine):  # start from "no idea"
            nn.init.zeros_(head.weight)

    def maps(self, x):
        """Maps after layer2 and layer4, shapes (n, 128, s/8, s/8) and (n, 512, s/32, s/32)."""
        b = self.body
        x = b.maxpool(b.relu(b.bn1(b.conv1(x))))
        middle = b.layer2(b.layer1(x))
        return middle, b.layer4(b.layer3(middle))

    def features(self, x):
        """Pooled features, shape (n, 512)."""
        return self.maps(x)[1].mean((2, 3))

    def forward(self, x):
        middle, last = self.maps(x)
        pooled = self.norm(last.mean((2, 3)))
        coarse = self.coarse(self.coarse_norm(last) * HEAD_SCALE)
        fine = self.fine(self.fine_norm(F.avg_pool2d(middle, 2)) * HEAD_SCALE)
        return self.attributes(pooled), self.project(pooled), coarse, fine, pooled


def contrast_loss(z):
    """NT-Xent (Chen et al., 2020): rows i and i + n/2 are two pictures of one creature."""
    z = F.normalize(z, dim=1)
    n = len(z)
    logits = z @ z.T / TEMPERATURE
    logits.fill_diagonal_(-1e4)
    return F.cross_entropy(logits, (torch.arange(n) + n // 2) % n)


def redundancy_loss(z):
    """Mean squared correlation of two features, as Barlow Twins and VICReg keep it small.

    Zbontar et al., 2021; Bardes et al., 2022.  Without it most of the 512 features come to say
    the same.  `z` has shape (n, d); 1 if all say the same, about 1 / n if each is independent.
    """
    z = F.normalize(z - z.mean(0), dim=0)
    d = z.shape[1]
    return ((z.T @ z).square().sum() - d) / (d * (d - 1))


def attribute_loss(logits, labels):
    """Mean cross-entropy over the attributes; logits side by side, labels shape (n, 21)."""
    parts = logits.split(list(LABELS.values()), 1)
    each = [F.cross_entropy(p, labels[:, i], ignore_index=IGNORE) for i, p in enumerate(parts)]
    return sum(each) / len(each)


def dense_loss(prediction, target):
    """Squared error of the descriptors and cross-entropy of the covered shares, per cell."""
    prediction = prediction.permute(0, 2, 3, 1)
    error = (prediction[..., :DESCRIPTORS] - target[..., :DESCRIPTORS]).square().sum(-1).mean()
    share = target[..., DESCRIPTORS:].clamp(0, 1)
    return error, F.binary_cross_entropy_with_logits(prediction[..., DESCRIPTORS:], share)


def losses(student, batch):
    """All terms, unweighted, as a dict with the keys of `WEIGHT`."""
    x, labels, fine, coarse = batch
    with torch.autocast("cpu", torch.bfloat16):
        out = student(x)
    attributes, z, coarse_out, fine_out, pooled = (o.float() for o in out)
    coarse_error, coarse_cover = dense_loss(coarse_out, coarse)
    fine_error, fine_cover = dense_loss(fine_out, fine)
    return {
        "attributes": attribute_loss(attributes, labels),
        "contrast": contrast_loss(z),
        "coarse": coarse_error,
        "fine": fine_error,
        "cover": coarse_cover + fine_cover,
        "redundancy": redundancy_loss(pooled),
    }


def to_tensors(batch):
    """Normalised channels-last pictures, labels and dense targets as tensors."""
    pictures, labels, fine, coarse = batch
    pictures *= 1 / (255 * STD)
    pictures -= MEAN / STD
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return x, torch.from_numpy(labels), torch.from_numpy(fine), torch.from_numpy(coarse)


class Loader:
    """Makes batches in a thread of its own; `side` may change while it runs."""

    def __init__(self, source, side):
        self.source, self.side = source, side
        self.ready = queue.Queue(4)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        try:
            while True:
                side = self.side
                self.ready.put((side, to_tensors(self.source.batch(PAIRS, side))))
        except Exception as error:  # else the training would wait for ever
            self.ready.put((0, error))

    def next(self):
        """The next batch of the present size."""
        while True:
            side, batch = self.ready.get()
            if isinstance(batch, Exception):
                raise batch
            if side == self.side:
                return batch


class Threads:
    """Uses one core more only while nobody else wants it.

    Beside other work, two threads that wait for each other at every layer are several times
    slower than one.  So training starts on one thread, takes all cores when half of them idle,
    and goes back when that turns out slower.
    """

    def __init__(self):
        self.all = os.cpu_count() or 1
        self.single = {}  # seconds of a step on one thread, by picture size
        self.count, self.steps, self.began = 1, 0, time.monotonic()
        self.clocks = self._clocks()
        torch.set_num_threads(1)

    @staticmethod
    def _clocks():
        try:
            ticks = [int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        except OSError:  # no such file outside Linux: stay on one thread
            return 0, 1
        return ticks[3], sum(ticks)

    def after_step(self, side):
        """Count a step; every 30 (or, on all cores, every 6) decide anew."""
        self.steps += 1
        if self.steps < (30 if self.count == 1 else 6):
            return
        now, clocks = time.monotonic(), self._clocks()
        each = (now - self.began) / self.steps
        idle = (clocks[0] - self.clocks[0]) / max(1, clocks[1] - self.clocks[1])
        if self.count == 1:
            self.single[side] = each
            if idle * self.all > 0.45 * (self.all - 1):
                self.count = self.all
        elif each > 0.95 * self.single.get(side, math.inf):
            self.count = 1
        torch.set_num_threads(self.count)
        self.steps, self.began, self.clocks = 0, now, clocks


def rate_at(done):
    """Learning rate when this share of the time has passed: warm-up, then a cosine to zero."""
    if done < WARM_UP:
        return PEAK_RATE * (0.05 + 0.95 * done / WARM_UP)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * min(1, (done - WARM_UP) / (1 - WARM_UP))))


def side_at(done):
    """Picture side when this share of the time has passed."""
    return next(side for until, side in SIZES if done < until)


def effective_rank(features):
    """Exponential of the entropy of the covariance spectrum (Roy and Vetterli, 2007).

    Parameters
    ----------
    features : Tensor of shape (n, d)

    Returns
    -------
    float
        Between 1 (collapsed) and min(n - 1, d).
    """
    centred = features.double() - features.double().mean(0)
    energy = torch.linalg.svdvals(centred).square()
    p = energy / energy.sum()
    return float(torch.exp(-(p * torch.log(p + 1e-12)).sum()))


@torch.no_grad()
def probe(student, batches):
    """Effective rank, attribute accuracy and that of always guessing the commonest class."""
    student.eval()
    rows, hits, seen, labels = [], 0, 0, []
    for x, y, _, _ in batches:
        with torch.autocast("cpu", torch.bfloat16):
            z = student.features(x)
            parts = student.attributes(student.norm(z)).split(list(LABELS.values()), 1)
        rows.append(z.float())
        guess = torch.stack([p.argmax(1) for p in parts], 1)
        known = y != IGNORE
        hits, seen = hits + (guess == y)[known].sum().item(), seen + known.sum().item()
        labels.append(y)
    y = torch.cat(labels)
    commonest = [np.bincount(c[c >= 0]).max() / (c >= 0).sum() for c in y.numpy().T]
    return effective_rank(torch.cat(rows)), hits / seen, float(np.mean(commonest))


@torch.no_grad()
def follow(ema, student, step):
    """Move the running average of weights and batch-norm statistics towards the student."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    pairs = zip(ema.state_dict().values(), student.state_dict().values(), strict=True)
    pairs = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)


def optimizer_for(student):
    """SGD with Nesterov momentum; no weight decay on biases and batch norms."""
    decayed = [p for p in student.parameters() if p.ndim > 1]
    rest = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest}]
    return torch.optim.SGD(groups, lr=PEAK_RATE, momentum=0.9, nesterov=True)


def save(path, **state):
    """Write a checkpoint so that a crash leaves either the old one or the new one."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def forget_after(log, minutes):
    """Drop the rows of `training.csv` that came after the checkpoint; they will come again."""
    header, *rows = log.read_text().splitlines()
    rows = [row for row in rows if float(row.split(",")[0]) <= minutes + 1e-3]
    log.write_text("\n".join([header, *rows]) + "\n")


def machine_seconds():
    """Seconds this process has had the whole machine: its CPU time shared by all cores.

    Beside other programs a wall clock would run on while little is learned.
    """
    return time.process_time() / (os.cpu_count() or 1)


def train(minutes, out, seed=0, save_every=300, creatures=6000):
    """Train until `minutes` have been spent; learning rate and picture size follow the clock.

    Parameters
    ----------
    minutes : float
        Of the whole machine (see `machine_seconds`), over all starts of the same run.
    out : Path
        Folder for `checkpoint.pt` and `training.csv`; a checkpoint found there is continued.
    seed : int, default 0
    save_every : float, default 300
        Seconds between checkpoints, on the wall clock.
    creatures : int, default 6000
        In the bank at a time; 256 kB of memory each.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / "checkpoint.pt", out / "training.csv"
    torch.manual_seed(seed)
    student = Student().to(memory_format=torch.channels_last)
    optimizer = optimizer_for(student)
    ema = copy.deepcopy(student)
    spent, samples, step = 0.0, 0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(state["student"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        spent, samples, step = state["spent"], state["samples"], state["step"]
        forget_after(log, spent / 60)
    else:
        log.write_text(",".join(COLUMNS) + "\n")

    held_out = SceneSource(10_000_019 + seed, 512, 300, fresh=False)
    held_out = [to_tensors(held_out.batch(PAIRS, 96)) for _ in range(6)]
    bank = SceneSource([seed, step], creatures, progress=lambda x: tqdm(x, "drawing creatures"))
    budget = minutes * 60
    loader = Loader(bank, side_at(spent / budget))
    bar = tqdm(
        total=round(budget),
        initial=round(spent),
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} s, {remaining} left{postfix}",
    )
    clock = machine_seconds()
    last_save = last_log = time.monotonic()
    mean, threads = {}, Threads()

    def write_row(**extra):
        row = {"minutes": f"{spent / 60:.3f}", "samples": samples, "side": loader.side}
        row |= {"rate": f"{rate_at(spent / budget):.5f}"} | {k: f"{v:.4f}" for k, v in mean.items()}
        with log.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row | extra)

    def checkpoint_now():
        rank, accuracy, majority = probe(ema, held_out)
        write_row(
            rank=f"{rank:.2f}", attribute_accuracy=f"{accuracy:.4f}", majority=f"{majority:.4f}"
        )
        tqdm.write(
            f"{spent / 60:.1f} min, {samples} pictures: effective rank {rank:.1f}, attributes "
            f"{accuracy:.1%} (commonest class {majority:.1%})"
        )
        save(
            checkpoint,
            student=student.state_dict(),
            ema=ema.state_dict(),
            optimizer=optimizer.state_dict(),
            spent=spent,
            samples=samples,
            step=step,
            minutes=minutes,
            seed=seed,
        )

    while spent < budget:
        loader.side = side_at(spent / budget)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(spent / budget)
        batch = loader.next()
        student.train()
        terms = losses(student, batch)
        total = sum(WEIGHT[k] * v for k, v in terms.items())
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        step += 1
        samples += len(batch[0])
        follow(ema, student, step)
        threads.after_step(loader.side)
        now, used = time.monotonic(), machine_seconds()
        spent, clock = spent + used - clock, used
        for k, v in terms.items():
            mean[k] = 0.98 * mean.get(k, v.item()) + 0.02 * v.item()
        bar.update(round(spent) - bar.n)
        bar.set_postfix_str(
            f"{samples} pictures on {threads.count} core(s), "
            + ", ".join(f"{k} {v:.3f}" for k, v in mean.items())
        )
        if now - last_log > 10:
            write_row()
            last_log = now
        if now - last_save > save_every:
            checkpoint_now()
            threads.steps, threads.began = 0, time.monotonic()
            last_save, clock = time.monotonic(), machine_seconds()  # a probe is no training
    checkpoint_now()
    bar.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.minutes, args.out, args.seed)


if __name__ == "__main__":
    main()
