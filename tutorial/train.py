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
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import GrandparentSplitter, get_image_files, parent_label
from fastai.distributed import DistributedDL, DistributedTrainer
from fastai.metrics import AccumMetric, accuracy
from fastai.torch_core import rank_distrib, set_seed
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from fastai.vision.learner import vision_learner
from fastcore.basics import patch
from torch.distributed import DistError

from .backbone import body_in_use, resnet34
from .checkpoint import Checkpoint, SeedEachEpoch, read_checkpoint, take_up
from .defaults import fast_defaults
from .efficientnet import efficientnet_lite0
from .errors import PictureError, TutorialError
from .folders import check_folder
from .precision import _count_cores, describe_device
from .report import epoch_line, write_report

# The two trainings of the notebook: which layers, how many epochs if none are named, and at which
# highest learning rate.
STAGES = {"head": ("the head", 3, 3e-3), "all": ("all layers", 3, slice(1e-5, 3e-4))}
ARCHS = {arch.__name__: arch for arch in (resnet34, efficientnet_lite0)}
LOST = (
    "The training was told to stop, or another of its processes has died. If a sentence above names"
    " a cause, mend that first."
)
GO_ON = "Type the same command again: it goes on after the last whole epoch."


@patch
def _broadcast(self: DistributedDL, t, rank):
    """Send the order of the pictures to all processes. (fastai's own way needs a GPU.)"""
    return broadcast_object_list([t], from_process=rank)[0]


def load(path, batch, processes):
    """Return the notebook's `dls`, with one process' share of each batch.

    Three things differ from the notebook. The last batch, which is smaller, is used as well, so
    that every picture counts in every epoch. A GPU gets helpers that read the pictures for it. And
    the files are sorted, since no two disks list them alike: a picture's number is the same on
    every machine.

    Parameters
    ----------
    path : Path
    batch, processes : int
        Pictures in a step of all processes together, and the number of these.

    Returns
    -------
    DataLoaders

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
    cores = _count_cores() // local_processes()
    block = DataBlock(  # what ImageDataLoaders.from_folder makes, but for the order
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda path: get_image_files(path, folders=["train", "valid"]).sorted(),
        splitter=GrandparentSplitter(),
        get_y=parent_label,
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
    )
    return block.dataloaders(
        path,
        path=path,
        bs=share,
        drop_last=False,
        num_workers=min(8, cores) if torch.cuda.is_available() else 0,
    )


def local_processes():
    """Return the number of processes that the launcher has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def check_gpus():
    """Raise `TutorialError` if there are GPUs, but not one for each process of this machine."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < local_processes():
        raise TutorialError(
            f"This machine has {gpus} GPU(s) for {local_processes()} processes: start one for each"
            " GPU."
        )


def fingerprint(path, dls):
    """Return a hash of the names and sizes of all pictures; the processes must agree on it.

    Raises
    ------
    TutorialError
        If they don't, as when another machine has another folder.
    """
    files = [*dls.train_ds.items, *dls.valid_ds.items]
    lines = [f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files]
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
    for stage, (layers, _, rate) in STAGES.items():
        if stage == "all":
            learn.unfreeze()
        epochs, file = settings[f"{stage} epochs"], out / f"{stage}.checkpoint"
        saved = read_checkpoint(file, settings)
        lines, mean = (saved["lines"], saved["mean"]) if saved else ([], (0, 0.0))
        if saved:
            take_up(learn, saved)
            say(f"{len(lines)} of {epochs} epochs of {layers} are done already.")
        if len(lines) < epochs:

            def tell(lines, layers=layers, epochs=epochs):
                say(f"epoch {len(lines)} of {epochs} of {layers}: {epoch_line(lines[-1])}")

            keep = Checkpoint(file, settings, lines, tell, mean)
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
        "--arch", choices=ARCHS, default="resnet34", help="the network (%(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=16, help="pictures in a step of all processes (16)"
    )
    for stage, (layers, epochs, _) in STAGES.items():
        parser.add_argument(
            f"--{stage}-epochs", type=int, default=epochs, help=f"of {layers} (%(default)s)"
        )
    parser.add_argument("--seed", type=int, default=42, help="of chance (42)")
    args = parser.parse_args(argv)
    if min(args.head_epochs, args.all_epochs) < 1:
        parser.error("each stage needs one epoch or more")
    return args


def run(args, say):
    """Train and report, in this process and whatever others there are."""
    cpu = not torch.cuda.is_available()
    check_gpus()
    state = PartialState(cpu=cpu)  # gives each process its GPU
    path, out, n = args.folder.resolve(), args.out.resolve(), state.num_processes
    fast_defaults()
    set_seed(args.seed, reproducible=True)
    dls = load(path, args.batch, n)
    settings = {
        "pictures": fingerprint(path, dls),
        "head epochs": args.head_epochs,
        "all epochs": args.all_epochs,
        "batch": args.batch,
        "seed": args.seed,
        "arch": args.arch,
        "BODY": os.environ.get("BODY") or "auto",
    }
    if any(gather_object([(out / "run.json").exists()])):
        raise TutorialError(f"{out} holds a finished training: name another folder with --out.")
    if state.is_main_process:
        for half in out.glob(".*.checkpoint.*.part"):  # of a training that was killed in writing it
            half.unlink()
    say(
        f"{len(dls.train_ds)} pictures for training, {len(dls.valid_ds)} for validation;"
        f" {dls.bs * n} a step; processes: {n}."
    )
    say(f"The device is {describe_device()[0]}, the precision {describe_device()[1]}.")
    with state.local_main_process_first():  # one download for all
        say(body_in_use(ARCHS[args.arch]))
    learn = vision_learner(
        dls,
        ARCHS[args.arch],
        # From all answers at the end: a mean over batches would count those twice that fill up the
        # processes' shares.
        metrics=AccumMetric(accuracy, flatten=False),
    )
    with learn.distrib_ctx(sync_bn=False, cpu=cpu):
        stages = train(learn, out, settings, say)
    part_company(learn)
    if state.is_main_process:
        say("\n" + write_report(learn, path, out, args.seed, stages, n))
        for *_, checkpoint in stages:
            checkpoint.unlink()
        say(f"Kept in {out}: report.md, run.json, learner.pkl and weights.safetensors.")


def part_company(learn):
    """End the processes' work together, so that the first can go on alone and fastai knows."""
    learn.remove_cb(DistributedTrainer)  # fastai forgets to, where there was one process only
    PartialState().destroy_process_group()
    os.environ.pop("WORLD_SIZE", None)


def main(argv=None):
    """Read the command line, run, and turn what goes wrong into a sentence."""
    args = options(argv)
    number = int(os.environ.get("LOCAL_RANK", 0))  # among the processes of this machine

    def stop(why, speakers=(0,)):
        if number in speakers:
            print(why, file=sys.stderr, flush=True)
        sys.exit(1)

    def lost(*_):
        stop(f"{LOST} {GO_ON}", speakers=(0, 1))  # two, since one may be the one that died

    def say(words):
        if rank_distrib() == 0:
            print(words, flush=True)

    signal.signal(signal.SIGTERM, lost)  # so the launcher ends the others when one has died
    try:
        run(args, say)
    except PictureError as error:
        stop(error, speakers=(number,))  # the others have not met this picture
    except TutorialError as error:
        stop(error)
    except RuntimeError as error:
        if not (isinstance(error, DistError) or re.search("gloo|NCCL|[Cc]onnection", str(error))):
            raise
        lost()
    except OSError as error:
        stop(f"{error.filename or args.out}: {error.strerror or error}. {GO_ON}")
    except KeyboardInterrupt:
        stop(f"Interrupted. {GO_ON}")


if __name__ == "__main__":
    main()
