"""Turn a training checkpoint into the file that the tutorial loads.

    python tools/pretrain_body/export.py FOLDER/checkpoint.pt

Takes the running average of the weights, measures the batch-norm statistics anew on composed
scenes at the tutorial's 224 px in float32, and writes `resnet34-body.safetensors`, `SHA256SUMS`,
`training.csv` and `training.png` into `weights/`.
"""

import argparse
import csv
import hashlib
from pathlib import Path

import torch
from pictures import FOLDER, ROOT
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet34
from tqdm import tqdm

WEIGHTS = ROOT / "weights"
NAME = "resnet34-body.safetensors"
ROWS = 300  # of the learning curve that are kept


@torch.no_grad()
def recalibrate(body, batches):
    """Measure batch-norm means and variances, in place.

    Parameters
    ----------
    body : Module
        In float32; left in evaluation mode.
    batches : iterable of Tensor
        Normalised pictures of the size at which the body will be used.
    """
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    body.train()
    for batch in batches:
        body(batch)
    body.eval()


def scene_batches(pictures, count=24, side=224, seed=777):
    """Yield normalised batches of 64 scenes that training did not see."""
    from scenes import Scenes
    from train import normalise

    scenes = Scenes(pictures, seed)
    for _ in tqdm(range(count), "batch-norm statistics"):
        yield normalise(torch.from_numpy(scenes.batch(64, side)))


def body_state(body):
    """The tensors to ship: float16 convolutions, float32 batch norms, no fc, no counters."""
    state = {}
    for name, value in body.state_dict().items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        value = value.half() if value.ndim == 4 else value.float()
        state[name] = value.contiguous(memory_format=torch.contiguous_format)
    return state


def load_body(path):
    """resnet34 without its last layer, in float32 and evaluation mode, from a shipped file."""
    body = resnet34()
    body.fc = nn.Identity()
    missing, unknown = body.load_state_dict(load_file(path), strict=False)
    if unknown or any("num_batches" not in name for name in missing):
        raise SystemExit(f"{path} does not hold the body of a resnet34; export it again.")
    return body.eval()


def plot(rows, path):
    """Losses over the scenes seen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    millions = [int(row["scenes"]) / 1e6 for row in rows]
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.2), dpi=80)
    groups = {
        "Maps": ("layer2", "layer3", "layer4", "head"),
        "Pooled features": ("pooled",),
        "Class probabilities": ("scores",),
    }
    for axis, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            axis.plot(millions, [float(row[name]) for row in rows], label=name)
        axis.set(title=f"{title}: distance from the teacher's", xlabel="million scenes")
    axes[0].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pictures", type=Path, default=FOLDER)
    parser.add_argument("--to", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, weights_only=True)
    body = resnet34()
    body.fc = nn.Identity()
    ema = {n.removeprefix("body."): v for n, v in state["ema"].items() if n.startswith("body.")}
    body.load_state_dict(ema)
    recalibrate(body, scene_batches(args.pictures))

    args.to.mkdir(parents=True, exist_ok=True)
    file = args.to / NAME
    about = {
        "format": "pt",
        "architecture": "torchvision resnet34 without fc",
        "input": "RGB, 224 px, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        "teacher": "EfficientNet-Lite0 (Apache-2.0), trained on ImageNet",
        "data": "scenes composed by tools/pretrain_body from pictures in Debian packages",
        "scenes_seen": str(state["scenes"]),
        "training_minutes": f"{state['minutes']:.0f}",
        "command": f"train.py --scenes {state['total']} --seed {state['seed']}",
        "licence": "the licence of the repository",
    }
    save_file(body_state(body), file, metadata=about)
    file.chmod(0o644)  # safetensors writes it for its owner alone
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (args.to / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")

    log = args.checkpoint.with_name("training.csv")
    if log.exists():
        rows = list(csv.DictReader(log.open()))
        rows = rows[:: max(1, len(rows) // ROWS)]
        with (args.to / "training.csv").open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        plot(rows, args.to / "training.png")

    load_body(file)  # what was written can be read
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
