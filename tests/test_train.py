"""`tutorial.train`: in one process or two, on one machine or two, to the end or killed before it.

Two processes train on a few small pictures, once to the end; what happens otherwise, to two
machines or after a kill, must come to the same numbers.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from conftest import ROOT
from fastai.callback.core import CancelFitException
from fastai.learner import load_learner
from fastai.test_utils import synth_learner
from fastai.torch_core import set_seed
from limits import needs_root, small_disk
from PIL import Image
from promises import keeps, untouched

from tutorial import train
from tutorial.checkpoint import Checkpoint, SeedEachEpoch, read_checkpoint, take_up
from tutorial.defaults import FitLog
from tutorial.errors import TutorialError

RECIPE = ["--batch=8", "--head-epochs=1", "--all-epochs=2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "-m", "tutorial.train"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
LIMIT_S = 900


@pytest.fixture(scope="module")
def imgs(tmp_path_factory):
    """Some of the project's own pictures, made small: 17 to train on, 9 to check on, 6 to test.

    Both are odd, so that two processes can't share them evenly.
    """
    root = tmp_path_factory.mktemp("imgs")
    files = [
        file
        for split, many in (("train", 9), ("valid", 5))
        for label in ("doraemon", "walle")
        for file in sorted((ROOT / "imgs" / split / label).glob("*.jpg"))[:many]
    ]
    for file in [*files[1:-1], *sorted((ROOT / "imgs" / "test").glob("*.jpg"))]:
        picture = Image.open(file)
        picture.thumbnail((160, 160))
        target = root / file.relative_to(ROOT / "imgs")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    return root


def start(command, imgs, out, **variables):
    """Start a training; what it says goes to a file named log beside `out`."""
    with open(f"{out}.log", "w") as log:
        return subprocess.Popen(
            [*command, str(imgs), f"--out={out}", *RECIPE],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def said(out):
    """What a training has said so far."""
    with open(f"{out}.log") as log:
        return log.read()


def figures(out):
    """All numbers that a finished training found, without the times that it took."""
    found = json.loads((out / "run.json").read_text("utf-8"))["figures"]
    for name, value in found.items():
        if name.startswith("epochs"):
            for epoch in value:
                del epoch["seconds"]
    return found


@pytest.fixture(scope="module")
def whole(imgs, tmp_path_factory):
    """The folder of results of two processes that trained to the end."""
    out = tmp_path_factory.mktemp("whole") / "out"
    command = [*ACCELERATE, "--num_processes=2", "-m", "tutorial.train"]
    assert start(command, imgs, out).wait(LIMIT_S) == 0, said(out)
    return out


@pytest.mark.slow
def test_the_report_tells_what_the_record_holds(whole, imgs):
    record = json.loads((whole / "run.json").read_text("utf-8"))
    assert record["training"]["processes"] == 2
    assert record["input"]["batch"] == 10  # not 8: of 9 pictures each, fours would leave one alone
    schedule = record["training"]["schedule"]
    assert [(fit["layers"], fit["epochs"], fit["planned"], fit["rates"]) for fit in schedule] == [
        ("the head", 1, 1, [3e-3, 3e-3]),
        ("all layers", 2, 2, [1e-5, 3e-4]),
    ]
    text = (whole / "report.md").read_text("utf-8")
    assert text in said(whole)
    for name in ("the head", "all layers"):
        counted = record["figures"][f"validation, after {name}"]
        assert f"After {name}: {counted['right']} of 9 right" in text
        for epoch in record["figures"][f"epochs of {name}"]:
            assert f"| {epoch['training loss']:.4f} | {epoch['validation loss']:.4f} |" in text
    rows = record["figures"]["test, after all layers"]["rows"]
    assert [row["file"] for row in rows] == [
        f"test/{file.name}" for file in sorted((imgs / "test").iterdir())
    ]
    assert all(
        f"{row['guess']}, {row['probability']:.1%}: {row['verdict']}" in text for row in rows
    )
    assert "by 2 processes that shared each batch" in text


@pytest.mark.slow
def test_two_processes_leave_a_learner_that_one_can_use(whole, imgs):
    learn = load_learner(whole / "learner.pkl")
    found = figures(whole)
    files = [imgs / row["file"] for row in found["test, after all layers"]["rows"]]
    with learn.no_bar():
        probs, _ = learn.get_preds(dl=learn.dls.test_dl(files))
    told = [row["probability"] for row in found["test, after all layers"]["rows"]]
    assert np.allclose(probs.max(1).values, told, atol=1e-3)
    # The processes counted their right answers together: as one process counts them.
    valid = sorted((imgs / "valid").rglob("*.jpg"))
    with learn.no_bar():
        probs, _ = learn.get_preds(dl=learn.dls.test_dl(valid))
    guesses = [learn.dls.vocab[i] for i in probs.argmax(1)]
    right = sum(guess == file.parent.name for guess, file in zip(guesses, valid, strict=True))
    assert right == found["validation, after all layers"]["right"]
    # ... and those that fill up their shares not twice: each accuracy is a whole number of ninths.
    epochs = found["epochs of the head"] + found["epochs of all layers"]
    ninths = [epoch["accuracy"] * 9 for epoch in epochs]
    assert ninths == pytest.approx([round(n) for n in ninths], abs=1e-4)
    assert any(0 < n < 9 for n in ninths)  # else this has shown nothing


@pytest.mark.slow
def test_only_results_are_left_and_not_overwritten(whole, imgs):
    kept = {"report.md", "run.json", "learner.pkl", "weights.safetensors"}
    assert {file.name for file in whole.iterdir()} == kept
    command = [sys.executable, "-m", "tutorial.train", imgs, f"--out={whole}"]
    with untouched(whole):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    keeps("a training that is finished already", done.stderr)
    assert "Traceback" not in done.stderr


def kill(rank, out, launcher):
    """Kill one of two processes, and see what is said."""
    ranks = {
        child.environ().get("RANK"): child for child in psutil.Process(launcher.pid).children()
    }
    ranks[rank].kill()
    assert launcher.wait(120) != 0
    keeps("a process is killed in training", said(out))
    assert not (out / "run.json").exists()


@pytest.mark.slow
def test_a_killed_training_ends_clearly_and_goes_on_as_if_nothing_had_been(whole, imgs, tmp_path):
    out = tmp_path / "out"
    launcher = start(TWO, imgs, out)
    wait_until(lambda: "epoch 1 of 1 of the head" in said(out), launcher)
    kill("0", out, launcher)
    half = out / ".all.checkpoint.123.part"  # as a kill leaves that comes while it is written
    half.touch()

    launcher = start(TWO, imgs, out)
    wait_until(lambda: "epoch 1 of 2 of all layers" in said(out), launcher)
    assert "1 of 1 epochs of the head are done already." in said(out)
    assert not half.exists()
    kill("1", out, launcher)
    shutil.copytree(out, tmp_path / "copy")

    assert start(TWO, imgs, out).wait(LIMIT_S) == 0, said(out)
    assert "1 of 1 epochs of the head are done already." in said(out)
    assert "1 of 2 epochs of all layers are done already." in said(out)
    assert figures(out) == figures(whole)
    schedules = [
        json.loads((folder / "run.json").read_text("utf-8"))["training"]["schedule"]
        for folder in (out, whole)
    ]
    assert schedules[0] == schedules[1]  # what was trained before the stop counts, too

    # One process may go on with what two have begun.
    one = [*TORCHRUN, "--standalone", "--nproc-per-node=1", "-m", "tutorial.train"]
    assert start(one, imgs, tmp_path / "copy").wait(LIMIT_S) == 0, said(tmp_path / "copy")
    alone, first = figures(tmp_path / "copy"), figures(whole)
    assert len(alone["epochs of all layers"]) == 2
    assert alone["epochs of all layers"][0] == first["epochs of all layers"][0]
    guesses = [
        [row["guess"] for row in found["test, after the head"]["rows"]] for found in (alone, first)
    ]
    assert guesses[0] == guesses[1]  # not to the last digit: one process has more threads


@pytest.mark.slow
def test_a_damaged_picture_is_named_by_the_process_that_meets_it(imgs, tmp_path):
    damaged = tmp_path / "imgs"
    shutil.copytree(imgs, damaged)
    last = sorted((damaged / "valid").rglob("*.jpg"))[-1]  # in the share of the second process
    last.write_bytes(last.read_bytes()[:-500])
    out = tmp_path / "out"
    assert start(TWO, damaged, out).wait(LIMIT_S) != 0
    keeps("a damaged picture in one process' share", said(out))
    assert said(out).count(f"{last}: truncated") == 1


@pytest.mark.slow
def test_another_network_is_trained_recorded_and_kept(imgs, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tutorial.train", "--arch=efficientnet_lite0"]
    assert start(command, imgs, out).wait(LIMIT_S) == 0, said(out)
    assert "The body is an EfficientNet-Lite0 trained on ImageNet" in said(out)
    assert "The body is the bundled" not in said(out)
    network = json.loads((out / "run.json").read_text("utf-8"))["network"]
    assert network["architecture"] == network["body"]["which"] == "efficientnet_lite0"
    report = (out / "report.md").read_text("utf-8")
    assert "efficientnet_lite0 (Tan and Le, 2019)" in report and "Apache License 2.0" in report
    learn = load_learner(out / "learner.pkl")
    row = figures(out)["test, after all layers"]["rows"][0]
    with learn.no_bar():
        guess, _, probs = learn.predict(imgs / row["file"])
    assert (guess, float(probs.max())) == (
        row["guess"],
        pytest.approx(row["probability"], abs=0.02),
    )


def test_networks_that_are_not_ours_are_refused(capsys):
    assert train.options(["imgs"]).arch == "resnet34"
    with pytest.raises(SystemExit):
        train.options(["imgs", "--arch=resnet99"])
    assert "resnet34" in (words := capsys.readouterr().err) and "efficientnet_lite0" in words


def wait_until(condition, process):
    """Wait until a condition holds, for as long as a process runs."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@contextmanager
def two_machines():
    """Two network namespaces, which see nothing of each other but a cable between them."""
    if not shutil.which("ip"):
        pytest.skip("this machine has no ip command (Debian's iproute2)")
    names = [f"walle-{os.getpid()}-{i}" for i in (1, 2)]
    try:
        for name in names:
            done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        cable = f"link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}"
        subprocess.run(["ip", *cable.split()], check=True)
        for i, name in enumerate(names, 1):
            for words in (
                f"addr add 10.77.0.{i}/24 dev eth0",
                "link set lo up",
                "link set eth0 up",
            ):
                subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
@needs_root
def test_two_machines_come_to_the_same_numbers(whole, imgs, tmp_path):
    # The second machine has the pictures elsewhere, and none of the first one's results.
    shutil.copytree(imgs, tmp_path / "copy")
    meet = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=tutorial"]
    meet += ["--rdzv-endpoint=10.77.0.1:29400"]
    outs, places = [tmp_path / "out-1", tmp_path / "out-2"], [imgs, tmp_path / "copy"]
    with two_machines() as inside:
        machines = [
            start(
                [*inside[i], *TORCHRUN, *meet]
                + [f"--rdzv-conf=is_host={1 - i}", f"--local-addr=10.77.0.{i + 1}"]
                + ["-m", "tutorial.train"],
                places[i],
                outs[i],
                GLOO_SOCKET_IFNAME="eth0",
                OMP_NUM_THREADS="1",
            )
            for i in (0, 1)
        ]
        assert [machine.wait(LIMIT_S) for machine in machines] == [0, 0], said(outs[0])
    assert figures(outs[0]) == figures(whole)
    assert not outs[1].exists()


READ = """
import json, sys
from pathlib import Path
from accelerate import PartialState
from fastai.distributed import DistributedDL
from tutorial import train
state = PartialState(cpu=True)
dls = train.load(Path(sys.argv[1]), 8, state.num_processes)
loader = DistributedDL(dls.train, device=dls.device)
read = []
loader.create_item = lambda i, plain=dls.train.create_item: (read.append(i), plain(i))[1]
loader.dl.create_item = loader.create_item
for _ in range(2):
    read.clear()
    sizes = [len(x) for x, _ in loader]
    names = [dls.train_ds.items[i].name for i in read]
    line = json.dumps({"sizes": sizes, "read": names})
    print(f"{line}\\n", end="", flush=True)  # in one piece: the other process prints, too
"""


@pytest.mark.slow
def test_no_picture_is_left_out_of_an_epoch(imgs, tmp_path):
    (tmp_path / "read.py").write_text(READ)
    done = subprocess.run(
        [*TORCHRUN, "--standalone", "--nproc-per-node=2", tmp_path / "read.py", imgs],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    epochs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(epochs) == 4
    all_names = sorted(f.name for f in (imgs / "train").rglob("*.jpg"))
    assert len(all_names) == 17
    halves = [set(epoch["read"]) for epoch in epochs]
    assert all(len(epoch["read"]) == 9 == sum(epoch["sizes"]) for epoch in epochs)
    # Two halves make a whole, though 17 is odd: one picture is seen twice. Which lines belong to
    # one epoch is not said, but two halves of different epochs would hardly fit together.
    pairs = [(a, b) for a in range(4) for b in range(a) if len(halves[a] | halves[b]) == 17]
    assert len(pairs) == 2
    assert {i for pair in pairs for i in pair} == {0, 1, 2, 3}


def test_no_batch_is_a_single_picture(tmp_path):
    for label in ("a", "b"):
        for split, many in (("train", 12 + (label == "b")), ("valid", 1)):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(many):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / split / label / f"{i}.png")
    # 25 pictures: of 13 for each of two processes, batches of 4 would leave one alone.
    for batch, processes in ((8, 2), (8, 1), (16, 1), (6, 2), (12, 3)):
        dls = train.load(tmp_path, batch, processes)
        mine = -(-25 // processes)
        assert mine % dls.bs != 1
        assert batch // processes <= dls.bs <= batch // processes + 2
    with pytest.raises(TutorialError) as error:
        train.load(tmp_path, 8, 5)
    keeps("a batch too small for the processes", str(error.value))
    with pytest.raises(TutorialError) as error:
        train.load(tmp_path, 100, 25)
    keeps("fewer pictures than the processes need", str(error.value))


def test_the_pictures_have_the_same_numbers_on_every_machine(imgs, monkeypatch):
    here, walk = train.load(imgs, 8, 1), os.walk

    def otherwise(*args, **how):
        for folder, folders, files in walk(*args, **how):
            folders.sort(reverse=True)
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", otherwise)
    there = train.load(imgs, 8, 1)
    assert here.train_ds.items == there.train_ds.items
    assert here.valid_ds.items == there.valid_ds.items
    assert list(here.vocab) == list(there.vocab)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for gpus in (0, 3, 4):
        monkeypatch.setattr(train.torch.cuda, "device_count", lambda gpus=gpus: gpus)
        train.check_gpus()
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TutorialError) as error:
        train.check_gpus()
    keeps("more processes than GPUs", str(error.value))


def test_machines_with_other_pictures_are_found_out(imgs, monkeypatch):
    dls = train.load(imgs, 8, 1)
    mine = train.fingerprint(imgs, dls)
    monkeypatch.setattr(train, "gather_object", lambda found: [*found, "another"])
    with pytest.raises(TutorialError) as error:
        train.fingerprint(imgs, dls)
    keeps("other pictures on another machine", str(error.value))
    dls.valid_ds.items.reverse()
    monkeypatch.setattr(train, "gather_object", list)
    assert train.fingerprint(imgs, dls) != mine  # the order counts too
    dls.valid_ds.items.reverse()
    assert train.fingerprint(imgs, dls) == mine
    dls.valid_ds.items.pop()
    assert train.fingerprint(imgs, dls) != mine


# --- checkpoints, on fastai's smallest network


def learner():
    """The same learner each time, of a network of two numbers."""
    set_seed(0)
    return synth_learner(cbs=FitLog())


def fit(learn, file, lines, mean=(0, 0.0), seed=1, stop_after=3):
    """Train for three epochs from where `lines` end, with a checkpoint after each epoch.

    Returns the network's numbers, the losses, and what the learner has noted of its trainings.
    """

    def tell(lines):
        if len(lines) == stop_after:
            raise CancelFitException

    keep = Checkpoint(file, {"seed": seed}, lines, tell, mean)
    with learn.no_logging(), learn.no_bar():
        learn.fit_one_cycle(3, 0.1, start_epoch=len(lines), cbs=[SeedEachEpoch("1"), keep])
    numbers = [number.item() for number in learn.model.parameters()]
    return numbers, [loss for loss, *_ in lines], learn.fit_log.fits


def test_a_checkpoint_holds_all_that_is_needed_to_go_on(tmp_path):
    whole = fit(learner(), tmp_path / "whole", [])
    for after in (1, 2):
        file = tmp_path / f"after-{after}"
        assert fit(learner(), file, [], stop_after=after) != whole
        saved = read_checkpoint(file, {"seed": 1})
        assert len(saved["lines"]) == after
        again = learner()
        take_up(again, saved)
        assert fit(again, file, saved["lines"], saved["mean"]) == whole
        assert len(read_checkpoint(file, {"seed": 1})["lines"]) == 3


FIND = """
import os, sys
from pathlib import Path
from accelerate import PartialState
from tutorial.checkpoint import read_checkpoint
state = PartialState(cpu=True)
os.environ["LOCAL_RANK"] = "0"  # each is on a machine of its own
found = read_checkpoint(Path(sys.argv[1 + state.process_index]), {"seed": 1})
print(f"{len(found['lines'])} epochs\\n", end="", flush=True)
state.destroy_process_group()  # else the threads of gloo may outlive Python and abort it
"""


@pytest.mark.slow
def test_the_machine_that_has_most_of_a_training_gives_it_to_the_others(tmp_path):
    (tmp_path / "find.py").write_text(FIND)
    files = [tmp_path / "machine-1" / "file", tmp_path / "machine-2" / "file"]
    for file, epochs in zip(files, (1, 2), strict=True):
        fit(learner(), file, [], stop_after=epochs)
    for _ in range(2):
        done = subprocess.run(
            [*TORCHRUN, "--standalone", "--nproc-per-node=2", tmp_path / "find.py", *files],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["2 epochs"] * 2
        # The first process has a copy now, so it can judge and go on alone.
        assert len(read_checkpoint(files[0], {"seed": 1})["lines"]) == 2
        files[0].unlink()


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path):
    file = tmp_path / "head.checkpoint"
    assert read_checkpoint(file, {"seed": 1}) is None  # no checkpoint is no error
    fit(learner(), file, [])
    for settings, why in (
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"seed": 1, "arch": "efficientnet_lite0"}, "arch was None and is efficientnet_lite0"),
    ):
        with untouched(tmp_path), pytest.raises(TutorialError, match=why) as error:
            read_checkpoint(file, settings)
        if settings == {"seed": 2}:
            keeps("a checkpoint of another training", str(error.value))


def test_a_damaged_checkpoint_is_named(tmp_path):
    file = tmp_path / "head.checkpoint"
    fit(learner(), file, [])
    whole = file.read_bytes()
    for damaged in (whole[:-100], b"", b"no checkpoint"):
        file.write_bytes(damaged)
        with pytest.raises(TutorialError) as error:
            read_checkpoint(file, {"seed": 1})
        keeps("a damaged checkpoint", str(error.value))
        assert file.read_bytes() == damaged


@needs_root
def test_a_full_disk_costs_only_the_last_epoch(tmp_path):
    with small_disk(tmp_path / "disk", "16k") as disk:
        fit(learner(), disk / "head.checkpoint", [], stop_after=1)
        kept = (disk / "head.checkpoint").read_bytes()
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "others").write_bytes(bytes(free))
        with pytest.raises(TutorialError) as error:
            fit(learner(), disk / "head.checkpoint", [])
        keeps("the disk is full when a checkpoint is written", str(error.value))
        assert (disk / "head.checkpoint").read_bytes() == kept
        assert sorted(file.name for file in disk.iterdir()) == ["head.checkpoint", "others"]
