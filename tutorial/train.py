"""The notebook's recipe as one command, on one processor or on many. scale.md is its guide.

    python -m tutorial.train FOLDER                             one process
    accelerate launch --multi_gpu -m tutorial.train FOLDER      all GPUs of this machine
    torchrun --nproc-per-node 2 -m tutorial.train FOLDER        two processes, on CPUs as well

Each process holds a copy of the network and takes its share of each batch. After each step all
copies move by the mean of their gradients, so that they stay equal: that is PyTorch's
``DistributedDataParallel``, by way of fastai and accelerate. After each epoch the first process
writes a checkpoint; the same command, typed again, goes on from there.

References
----------
S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020.
"""

import argparse
import hashlib
import math
import os
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from fastai.distributed import DistributedDL, DistributedTrainer
from fastai.metrics import accuracy
from fastai.torch_core import rank_distrib, set_seed
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from fastcore.basics import patch

from .backbone import body_in_use, resnet34
from .checkpoint import Checkpoint, SeedEachEpoch, read_checkpoint, take_up
from .errors import TutorialError
from .precision import describe_device, native_precision
from .report import epoch_line, write_report
from .start import check_folder
from .still import StillBatchNorm

# The two trainings of the notebook: which layers, at which highest learning rate.
STAGES = {"head": ("the head", 3e-3), "all": ("all layers", slice(1e-4, 1e-3))}
LOST = "The training was told to stop, or another of its processes has died."
GO_ON = "Type the same command again: it goes on after the last whole epoch."


@patch
def _broadcast(self: DistributedDL, t, rank):
    """Send the order of the pictures to all processes. (fastai's own way needs a GPU.)"""
    return broadcast_object_list([t], from_process=rank)[0]


def load(path, batch, processes):
    """Return the notebook's `dls`, with one process' share of each batch.

    Two things differ from the notebook. The last batch, which is smaller, is used as well, so that
    every picture counts in every epoch. And a GPU gets helpers that read the pictures for it.

    Parameters
    ----------
    path : Path
    batch, processes : int
        Pictures in a step of all processes together, and the number of these.

    Returns
    -------
    ImageDataLoaders

    Raises
    ------
    TutorialError
        If the folder cannot be used, or if a process would get fewer than two pictures.
    """
    pictures = sum(check_folder(path)["train"].values())
    share, size = batch // processes, math.ceil(pictures / processes)
    if size < 2:
        raise TutorialError(
            f"{pictures} pictures are too few for {processes} processes: start fewer of them."
        )
    if share < 2:
        raise TutorialError(
            f"A batch of {batch} is too small for {processes} processes: each needs two pictures a"
            f" step or more, so say --batch {8 * processes}, for example."
        )
    while size % share == 1:
        share += 1  # else the last batch would be a single picture, too few for a batch norm
    cores = os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of each process
    return ImageDataLoaders.from_folder(
        path,
        valid="valid",
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
        bs=share,
        drop_last=False,
        num_workers=min(8, cores) if torch.cuda.is_available() else 0,
    )


def fingerprint(path, dls):
    """Return a hash of the names and sizes of all pictures; the processes must agree on it.

    Raises
    ------
    TutorialError
        If they don't, as when another machine has another folder.
    """
    files = [*dls.train_ds.items, *dls.valid_ds.items]
    lines = sorted(f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files)
    mine = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    if len(set(gather_object([mine]))) > 1:
        raise TutorialError(
            f"The machines do not have the same pictures in {path}: copy the folder to each anew."
        )
    return mine


def train(learn, out, settings, say):
    """Train the head, then all layers; what checkpoints hold already is not done again.

    Parameters
    ----------
    learn : Learner
        As the notebook makes it. Trained in place.
    out : Path
        Checkpoints lie here.
    settings : dict
        ``head epochs``, ``all epochs``, ``seed``, and whatever else must be the same to go on.
    say : callable
        Prints, in one of the processes.

    Returns
    -------
    list of tuple
        What `write_report` takes.
    """
    stages = []
    for stage, (layers, rate) in STAGES.items():
        if stage == "all":
            learn.unfreeze()
        epochs, file = settings[f"{stage} epochs"], out / f"{stage}.checkpoint"
        saved = read_checkpoint(file, settings)
        lines = saved["lines"] if saved else []
        if saved:
            take_up(learn, saved)
            say(f"{len(lines)} of {epochs} epochs of {layers} are done already.")
        if len(lines) < epochs:

            def tell(lines, layers=layers, epochs=epochs):
                say(f"epoch {len(lines)} of {epochs} of {layers}: {epoch_line(lines[-1])}")

            keep = Checkpoint(file, settings, lines, tell)
            with learn.no_logging(), nullcontext() if sys.stdout.isatty() else learn.no_bar():
                learn.fit_one_cycle(
                    epochs,
                    rate,
                    start_epoch=len(lines),
                    cbs=[SeedEachEpoch(f"{settings['seed']} {stage}"), keep],
                )
        stages.append((layers, rate, lines, file))
    return stages


def options(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tutorial.train",
        description="Train on a folder of pictures as the notebook does, in one or many processes.",
    )
    parser.add_argument("folder", type=Path, help="holds train and valid, and perhaps test")
    parser.add_argument(
        "--out", type=Path, default=Path("out/train"), help="for the results (out/train)"
    )
    parser.add_argument(
        "--batch", type=int, default=16, help="pictures in a step of all processes (16)"
    )
    parser.add_argument("--head-epochs", type=int, default=2, help="of the head alone (2)")
    parser.add_argument("--all-epochs", type=int, default=3, help="of all layers (3)")
    parser.add_argument("--seed", type=int, default=42, help="of chance (42)")
    args = parser.parse_args(argv)
    if min(args.head_epochs, args.all_epochs) < 1:
        parser.error("each stage needs one epoch or more")
    return args


def run(args, say):
    """Train and report, in this process and whatever others there are."""
    cpu = not torch.cuda.is_available()
    state = PartialState(cpu=cpu)  # gives each process its GPU
    path, out, n = args.folder.resolve(), args.out.resolve(), state.num_processes
    set_seed(args.seed, reproducible=True)
    dls = load(path, args.batch, n)
    settings = {
        "pictures": fingerprint(path, dls),
        "head epochs": args.head_epochs,
        "all epochs": args.all_epochs,
        "batch": args.batch,
        "seed": args.seed,
        "BODY": os.environ.get("BODY") or "auto",
    }
    if broadcast_object_list([(out / "run.json").exists()])[0]:
        raise TutorialError(f"{out} holds a finished training: name another folder with --out.")
    say(
        f"{len(dls.train_ds)} pictures for training, {len(dls.valid_ds)} for validation;"
        f" {dls.bs * n} a step; processes: {n}."
    )
    say(f"The device is {describe_device()[0]}, the precision {describe_device()[1]}.")
    with state.local_main_process_first():  # one download for all
        say(body_in_use())
    learn = vision_learner(
        dls, resnet34, metrics=accuracy, train_bn=False, cbs=[native_precision(), StillBatchNorm]
    )
    with learn.distrib_ctx(sync_bn=False, cpu=cpu):
        stages = train(learn, out, settings, say)
    if state.is_main_process:
        part_company(learn)
        say("\n" + write_report(learn, path, out, args.seed, stages, n))
        for *_, checkpoint in stages:
            checkpoint.unlink()
        say(f"Kept in {out}: report.md, run.json, learner.pkl and weights.safetensors.")


def part_company(learn):
    """Go on in the first process alone, and let fastai know that it is."""
    learn.remove_cb(DistributedTrainer)  # fastai forgets to, where there was one process only
    PartialState().destroy_process_group()
    os.environ.pop("WORLD_SIZE", None)


def main(argv=None):
    """Read the command line, run, and turn what goes wrong into a sentence."""
    args = options(argv)
    first_here = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of each machine, one process speaks

    def stop(why):
        if first_here:
            print(why, file=sys.stderr, flush=True)
        sys.exit(1)

    def say(words):
        if rank_distrib() == 0:
            print(words, flush=True)

    # The launcher ends the other processes so when one has died.
    signal.signal(signal.SIGTERM, lambda *_: stop(f"{LOST} {GO_ON}"))
    try:
        run(args, say)
    except TutorialError as error:
        stop(error)
    except RuntimeError as error:
        if not re.search("gloo|NCCL|[Cc]onnection", str(error)):
            raise
        stop(f"{LOST} {GO_ON}")
    except OSError as error:
        stop(f"{error.filename or args.out}: {error.strerror}. {GO_ON}")
    except KeyboardInterrupt:
        stop(f"Interrupted. {GO_ON}")


if __name__ == "__main__":
    main()
