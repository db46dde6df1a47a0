"""Turn a training checkpoint into the file that the tutorial loads.

    python tools/pretrain_body/export.py FOLDER/checkpoint.pt

Takes the running average of the weights, measures the batch-norm statistics anew on generated
pictures at the tutorial's 224 px in float32, and writes `resnet34-body.safetensors`,
`SHA256SUMS`, `training.csv` and `training.png` into `weights/`.
"""

import argparse
import csv
import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scenes import SceneSource
from torch import nn
from torchvision.models import resnet34
from tqdm import tqdm
from train import Student, to_tensors

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
NAME = "resnet34-body.safetensors"
ROWS = 300  # of the learning curve that are kept


@torch.no_grad()
def recalibrate(body, pictures=1536, side=224, seed=777):
    """Measure batch-norm means and variances on generated pictures, in place.

    Parameters
    ----------
    body : Module
        In float32; left in evaluation mode.
    pictures : int, default 1536
    side : int, default 224
        The size at which the body will be used, in pixels.
    seed : int, default 777
        Of pictures that training did not see.
    """
    source = SceneSource(seed, 256, 300)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    body.train()
    for _ in tqdm(range(pictures // 64), "batch-norm statistics"):
        body(to_tensors(source.batch(32, side))[0])
    body.eval()


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


def thin(rows, keep):
    """About `keep` of the rows, evenly spaced, and every row that holds a probe."""
    step = max(1, len(rows) // keep)
    return [r for i, r in enumerate(rows) if i % step == 0 or r["rank"]]


def plot(rows, path):
    """Losses and probes over the minutes of training."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    minutes = [float(r["minutes"]) for r in rows]
    probes = [r for r in rows if r["rank"]]
    probed = [float(r["minutes"]) for r in probes]
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), dpi=80)
    for name in ("attributes", "coarse", "fine", "cover"):
        left.plot(minutes, [float(r[name]) for r in rows], label=name)
    left.set(title="Losses", ylim=(0, 2.2), xlabel="minutes")
    left.legend(fontsize=8)
    middle.plot(minutes, [float(r["contrast"]) for r in rows], color="tab:purple")
    middle.set(title="Contrast loss", xlabel="minutes")
    right.plot(probed, [float(r["attribute_accuracy"]) for r in probes], label="attributes right")
    right.plot(probed, [float(r["majority"]) for r in probes], ":", label="commonest class")
    right.set(title="Pictures not trained on", xlabel="minutes", ylim=(0, 1))
    right.legend(fontsize=8, loc="lower right")
    rank = right.twinx()
    rank.plot(probed, [float(r["rank"]) for r in probes], color="tab:green")
    rank.set_ylabel("effective rank", color="tab:green")
    for axis in (left, middle):
        axis.set_xlim(right=1.15 * minutes[-1])  # room for the last label
        for side in (96, 128):
            first = next((float(r["minutes"]) for r in rows if int(r["side"]) == side), None)
            if first is not None:
                axis.axvline(first, color="grey", lw=0.8, ls="--")
                low = (first, axis.get_ylim()[0])
                axis.annotate(f" {side} px", low, fontsize=8, va="bottom")
    fig.tight_layout()
    fig.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--to", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, weights_only=True)
    student = Student()
    student.load_state_dict(state["ema"])
    recalibrate(student.body)

    args.to.mkdir(parents=True, exist_ok=True)
    file = args.to / NAME
    about = {
        "format": "pt",
        "architecture": "torchvision resnet34 without fc",
        "input": "RGB, 224 px, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        "data": "only pictures generated by tools/pretrain_body; no photograph",
        "samples_seen": str(state["samples"]),
        "training_minutes": f"{state['spent'] / 60:.1f}",
        "command": f"train.py --minutes {state['minutes']:g} --seed {state['seed']}",
        "licence": "the licence of the repository",
    }
    save_file(body_state(student.body), file, metadata=about)
    file.chmod(0o644)  # safetensors writes it for its owner alone
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (args.to / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")

    log = args.checkpoint.with_name("training.csv")
    if log.exists():
        rows = list(csv.DictReader(log.open()))
        rows = thin(rows, ROWS)
        with (args.to / "training.csv").open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        plot(rows, args.to / "training.png")

    load_body(file)  # what was written can be read
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
