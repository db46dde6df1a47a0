"""Let a resnet34 imitate the teacher, on scenes composed as it goes.

    torchrun --nproc-per-node 2 tools/pretrain_body/train.py --scenes 4000000 --out FOLDER

One process for each core, or for each GPU. Stop it when you like: the same command goes on from
the last checkpoint. The learning rate is constant but for the last fifth, in which it falls to
nothing. Before it does, `trunk.pt` is written; with a larger number of scenes training goes on from
there. `export.py` makes the file in `weights/` from the last checkpoint.

Sources: Hinton et al., "Distilling the knowledge in a neural network", 2015; Romero et al.,
"FitNets", 2015 (maps at several depths); Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", 2022 (the same crop for both, long training, no labels).
"""

import argparse
import copy
import csv
import os
import sys
import time
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pictures import FOLDER, ROOT
from scenes import Scenes
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet34
from tqdm import tqdm

sys.path.insert(0, str(ROOT))  # for the package tutorial
from teacher import CHANNELS, MEAN, STD, Teacher, compiled  # noqa: E402

BATCH = 32  # scenes a process and step
# Until how many scenes the student sees which side in pixels, and the teacher which. Small pictures
# are cheap, and large ones are needed only to learn what small ones do not show.
SIDES = ((1_000_000, 96, 160), (float("inf"), 128, 192))
RATE, WARM_UP, FALL, WEIGHT_DECAY, CLIP = 1.5e-3, 5_000, 0.2, 0.02, 5.0
EMA_DECAY = 0.999
WEIGHT = {"layer2": 0.5, "layer3": 0.5, "layer4": 0.5, "head": 2.0, "pooled": 2.0, "scores": 0.3}
COLUMNS = ["scenes", "minutes", "side", "rate", *WEIGHT]


class Student(nn.Module):
    """resnet34 with the layers that only imitation needs, each from a map to the teacher's."""

    def __init__(self):
        super().__init__()
        self.body = resnet34()
        self.body.fc = nn.Identity()
        widths = {"layer2": 128, "layer3": 256, "layer4": 512, "head": 512}
        self.adapt = nn.ModuleDict({n: nn.Conv2d(widths[n], CHANNELS[n], 1) for n in widths})
        self.scores = nn.Linear(512, 1000)

    def forward(self, x):
        """Return what `Teacher` returns."""
        b, maps = self.body, {}
        x = b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(x)))))
        for name in ("layer2", "layer3", "layer4"):
            maps[name] = x = getattr(b, name)(x)
        maps["head"] = x
        out = [self.adapt[name](maps[name]) for name in CHANNELS]
        return [*out, self.scores(x.mean((2, 3)))]


class Convolution(torch.autograd.Function):
    """A 3x3 convolution whose weights' gradient is nine matrix products.

    On small maps with many channels that is several times as fast on a processor as PyTorch's own.
    """

    @staticmethod
    def forward(ctx, x, weight, stride):
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, 1)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        s, (out, channels) = ctx.stride, weight.shape[:2]
        to_x = torch.nn.grad.conv2d_input(x.shape, weight, grad, s, 1)
        height, width = grad.shape[2:]
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        rows = grad.permute(0, 2, 3, 1).reshape(-1, out).t().contiguous()
        to_weight = [
            rows @ padded[:, i : i + height * s : s, j : j + width * s : s].reshape(-1, channels)
            for i in range(3)
            for j in range(3)
        ]
        return to_x, torch.stack(to_weight, -1).view(weight.shape), None


class FastConv2d(nn.Conv2d):
    """`Convolution` as a layer; only for training in bfloat16 on a processor."""

    def forward(self, x):
        return Convolution.apply(x, self.weight.bfloat16(), self.stride[0])


def speed_up(body):
    """Let the layers with 256 and more channels learn by `Convolution`."""
    for module in [*body.layer3.modules(), *body.layer4.modules()]:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.__class__ = FastConv2d


def losses(student, teacher, spread):
    """All terms, unweighted, as a dict with the keys of `WEIGHT`.

    Parameters
    ----------
    student, teacher : list of Tensor
        What the two said of the same scenes.
    spread : list of (Tensor, Tensor)
        Mean and standard deviation of each channel of the teacher's maps: all count alike.
    """
    targets = [(t - mean) / std for t, (mean, std) in zip(teacher, spread, strict=False)]
    student = [s.float() for s in student]
    terms = {n: F.smooth_l1_loss(s, t) for n, s, t in zip(CHANNELS, student, targets, strict=False)}
    terms["pooled"] = F.mse_loss(student[3].mean((2, 3)), targets[3].mean((2, 3)))
    mine, theirs = F.log_softmax(student[4], 1), F.log_softmax(teacher[4], 1)
    terms["scores"] = F.kl_div(mine, theirs, log_target=True, reduction="batchmean")
    return terms


def normalise(scenes):
    """uint8 scenes, shape (n, side, side, 3), as the networks take them: (n, 3, side, side)."""
    mean, std = (torch.tensor(v, device=scenes.device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return ((scenes.permute(0, 3, 1, 2) - mean) / std).contiguous()


class Pairs:
    """Scenes as the student sees them, and what the teacher says of them."""

    def __init__(self, scenes, device):
        self.scenes, self.device, self.sides = scenes, device, None

    def next(self, student_side, teacher_side):
        if self.sides != (student_side, teacher_side):
            self.sides = student_side, teacher_side
            self.teacher = Teacher(student_side)
            if self.device.type == "cpu":
                self.teacher = compiled(self.teacher, BATCH, teacher_side)
            else:
                self.teacher.to(self.device, memory_format=torch.channels_last)
        x = normalise(torch.from_numpy(self.scenes.batch(BATCH, teacher_side)).to(self.device))
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            said = [t.float() for t in self.teacher(x)]
        x = F.interpolate(x, (student_side, student_side), mode="bilinear", antialias=True)
        return x.contiguous(memory_format=torch.channels_last), said


def spread_of(batches):
    """Mean and standard deviation of each channel of the teacher's maps, over some batches."""
    maps = [torch.cat(same) for same in zip(*batches, strict=True)][:-1]
    return [(m.mean((0, 2, 3), True), m.std((0, 2, 3), keepdim=True) + 1e-3) for m in maps]


def sides_at(scenes):
    """The student's and the teacher's side in pixels, after so many scenes."""
    return next(sides for until, *sides in SIDES if scenes < until)


def rate_at(scenes, total):
    """Learning rate after so many scenes: a short rise, constant, a fall over the last fifth."""
    return RATE * min(1, (scenes + 1) / WARM_UP, max(0, (total - scenes) / (FALL * total)))


@torch.no_grad()
def follow(ema, student, step):
    """Move the running average of weights and batch-norm statistics towards the student."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    pairs = zip(ema.state_dict().values(), student.state_dict().values(), strict=True)
    pairs = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)


def optimizer_for(student):
    """AdamW; no weight decay on biases and batch norms."""
    decayed = [p for p in student.parameters() if p.ndim > 1]
    rest = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}]
    return torch.optim.AdamW([*groups, {"params": rest, "weight_decay": 0.0}], lr=RATE, fused=True)


def save(path, state):
    """Write a checkpoint so that a crash leaves either the old one or the new one."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def forget_after(log, scenes):
    """Drop the rows of `training.csv` that came after the checkpoint; they will come again."""
    header, *rows = log.read_text().splitlines()
    rows = [row for row in rows if int(row.split(",")[0]) <= scenes]
    log.write_text("\n".join([header, *rows]) + "\n")


def last_checkpoint(out, total):
    """The newest checkpoint whose rates were not yet falling, or that falls as this run does."""
    for name in ("checkpoint.pt", "trunk.pt"):
        if (out / name).exists():
            state = torch.load(out / name, weights_only=True)
            if state["total"] == total or state["scenes"] <= (1 - FALL) * state["total"]:
                return state
    return None


def train(total, out, pictures=FOLDER, start=None, seed=0, save_every=300):
    """Train until `total` scenes have been seen by all processes together.

    Parameters
    ----------
    total : int
    out : Path
        Folder for `checkpoint.pt`, `trunk.pt` and `training.csv`; what is there is continued.
    pictures : Path
        Where `pictures.py` has written.
    start : Path, optional
        A body (.safetensors) to begin with instead of random weights.
    seed : int, default 0
    save_every : float, default 300
        Seconds between checkpoints.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(seed)
    student = Student()
    if start:
        from export import load_body

        student.body.load_state_dict(load_body(start).state_dict())
    state = last_checkpoint(out, total) or {"step": 0, "scenes": 0, "minutes": 0.0}
    if "student" in state:
        student.load_state_dict(state["student"])
    student.to(device, memory_format=torch.channels_last)
    ema = copy.deepcopy(student).eval()
    if device.type == "cpu":
        speed_up(student.body)
    optimizer = optimizer_for(student)
    if "student" in state:
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    step, scenes, minutes = state["step"], state["scenes"], state["minutes"]
    pairs = Pairs(Scenes(pictures, [seed, step, rank]), device)
    spread = state.get("spread")
    if spread is None:
        spread = spread_of([pairs.next(*sides_at(0))[1] for _ in range(8)])
        for tensor in (t for pair in spread for t in pair):
            dist.broadcast(tensor, 0)
    parallel = DistributedDataParallel(
        student, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    log, first = out / "training.csv", rank == 0
    if first and scenes:
        forget_after(log, scenes)
    elif first:
        log.write_text(",".join(COLUMNS) + "\n")
    bar = tqdm(total=total, initial=scenes, unit=" scenes", disable=not first, mininterval=30)
    before = last_save = time.monotonic()
    means = {}

    def checkpoint(name="checkpoint.pt"):
        save(
            out / name,
            {
                "student": student.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "spread": spread,
                "step": step,
                "scenes": scenes,
                "minutes": minutes,
                "total": total,
                "seed": seed,
            },
        )

    while scenes < total:
        sides, rate = sides_at(scenes), rate_at(scenes, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, said = pairs.next(*sides)
        with torch.autocast(device.type, torch.bfloat16):
            mine = parallel(x)
        terms = losses(mine, said, spread)
        optimizer.zero_grad()
        sum(WEIGHT[name] * term for name, term in terms.items()).backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        fell = scenes >= (1 - FALL) * total
        step, scenes = step + 1, scenes + BATCH * world
        if not first:
            continue
        follow(ema, student, step)
        now = time.monotonic()
        minutes, before = minutes + (now - before) / 60, now
        for name, term in terms.items():
            means[name] = 0.95 * means.get(name, term.item()) + 0.05 * term.item()
        bar.update(BATCH * world)
        if step % 50 == 0 or scenes >= total:
            row = {"scenes": scenes, "minutes": f"{minutes:.2f}", "side": sides[0]}
            row |= {"rate": f"{rate:.6f}"} | {k: f"{v:.4f}" for k, v in means.items()}
            with log.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        if not fell and scenes >= (1 - FALL) * total:
            checkpoint("trunk.pt")
        if now - last_save > save_every or scenes >= total:
            checkpoint()
            last_save = time.monotonic()
    bar.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, required=True, help="how many to learn from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, default=FOLDER)
    parser.add_argument("--body", type=Path, help="a body to begin with (.safetensors)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if "RANK" not in os.environ:  # started without torchrun: one process
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
        os.environ.setdefault("MASTER_PORT", "29511")
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train(args.scenes, args.out, args.pictures, args.body, args.seed)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
