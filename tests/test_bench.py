"""What the programs in bench make of their measurements, on made-up ones."""

import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import matplotlib
import nbformat
import pytest
import torch
from conftest import ROOT
from fastai.test_utils import synth_learner

from bench import __main__ as bench_all
from bench import (
    endurance,
    gains,
    growth,
    kept,
    limit,
    peers,
    report,
    scale,
    seeds,
    stability,
    start,
)
from tutorial import check_folder, check_images, recipe
from tutorial.defaults import OURS

matplotlib.use("agg")


def silently(learn, epochs):
    """Train, and say nothing."""
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs)


# --- stability


def a_run(seed, valid, before, after):
    """A run as bench.stability keeps it; the probability of the true class, for each picture."""
    tests = {
        when: {f"cat.{n}.jpg": [p > 0.5, p] for n, p in enumerate(chances, 1)}
        for when, chances in (("before", before), ("after", after))
    }
    valid = dict(zip(stability.WHEN, valid, strict=True))
    return {"seed": seed, "seconds": 60.0, "total": 10, "valid": valid, "test": tests}


ROWS = [
    a_run(0, (8, 9), (0.9, 0.2), (0.9, 0.8)),
    a_run(1, (9, 9), (0.9, 0.6), (0.9, 0.7)),
    a_run(2, (9, 8), (0.6, 0.1), (0.4, 0.3)),
    a_run(3, (6, 10), (0.9, 0.8), (0.9, 0.8)),
]


def test_only_the_seed_of_the_notebooks_cells_is_another(stored):
    cells = stability.part_one()
    sources = {cell.id: cell.source for cell in stored.cells}
    assert cells[0][0] == "import" and cells[-1][0] == stability.LAST
    assert all(sources[id] == code for id, code in cells)
    changed = dict(stability.with_seed(cells, 7))
    assert "set_seed(7, reproducible=True)" in changed.pop("import")
    assert changed == dict(cells[1:])
    with pytest.raises(ValueError, match="set_seed"):
        stability.with_seed(cells[1:], 7)


CELLS = """
def set_seed(*args): pass
set_seed(42,)
import torch
from pathlib import Path
from types import SimpleNamespace
from tutorial import verdict
dls = SimpleNamespace(vocab=["ant", "cat"])
files = [Path("cat.1.jpg"), Path("ant.1.jpg")]
probs, probs_tuned = torch.tensor([[0.75, 0.25], [1, 0]]), torch.tensor([[0, 1.0], [0.5, 0.5]])
first, second = (verdict(files, p, dls.vocab) for p in (probs, probs_tuned))
valid_truth, right, tuned_right = torch.zeros(5), 3, 4
"""


def test_a_run_notes_the_probability_of_the_true_class():
    run = stability.run([("all", CELLS)], 7)
    assert (run["total"], run["valid"]) == (5, {"before": 3, "after": 4})
    assert run["test"]["before"] == {"cat.1.jpg": (False, 0.25), "ant.1.jpg": (True, 1)}
    assert run["test"]["after"] == {"cat.1.jpg": (True, 1), "ant.1.jpg": (True, 0.5)}


def test_the_report_of_many_seeds():
    text = stability.report(ROWS)
    for said in (
        "Before fine-tuning, all 2 test pictures are right in 2 of 4 runs, 50% (95 % interval 15%",
        "After fine-tuning, all 2 test pictures are right in 3 of 4 runs, 75% (95 % interval 30%",
        "raised the accuracy on valid: 2; lowered it: 1; left it alike: 1.",
        "put a wrong test picture right: 1; spoiled a right one: 1.",
        "Most often wrong before fine-tuning: cat.2.jpg (runs: 2).",
        "Most often wrong after fine-tuning: cat.1.jpg and cat.2.jpg (runs: 1).",
        "| before | 80.0% | 14.1% | 60.0% | 90.0% | 2 of 4 |",
        "| cat.2.jpg | 2 | 1 | 10.0% | 30.0% |",
        "| 2 | 9 of 10 | 8 of 10 | 1 of 2; cat.2.jpg 10.0% | 0 of 2; cat.2.jpg 30.0% |",
    ):
        assert said in text
    one = stability.report(ROWS[3:])
    assert "| after | 100.0% | - | 100.0% | 100.0% | 1 of 1 |" in one
    assert "Most often wrong after fine-tuning: none, in any run." in one


def test_an_interrupted_measurement_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(stability, "KEPT", tmp_path / "out" / "kept.jsonl")
    monkeypatch.setattr(stability, "REPORT", tmp_path / "stability.md")
    tried = []

    def run(cells, seed):
        tried.append(seed)
        if tried == [0, 1]:
            raise KeyboardInterrupt
        return ROWS[seed]

    monkeypatch.setattr(stability, "run", run)
    assert stability.main(["--seeds", "3"]) == 130 and not stability.REPORT.exists()
    assert stability.main(["--seeds", "3"]) == 0 and tried == [0, 1, 1, 2]
    assert "seed 1 (1 of 2): valid 9, then 9 of 10; test 2, then 2" in capsys.readouterr().out
    assert stability.REPORT.read_text().count("\n| 2 |") == 1
    assert kept.Kept(stability.KEPT, "other code").rows == {}


# --- endurance


def test_the_folders_that_memory_is_measured_on(tmp_path):
    for name in ("one", "two"):
        endurance.generated_folder(tmp_path / name, 100)
    one, two = (
        {str(file).split(name)[1]: file.read_bytes() for file in (tmp_path / name).rglob("*.jpg")}
        for name in ("one", "two")
    )
    assert one == two and len(set(one.values())) == 106
    assert not check_images(tmp_path / "one")["stops training"].any()
    assert check_folder(tmp_path / "one") == {
        "train": {"disc": 45, "square": 45},
        "valid": {"disc": 5, "square": 5},
    }
    endurance.small_folder(tmp_path / "small")
    assert check_folder(tmp_path / "small") == {
        "train": {"doraemon": 8, "walle": 8},
        "valid": {"doraemon": 4, "walle": 4},
    }
    assert len(list((tmp_path / "small" / "test").iterdir())) == 2


def test_the_watch_sees_a_kernel_and_what_it_starts():
    child = "import sys; held = b'x' * 50_000_000; sys.stdin.read()"
    kernel = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    words = ["-c", kernel, "ipykernel_launcher"]  # it looks like one
    runner = f"import subprocess, sys; subprocess.run([sys.executable, *{words!r}])"
    process = subprocess.Popen([sys.executable, "-c", runner], stdin=subprocess.PIPE)
    with endurance.Watch(process.pid) as watch:
        watch.hear("[1/2] heading ... ")  # before there is a kernel
        deadline = time.monotonic() + 60
        while not any(tree - own > 45e6 for *_, own, tree in watch.looks):
            assert time.monotonic() < deadline, watch.looks[-3:]
            time.sleep(0.05)
        watch.hear("1.0 s\n[2/2] heading ... ")
        watch.look()
        watch.hear("1.0 s\n")
        process.communicate()
        watch.look()  # nothing there any more
    assert {look[1] for look in watch.looks} == {0, 1} and watch.looks[-1][2] > 1e6
    assert watch.highest is None or watch.highest >= watch.looks[-1][2]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A project whose notebook only holds 60 MB for a moment; the report's path."""
    cells = [("import", "print('hello')"), ("hold", "import time\nx = b'x' * 60_000_000")]
    cells.append(("wait", "time.sleep(3)\ndel x"))
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(code, id=id) for id, code in cells]
    nbformat.write(nb, tmp_path / "demo.ipynb")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    monkeypatch.setattr(endurance, "ROOT", tmp_path)
    monkeypatch.setattr(endurance, "REPORT", tmp_path / "endurance.md")
    return tmp_path / "endurance.md"


@pytest.mark.slow
def test_run_all_is_measured_again_and_again_and_on_a_large_folder(tiny, capfd):
    assert endurance.main(["--runs", "2"]) == endurance.main(["--pictures", "100"]) == 0
    text = tiny.read_text()
    assert "`python -m bench.endurance --runs 2`" in text
    assert "Too few runs" in text and re.search(r"(?m)^\| 2 \| \d+ \| \d+ MB \|", text)
    assert not re.search(r"\b0 MB", re.sub(r"[+-]0 MB", "", text))
    assert "100 generated pictures of 160 px, made 224 px for the network" in text
    assert "the run ended with status 0" in text and "In the longest cell, wait" in text
    peaks = {id: int(own) for id, own in re.findall(r"\| (\w+) \| \d+ \| (\d+) MB", text)}
    assert peaks["wait"] > 60 + 20  # what it holds, and Python


@pytest.mark.slow
def test_a_run_that_fails_is_told(tiny, capfd):
    nb = nbformat.read(tiny.with_name("demo.ipynb"), as_version=4)
    nb.cells[1].source = "import time; time.sleep(1); raise OSError('the disk is full')"
    nbformat.write(nb, tiny.with_name("demo.ipynb"))
    assert endurance.main([]) == 1 and not tiny.exists()
    assert endurance.main(["--pictures", "100"]) == 1
    assert "the run ended with status 1, in the cell hold" in tiny.read_text()


def seen(*looks):
    """A watch that saw these: (second, cell, MB of the kernel)."""
    watch = endurance.Watch(os.getpid())
    watch.looks = [(s, cell, int(own * 1e6), int(own * 1e6) + 10**7) for s, cell, own in looks]
    return watch


def test_growth_and_drift_are_told_from_noise():
    up = [900e6, 1200e6, *(1000e6 + 5e6 * n for n in range(8))]
    assert endurance.growth(up) == pytest.approx((5e6, 5e6, 5e6))
    assert "+5.0 to +5.0); a hundred more runs would add about 500 MB" in endurance.growth_sentence(
        up
    )
    level = [900e6, 1200e6, *(1000e6 + 5e6 * (n % 2) for n in range(8))]
    assert endurance.growth_sentence(level).startswith("No growth is seen over the last 8 runs")
    assert endurance.growth_sentence(level[:4]).startswith("Too few runs")
    for step, word in ((0, "was steady"), (10, "was NOT steady")):
        watch = seen(*((i, 0, 1000 + step * i) for i in range(60)))
        assert endurance.drift(watch, 0) == step * 20e6
        assert word in endurance.steady_sentence(watch, 0, "fit-all", 59)


def test_the_peak_is_held_against_the_limit():
    watch = seen((0, 0, 500), (1, 1, 2500))
    assert "Peak: 2,500 MB in the kernel; 2,510 MB with" in endurance.peak_sentence(watch)
    assert endurance.peak_sentence(watch).endswith("is under 3,000 MB.")
    watch.highest = int(3.1e9)  # between two looks
    assert "3,100 MB by the system's own record (VmHWM)" in endurance.peak_sentence(watch)
    assert endurance.peak_sentence(watch).endswith("is OVER 3,000 MB.")


def test_another_side_reaches_every_picture_that_the_notebook_makes(stored):
    before, after = (
        "".join(cell.source for cell in nb.cells if cell.cell_type == "code")
        for nb in (stored, endurance.with_side(stored, 32))
    )
    assert before.count("Resize(") == after.count("Resize(32)") == after.count("Resize(") > 0


@pytest.mark.parametrize(
    "program, words, wrong",
    [
        (endurance, "--side 32", "--side goes with --pictures"),
        (endurance, "--pictures 100 --side 8", "must be at least 32"),
        (endurance, "--pictures 99", "--pictures at least 100"),
        (endurance, "--runs 0", "--runs must be at least 1"),
        (bench_all, "--rounds 0", "--rounds must be at least 1"),
    ],
)
def test_what_is_asked_for_must_make_sense(program, words, wrong, capsys):
    with pytest.raises(SystemExit):
        program.main(words.split())
    assert wrong in capsys.readouterr().err


# --- scale


def test_the_gain_of_several_gpus_is_worked_out_by_hand_here():
    compute = scale.BATCH / scale.RATE  # 64 ms a step
    # Two processes send as many bytes as the gradients have: 87.2 ms at 1 GB/s.
    worst, best = scale.gain(2, 1e9)
    assert worst == pytest.approx(2 * compute / (compute + 0.0872))
    assert best == pytest.approx(2 * compute / 0.0872)  # sending takes longer than computing
    assert scale.gain(16, 1e18) == pytest.approx((16, 16))
    assert "would want 3 cores" in scale.worked_out(450)[-1]  # two read but 900 of the 1,000


def test_the_scale_report_compares_the_ways(monkeypatch, tmp_path):
    asked, epoch = [], {"seconds": 11.0}
    found = {"validation, after the head": {"share": 0.5}, "epochs of all layers": [epoch, epoch]}
    found["validation, after all layers"] = {"share": 0.75}

    def launch(command, env, **how):
        asked.append((command, env["OMP_NUM_THREADS"]))
        (tmp_path / "run.json").write_text(json.dumps({"figures": found}))

    monkeypatch.setattr(scale.subprocess, "run", launch)
    runs = {way: [scale.train(way, 3, tmp_path)] for way in scale.WAYS}
    assert [threads for _, threads in asked] == ["1", "2", "1"]
    assert ["--nproc-per-node=2" in command for command, _ in asked] == [False, False, True]
    assert ["--seed=3" in command for command, _ in asked] == [False, True, True]
    one, both, two = scale.WAYS
    runs[one][0]["seconds"] = [20.0]
    runs[both].append({"seconds": [10.0, 12.0], "head": 0.6, "tuned": 0.75})
    text = "\n".join(scale.measured(runs))
    assert "1.82 times as fast as one process with one core, and 1.00 times" in text
    assert f"| {both} | 11.0 | 10.0 to 12.0 | 25.5 | 55.0% ± 7.1% | 75.0% ± 0.0% |" in text
    assert f"| {one} | 20.0 | 20.0 to 20.0 | 14.0 | - | - |" in text


# --- make bench


def a_race(*seen, whole=100.0, steps=None):
    """A run as bench.peers keeps it."""
    return {"seen": list(seen), "steps": steps or {}, "whole": whole, "peak": 2_000_000_000}


def test_the_race_is_to_the_others_best_accuracy():
    ours = [a_race((10, 28, 33), (20, 31, 33), (30, 33, 33)), a_race((12, 20, 33), (24, 30, 33))]
    theirs = [a_race((40, 25, 33), (80, 31, 33), (120, 31, 33)), a_race((36, 32, 33))]
    # In the second round we never come as far as they do.
    assert peers.ratios(ours, theirs) == [80 / 20, 0]
    row = peers.race(peers.STOCK, ours, theirs)
    assert row[-3:] == ("1 of 2", "2.0 (0.0 to 4.0)", "2.5: NOT met")
    assert peers.race("another", ours, theirs)[-1] == "1: met"
    assert peers.accuracy(ours) == "95.5%; 33 of 33 is 90% to 100%"
    sunk = [a_race((40, 32, 33), (80, 31, 33))]
    assert peers.accuracy(sunk).startswith("93.9%; 31 of 33")
    assert peers.accuracy(sunk, keeps_the_best=True).startswith("97.0%; 32 of 33")


def test_the_report_of_the_race():
    ours = a_race((10, 28, 33), (20, 31, 33), steps={"Step 1": 2.0, "Step 2": 3.5})
    runs = {name: [a_race((40, 25, 33), (90, 31, 33), whole=240)] for name in peers.RACE}
    runs[peers.OURS] = [ours]
    text = "\n".join(peers.section(runs))
    assert "| PyTorch's tutorial | 25 | 40 | 90 | 240 | 93.9%; 31 of 33 is 80% to 98% |" in text
    assert "| PyTorch's tutorial | 93.9% | 1 of 1 | 4.5 | 1: met |" in text
    assert "the same cells, imports included, take 2.4 times as long." in text
    assert "Part I takes 100 s" in text and "| Step 2 | 3.5 |" in text
    assert "Not measured" not in text
    stock, whole, other = map(peers.lines_to_read, (peers.STOCK, peers.OURS, peers.ONCE))
    assert stock < whole < other
    code = '"""Title.\n\nMore.\n"""\n\nimport os  # yes\n\n\ndef f():\n    """Say."""\n    # no\n'
    assert peers.lines_of(code + "    return 'a string'\n") == 3


def test_the_race_runs_the_notebooks_own_cells(stored, monkeypatch):
    monkeypatch.syspath_prepend(peers.RECIPES)
    import part_one
    from run import Notes

    cells = part_one.part_one()
    sources = {cell.id: cell.source for cell in stored.cells}
    assert all(sources[id] == code for id, _, code in cells)
    assert cells[0][0] == "import" and set(peers.TRAINING) < {id for id, *_ in cells}
    assert "fast_defaults" not in part_one.changed(sources["import"], part_one.ADDED, "")
    with pytest.raises(ValueError, match="once"):
        part_one.changed("learn = 1", part_one.ADDED, "")
    # What it notes of each epoch; a prediction is none.
    notes, right = Notes(), lambda guess, truth: (guess - truth).abs().lt(1e3).float().mean()
    learn = synth_learner(metrics=right)
    learn.add_cb(part_one.teller(learn, notes))
    silently(learn, 2)
    with learn.no_bar():
        learn.get_preds()
    total = len(learn.dls.valid_ds)
    assert [seen[1:] for seen in notes.seen] == [(total, total)] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["part_one", "stock_fastai", "pytorch_tutorial", "keras_guide", "hf_trainer"]
)
def test_a_recipe_learns(name, tmp_path):
    for package in {"keras_guide": ["keras"], "hf_trainer": ["transformers"]}.get(name, []):
        pytest.importorskip(package, reason=f"{package} is missing; `make bench` puts it elsewhere")
    endurance.small_folder(tmp_path / "imgs")
    command = [sys.executable, peers.RECIPES / "run.py", name, "--imgs", tmp_path / "imgs"]
    epochs = next(epochs for recipe, epochs in peers.RACE.values() if recipe == name)
    command += ["--epochs", *("1" for _ in epochs), "--out", tmp_path / "notes.json"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = json.loads((tmp_path / "notes.json").read_text())
    own_cells = name in ("part_one", "stock_fastai")  # whose epochs are the notebook's
    assert len(found["seen"]) == (sum(epochs) if own_cells else len(epochs))
    assert bool(found["steps"]) == own_cells
    assert all(0 <= right <= total == 8 for _, right, total in found["seen"])
    assert 0 < found["seen"][0][0] < found["whole"]


def test_the_limit_by_hand():
    loader = type("Loader", (), {"bs": 16, "__len__": lambda self: 10})()
    dls = SimpleNamespace(train=loader, valid_ds=range(32))
    pieces = {"a look": 1.0, "a step of the head": 2.0, "a step of all layers": 4.0}
    pieces |= dict(zip(limit.REST, (0.04, 0.1, 0.1), strict=True))
    assert limit.limit(dls, pieces) == 3 * 10 * 2 + 3 * 10 * 4 + (3 + 3) * 2 * 1
    text = "\n".join(limit.section([(260.0, 520.0, 170.0, pieces), (170.0, 510.0, 170.0, pieces)]))
    assert ": 2.50 times as fast as stock fastai in float32, and 1.26 times as long" in text
    assert "(bar: 1.3, met)" in text and "| 260.0 | 520.0 | 170.0 | 2.00 | 1.53 |" in text
    assert "NOT met" in limit.section([(260.0, 520.0, 170.0, pieces)])[0]


def test_a_picture_costs_the_same_among_many_or_not(tmp_path):
    growth.copies(tmp_path, 40, 20)
    counts = check_folder(tmp_path)
    assert [len(counts[split]) for split in ("train", "valid")] == [20, 20]
    assert [sum(counts[split].values()) for split in ("train", "valid")] == [40, 20]
    run = {"load": 0.5, "seconds": 30.0, "pictures": 300, "peak": 10**9}
    found = {(300, 2): run, (3000, 2): {**run, "seconds": 330.0, "pictures": 3000}}
    text = "\n".join(growth.section(found))
    assert "picture: with more pictures flat, at most 5% from the median" in text
    assert "| 3,000 | 2 | 0.5 | 330 | 110.0 | 1,000 |" in text and "NOT" not in text
    found[20000, 2] = {**run, "seconds": 3000.0, "pictures": 20000, "peak": 2 * 10**9}
    said = growth.section(found)[0]
    assert "picture: with more pictures NOT flat, at most 36% from the median" in said


def test_gains_are_told_as_ratios_to_the_notebooks_way():
    ways = {gains.AS_IT_IS: [(10.0, 40.0), (20.0, 40.0)], "other": [(15.0, 40.0), (20.0, 60.0)]}
    text = "\n".join(gains.section(ways, (0.05, 0.15)))
    assert "| as it is | 15.0 | 1.00 | 40.0 | 1.00 |" in text
    assert "| other | 17.5 | 1.25 | 50.0 | 1.25 |" in text
    assert "in 50 ms" in text and "150 ms, 3.0 times as long" in text
    ours, whole = gains.photos()
    assert ours > 0 and whole > 0


def test_each_way_that_is_tried_differs_from_the_notebooks():
    first, *others = gains.ways().values()
    assert first == ({}, {}) and all(other != first for other in others)
    silently(learn := synth_learner(cbs=gains.ColoursFirst()), 1)
    assert not learn.colours_first.channels_last
    silently(learn := synth_learner(cbs=gains.Float32()), 1)
    assert learn.float32.dtype == torch.float32
    for callback, dropped in ((gains.NativePrecision, True), (gains.KeptGradients, False)):
        learn, left = synth_learner(cbs=callback()), []
        learn.create_opt()
        numbers = list(learn.model.parameters())
        learn.opt.zero_grad = lambda numbers=numbers, left=left: left.extend(
            p.grad is None for p in numbers
        )
        silently(learn, 1)
        assert left and set(left) == {dropped}


SAID = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |     torch._C
import time:    500000 |     500100 |   torch
import time:     20000 |     520100 | fastai.vision.all
import time:      3000 |       3000 | json
import time:      2000 |     150000 |       torch._dynamo.exc
import time:    300000 |     450000 |     torch._dynamo.utils
"""


def test_imports_are_summed_up_by_package():
    spent, compiler = start.import_times(SAID), start.compiler_time(SAID)
    assert spent == pytest.approx({"torch": 0.8021, "fastai": 0.02, "json": 0.003})
    assert compiler == 0.45
    text = "\n".join(start.section(spent, compiler, 0.1, 8.0, 1.5, {"cold": (60.0, 12.0)}))
    assert text.startswith("Plain Python starts and ends in 0.1 s; with")
    assert "| torch | 0.80 |\n| fastai | 0.02 |\n| json | 0.00 |\n| all else | 0.00 |" in text
    assert "| cold | 60 | 12 | 72 |" in text
    with pytest.raises(RuntimeError, match="on purpose"):
        start.seconds_of([sys.executable, "-c", "raise SystemExit('on purpose')"])


def test_ten_seeds_are_compared_pair_by_pair(tmp_path, monkeypatch):
    ours, stock = seeds.MAKERS
    rows = [
        {ours: [(0.5, 0.8), (0.2, 0.9)], stock: [(0.5, 0.9), (0.3, 0.9)]},
        {ours: [(0.4, 0.6), (0.1, 1.0)], stock: [(0.5, 0.9), (0.3, 0.8)]},
        {ours: [(0.4, 0.7), (0.1, 0.8)], stock: [(0.5, 0.9), (0.3, 0.7)]},
    ]
    text = "\n".join(seeds.section(rows))
    assert "| after the head | 70.0% ± 10.0% | 90.0% ± 0.0% | -20.0 (-44.8 to +4.8) |" in text
    assert "| 90.0% ± 10.0% | 80.0% ± 10.0% | +10.0 (-14.8 to +34.8) | -0.167 (" in text
    assert "is +10.0 points from stock" in text and "can show: met" in text
    assert "| 1 | 60.0% | 90.0% | 100.0% | 80.0% |" in text
    worse = [
        {ours: [(0.5, 0.8), (0.2, 0.8 + n)], stock: [(0.5, 0.8), (0.2, 0.9)]} for n in (0, 0.01)
    ]
    assert "can show: NOT met" in seeds.section(worse)[0]

    trained, told = [], []

    def train(dls, cbs, seed):
        trained.append((seed, bool(cbs)))
        if len(trained) == 4:
            raise KeyboardInterrupt
        return 1.0, rows[seed % 3][ours]

    monkeypatch.setattr(seeds, "KEPT", tmp_path / "out" / "seeds.jsonl")
    monkeypatch.setattr(seeds, "train", train)
    with pytest.raises(KeyboardInterrupt):
        seeds.measure(3, told.append)
    assert trained == [(0, True), (0, False), (1, True), (1, False)] and len(told) == 1
    seeds.measure(3, told.append)
    assert trained[4:] == [(n, with_ours) for n in range(1, 10) for with_ours in (True, False)]
    assert "seeds 0 to 9" in told[-1][0]


def test_stock_fastai_has_nothing_of_ours(monkeypatch):
    """What `limit` and `seeds` train, without training it."""
    made, learner = [], recipe.learner
    monkeypatch.setattr(
        recipe, "learner", lambda dls, **how: made.append(learner(dls, **how)) or made[-1]
    )
    monkeypatch.setattr(recipe, "stages", lambda learn: [])
    dls = recipe.loaders(ROOT / "imgs")
    for cbs in seeds.MAKERS.values():
        limit.train(dls, cbs)
    ours, stock = ({type(cb) for cb in learn.cbs} & set(OURS) for learn in made)
    assert ours == set(OURS) and stock == set()


def test_each_part_writes_its_section_as_it_goes(tmp_path, monkeypatch, capsys):
    def interrupted(rounds, tell):
        tell(["the first half"])
        raise KeyboardInterrupt

    def fails(rounds, tell):
        raise RuntimeError("no network")

    monkeypatch.setattr(bench_all, "REPORT", tmp_path / "results.md")
    monkeypatch.setattr(limit, "measure", lambda rounds, tell: tell([f"{rounds} rounds"]))
    monkeypatch.setattr(growth, "measure", interrupted)
    monkeypatch.setattr(gains, "measure", fails)
    assert bench_all.main(["--parts", "gains", "limit", "--rounds", "2"]) == 1
    assert "gains: no network" in capsys.readouterr().err  # and the other has had its turn
    assert bench_all.main(["--parts", "growth", "start"]) == 130
    text = bench_all.REPORT.read_text()
    assert "`python -m bench --parts limit --rounds 2`" in text and "2 rounds" in text
    assert "the first half" in text and bench_all.TITLES["start"] not in text
    # What another kind of hardware gave stays, and comes first or last in its part.
    assert report.kind() in report.KINDS
    monkeypatch.setattr(bench_all, "kind", lambda: "GPU, float16")
    for rounds in ("5", "4"):  # the second in place of the first
        assert bench_all.main(["--parts", "limit", "--rounds", rounds]) == 0
    text = bench_all.REPORT.read_text()
    places = [text.index(words) for words in ("4 rounds", "2 rounds", "the first half")]
    assert places == sorted(places) and "5 rounds" not in text
    assert "\n\n\n" not in text and text.count("\n\n## ") == 3
