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

import joblib
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from fastai.distributed import DistributedDL, DistributedTrainer
from fastai.metrics import AccumMetric, accuracy
from fastai.torch_core import rank_distrib, set_seed
from fastcore.basics import patch
from torch.distributed import DistError

from . import recipe
from .backbone import body_in_use, resnet34
from .checkpoint import Checkpoint, SeedEachEpoch, read_checkpoint, take_up
from .defaults import fast_defaults
from .efficientnet import efficientnet_lite0
from .errors import PictureError, TutorialError
from .folders import check_folder
from .precision import describe_device
from .report import epoch_line, write_report

PLAN = recipe.HEAD, recipe.ALL
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

    Two things differ from `recipe.loaders`. The last batch, which is smaller, is used as well, so
    that every picture counts in every epoch; and a GPU gets helpers that read the pictures for it.
    `batch` counts the pictures in a step of all processes together.

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
    cores = joblib.cpu_count() // local_processes()
    workers = min(8, cores) if torch.cuda.is_available() else 0
    return recipe.loaders(path, bs=share, drop_last=False, num_workers=workers)


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

    Checkpoints lie in `out`. `settings` are the epochs, the seed, and whatever else must be the
    same to go on. Returns the stages that `write_report` takes.
    """
    plan = [one._replace(epochs=settings[f"{one.name} epochs"]) for one in PLAN]
    done = []
    for stage in recipe.stages(learn, plan):
        file = out / f"{stage.name}.checkpoint"
        saved = read_checkpoint(file, settings) or {"lines": [], "mean": (0, 0.0)}
        lines = saved["lines"]
        if lines:
            take_up(learn, saved)
            say(f"{len(lines)} of {stage.epochs} epochs of {stage.layers} are done already.")
        if len(lines) < stage.epochs:

            def tell(lines, stage=stage):
                where = f"epoch {len(lines)} of {stage.epochs} of {stage.layers}"
                say(f"{where}: {epoch_line(lines[-1])}")

            keep = Checkpoint(file, settings, lines, tell, saved["mean"])
            with learn.no_logging(), nullcontext() if sys.stdout.isatty() else learn.no_bar():
                learn.fit_one_cycle(
                    stage.epochs,
                    stage.rate,
                    start_epoch=len(lines),
                    cbs=[SeedEachEpoch(f"{settings['seed']} {stage.name}"), keep],
                )
        done.append((stage, lines, file))
    return done


def options(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tutorial.train",
        description="Train on a folder of pictures as the notebook does, in one or many processes.",
    )
    parser.add_argument("folder", type=Path, help="holds train and valid, and perhaps test")

    def add(name, default, words, **how):
        parser.add_argument(f"--{name}", default=default, help=f"{words} (%(default)s)", **how)

    add("out", Path("out/train"), "for the results", type=Path)
    add("arch", "resnet34", "the network", choices=ARCHS)
    add("batch", recipe.BATCH, "pictures in a step of all processes", type=int)
    for stage in PLAN:
        add(f"{stage.name}-epochs", stage.epochs, f"of {stage.layers}", type=int)
    add("seed", recipe.SEED, "of chance", type=int)
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
    # From all answers at the end: a mean over batches would count those twice that fill up the
    # processes' shares.
    right = AccumMetric(accuracy, flatten=False)
    learn = recipe.learner(dls, ARCHS[args.arch], metrics=right)
    with learn.distrib_ctx(sync_bn=False, cpu=cpu):
        done = train(learn, out, settings, say)
    part_company(learn)
    if state.is_main_process:
        say("\n" + write_report(learn, path, out, args.seed, done, n))
        for *_, checkpoint in done:
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

    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does, for names that are no UTF-8
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
