"""What the programs in bench make of their measurements, on made-up ones."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import psutil
import pytest
import torch
from conftest import ROOT
from fastai.test_utils import synth_learner

from bench import __main__ as bench_all
from bench import endurance, gains, growth, limit, peers, report, scale, seeds, stability, start
from tutorial import check_folder, check_images, train

matplotlib.use("agg")
FILES = ["cat.1.jpg", "cat.2.jpg"]


def a_run(seed, valid, before, after):
    """A run as bench.stability keeps it; the probability of the true class, for each picture."""
    tests = {
        when: {file: [p > 0.5, p] for file, p in zip(FILES, chances, strict=True)}
        for when, chances in (("before", before), ("after", after))
    }
    valid = dict(zip(stability.WHEN, valid, strict=True))
    return {"seed": seed, "seconds": 60.0, "total": 10, "valid": valid, "test": tests}


@pytest.fixture
def rows():
    return [
        a_run(0, (8, 9), (0.9, 0.2), (0.9, 0.8)),
        a_run(1, (9, 9), (0.9, 0.6), (0.9, 0.7)),
        a_run(2, (9, 8), (0.6, 0.1), (0.4, 0.3)),
        a_run(3, (6, 10), (0.9, 0.8), (0.9, 0.8)),
    ]


# --- stability


def test_it_runs_the_notebooks_own_cells(stored):
    cells = stability.part_one()
    ids = [id for id, _ in cells]
    assert ids[0] == "import" and ids[-1] == stability.LAST
    assert {"dls", "learn", "fit-head", "probs", "verdict", "rates", "fit-all"} <= set(ids)
    sources = {cell.id: cell.source for cell in stored.cells}
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
    assert (run["seed"], run["total"], run["valid"]) == (7, 5, {"before": 3, "after": 4})
    assert run["test"]["before"] == {"cat.1.jpg": (False, 0.25), "ant.1.jpg": (True, 1)}
    assert run["test"]["after"] == {"cat.1.jpg": (True, 1), "ant.1.jpg": (True, 0.5)}


def test_the_sentences_follow_from_the_runs(rows):
    assert stability.sentences(rows) == [
        "Before fine-tuning, all 2 test pictures are right in 2 of 4 runs, 50% (95 % interval 15%"
        " to 85%).",
        "After fine-tuning, all 2 test pictures are right in 3 of 4 runs, 75% (95 % interval 30%"
        " to 95%).",
        "Runs in which fine-tuning raised the accuracy on valid: 2; lowered it: 1; left it alike:"
        " 1.",
        "Runs in which it put a wrong test picture right: 1; spoiled a right one: 1.",
        "Most often wrong before fine-tuning: cat.2.jpg (runs: 2).",
        "Most often wrong after fine-tuning: cat.1.jpg and cat.2.jpg (runs: 1).",
    ]
    assert stability.sentences(rows[3:])[-1] == (
        "Most often wrong after fine-tuning: none, in any run."
    )


def test_the_report_holds_spread_pictures_and_every_seed(rows):
    text = stability.report(rows)
    assert "| before | 80.0% | 14.1% | 60.0% | 90.0% | 2 of 4 |" in text
    assert "| cat.2.jpg | 2 | 1 | 10.0% | 30.0% |" in text
    assert "| 2 | 9 of 10 | 8 of 10 | 1 of 2; cat.2.jpg 10.0% | 0 of 2; cat.2.jpg 30.0% |" in text
    assert "| after | 90.0% | - | 90.0% | 90.0% | 1 of 1 |" in stability.report(rows[:1])


def test_an_interrupted_measurement_goes_on(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(stability, "KEPT", tmp_path / "kept.jsonl")
    monkeypatch.setattr(stability, "REPORT", tmp_path / "stability.md")
    monkeypatch.setattr(stability, "recipe", lambda cells: "this one")
    tried = []

    def run(cells, seed):
        tried.append(seed)
        if tried == [0, 1]:
            raise KeyboardInterrupt
        return rows[seed]

    monkeypatch.setattr(stability, "run", run)
    assert stability.main(["--seeds", "3"]) == 130
    assert not stability.REPORT.exists()
    assert stability.main(["--seeds", "3"]) == 0
    assert tried == [0, 1, 1, 2]
    assert (
        "seed 1 (1 of 2): valid 9, then 9 of 10; test 2, then 2 right; 60 s; minutes left: about 1"
        in (capsys.readouterr().out)
    )
    assert stability.REPORT.read_text().count("\n| 2 |") == 1
    monkeypatch.setattr(stability, "recipe", lambda cells: "another one")
    assert stability.kept("another one", stability.KEPT) == {}


# --- endurance


def test_the_generated_folder_is_sound_and_the_same_every_time(tmp_path, capsys):
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


def test_the_small_folder_is_a_part_of_imgs(tmp_path):
    endurance.small_folder(tmp_path)
    assert check_folder(tmp_path) == {
        "train": {"doraemon": 8, "walle": 8},
        "valid": {"doraemon": 4, "walle": 4},
    }
    assert len(list((tmp_path / "test").iterdir())) == 2


def a_kernel(code):
    """Start a process that looks like a kernel and runs `code` until its input is closed."""
    command = [sys.executable, "-c", code, "ipykernel_launcher"]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def test_the_watch_sees_a_kernel_and_what_it_starts():
    child = "import sys; held = b'x' * 50_000_000; sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    idle = "import sys; sys.stdin.read()"
    other = a_kernel(idle)  # of somebody else, there before the watch
    with endurance.Watch() as watch:
        watch.hear("[1/2] heading ... ")  # before there is a kernel
        kernel = a_kernel(parent)
        deadline = time.monotonic() + 60
        while not any(tree - own > 45e6 for *_, own, tree in watch.looks):
            assert time.monotonic() < deadline, watch.looks[-3:]
            time.sleep(0.05)
        watch.hear("1.0 s\n[2/2] heading ... ")
        watch.look()
        watch.hear("1.0 s\n")
        kernel.communicate()
        watch.look()  # nothing there any more
    other.communicate()
    assert {look[1] for look in watch.looks} == {0, 1}
    assert watch.looks[-1][2] > 1e6
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
    surroundings = dict(os.environ)
    assert endurance.main(["--runs", "2"]) == 0
    assert endurance.main(["--pictures", "100"]) == 0
    assert os.environ == surroundings
    text = tiny.read_text()
    assert "`python -m bench.endurance --runs 2`" in text
    assert "Too few runs" in text and re.search(r"(?m)^\| 2 \| \d+ \| \d+ MB \|", text)
    assert not re.search(r"\b0 MB", text.replace("+0 MB", ""))
    said = (
        "100 generated pictures of 160 px, made 224 px for the network: the run ended with status 0"
    )
    assert said in text
    assert "In the longest cell, wait" in text
    peaks = {id: int(own) for id, own in re.findall(r"\| (\w+) \| \d+ \| (\d+) MB", text)}
    assert peaks["wait"] > 60 + 20  # what it holds, and Python


@pytest.mark.slow
def test_a_run_that_fails_is_told(tiny, capfd):
    nb = nbformat.read(tiny.with_name("demo.ipynb"), as_version=4)
    nb.cells[1].source = "time.sleep(1); raise OSError('the disk is full')"
    nbformat.write(nb, tiny.with_name("demo.ipynb"))
    assert endurance.main([]) == 1
    assert not tiny.exists()
    assert endurance.main(["--pictures", "100"]) == 1
    assert "the run ended with status 1, in the cell hold" in tiny.read_text()


def seen(*looks):
    """A watch that saw these: (second, cell, MB of the kernel)."""
    watch = endurance.Watch()
    watch.looks = [(s, cell, int(own * 1e6), int(own * 1e6) + 10**7) for s, cell, own in looks]
    return watch


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_pages_that_processes_share_count_once():
    """A child that does nothing shares almost all that it has."""
    pages = bytearray(os.urandom(50_000_000))
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        child_process = psutil.Process(child)
        assert child_process.memory_info().rss > 50_000_000
        assert endurance.alone(child_process) < 25_000_000
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        del pages


def test_growth_is_told_from_noise():
    up = [900e6, 1200e6, *(1000e6 + 5e6 * n for n in range(8))]
    assert endurance.growth(up) == pytest.approx((5e6, 5e6, 5e6))
    assert endurance.growth_sentence(up) == (
        "It grows: over the last 8 runs, by least squares: +5.0 MB a run (95 % interval +5.0 to"
        " +5.0); a hundred more runs would add about 500 MB."
    )
    level = [900e6, 1200e6, *(1000e6 + 5e6 * (n % 2) for n in range(8))]
    assert endurance.growth_sentence(level).startswith("No growth is seen over the last 8 runs")
    assert endurance.growth_sentence(level[:4]).startswith("Too few runs")


def test_the_peak_is_held_against_the_limit():
    watch = seen((0, 0, 500), (1, 1, 2500))
    assert endurance.peak_sentence(watch) == (
        "Peak: 2,500 MB in the kernel; 2,510 MB with the processes that it starts."
        " The largest of these is under 3,000 MB."
    )
    watch.highest = int(3.1e9)  # between two looks
    assert "3,100 MB by the system's own record (VmHWM)" in endurance.peak_sentence(watch)
    assert endurance.peak_sentence(watch).endswith("is OVER 3,000 MB.")


def test_the_sections_hold_what_was_seen():
    watch = seen(*((i, i // 60, 1000 + i // 60) for i in range(180)))
    one = endurance.peak_section(watch, ["a", "summary", "c"])
    assert one[0].endswith("Part I alone: 1,011 MB.")
    assert one[-3:] == [
        "| c | 59 | 1,002 MB | 1,012 MB |",
        "| summary | 59 | 1,001 MB | 1,011 MB |",
        "| a | 59 | 1,000 MB | 1,010 MB |",
    ]
    runs = endurance.runs_section(watch, ["a"], 3)
    assert runs[-1] == "| 3 | 59 | 1,002 MB | 1,012 MB |"
    assert runs[0] == "On all pictures of imgs to train on."
    small = endurance.runs_section(watch, ["a"], 3, small=True)
    assert small[0] == "On 16 pictures of imgs to train on."
    large = endurance.large_section(watch, ["a", "b", "c"], 20_000, 1)
    assert large[0].endswith("the run ended with status 1, in the cell c, after 3 minutes.")
    assert "| b | 59 | 1,001 MB | 1,011 MB | +0 MB |" in large


def test_another_side_reaches_every_picture_that_the_notebook_makes():
    nb = nbformat.read(report.ROOT / "demo.ipynb", as_version=4)
    small = endurance.with_side(nb, 32)
    before, after = (
        "".join(c.source for c in n.cells if c.cell_type == "code") for n in (nb, small)
    )
    made = before.count("Resize(")
    assert made == before.count(f"Resize({endurance.NOTEBOOK_SIDE})") > 0
    assert after.count("Resize(32)") == after.count("Resize(") == made


@pytest.mark.parametrize(
    "words, wrong",
    [
        (["--side", "32"], "--side goes with --pictures"),
        (["--pictures", "100", "--side", "8"], "must be at least 32"),
        (["--pictures", "99"], "--pictures at least 100"),
        (["--runs", "0"], "--runs must be at least 1"),
    ],
)
def test_what_endurance_is_asked_for_must_make_sense(words, wrong, capsys):
    with pytest.raises(SystemExit):
        endurance.main(words)
    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize("step, word", [(0, "was steady"), (10, "was NOT steady")])
def test_a_drift_within_the_longest_cell_is_seen(step, word):
    watch = seen(*((i, 0, 1000 + step * i) for i in range(60)))
    assert endurance.drift(watch, 0) == step * 20e6
    assert word in endurance.steady_sentence(watch, 0, "fit-all", 59)


def test_each_part_keeps_the_sections_of_the_others():
    text, titles = "", ("peak", "runs", "large")
    for title, line in (("large", "20,000"), ("peak", "first try"), ("peak", "second try")):
        text = report.with_section(text, "# Measured", titles, title, [line], "a command")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Measured",
        "## peak",
        "## large",
    ]
    assert "20,000" in text and "second try" in text and "first try" not in text
    assert "\n\n\n" not in text and text.count("\n\n## ") == 2


# --- python -m bench.scale


def test_the_gain_of_several_gpus_is_worked_out_by_hand_here():
    compute = scale.BATCH / scale.RATE  # 64 ms a step
    # Two processes send as many bytes as the gradients have: 87.2 ms at 1 GB/s.
    worst, best = scale.gain(2, 1e9)
    assert worst == pytest.approx(2 * compute / (compute + 0.0872))
    assert best == pytest.approx(2 * compute / 0.0872)  # sending takes longer than computing
    assert scale.gain(16, 1e18) == pytest.approx((16, 16))
    assert "would want 3 cores" in scale.worked_out(450)[-1]  # two read but 900 of the 1,000
    assert scale.gain(1, 1e9) == pytest.approx((1, 1))


def test_the_scale_report_compares_the_ways():
    one, both, two = scale.WAYS
    run = {"seconds": [10.0, 12.0, 11.0], "head": 0.9, "tuned": 1.0}
    runs = {
        one: [{**run, "seconds": [20.0]}],
        both: [run, {**run, "head": 0.8}],
        two: [run, run],
    }
    text = "\n".join(scale.measured(runs))
    assert "1.82 times as fast as one process with one core, and 1.00 times" in text
    assert f"| {both} | 11.0 | 10.0 to 12.0 | 25.5 | 85.0% ± 7.1% | 100.0% ± 0.0% |" in text
    assert f"| {one} | 20.0 | 20.0 to 20.0 | 14.0 | - | - |" in text


def test_the_command_of_each_way(monkeypatch, tmp_path):
    asked = []

    def launch(command, env, **how):
        asked.append((command, env["OMP_NUM_THREADS"]))
        epoch = {"seconds": 7.0}
        found = {
            "validation, after the head": {"share": 0.5},
            "validation, after all layers": {"share": 0.75},
            "epochs of all layers": [epoch, epoch],
        }
        (tmp_path / "run.json").write_text(json.dumps({"figures": found}))

    monkeypatch.setattr(scale.subprocess, "run", launch)
    for way in scale.WAYS:
        got = scale.train(way, 3, tmp_path)
        assert got == {"seconds": [7.0, 7.0], "head": 0.5, "tuned": 0.75}
    assert [threads for _, threads in asked] == ["1", "2", "1"]
    assert ["--nproc-per-node=2" in command for command, _ in asked] == [False, False, True]
    assert ["--seed=3" in command for command, _ in asked] == [False, True, True]


# --- make bench


def a_race(*seen, whole=100.0, steps=None):
    """A run as bench.peers keeps it."""
    return {"seen": list(seen), "steps": steps or {}, "whole": whole, "peak": 2_000_000_000}


def test_the_race_is_to_the_others_best_accuracy():
    ours = [a_race((10, 28, 33), (20, 31, 33), (30, 33, 33)), a_race((12, 20, 33), (24, 30, 33))]
    theirs = [a_race((40, 25, 33), (80, 31, 33), (120, 31, 33)), a_race((36, 32, 33))]
    assert peers.reached(ours[0]["seen"], 30) == 20
    assert peers.reached(ours[0]["seen"], 34) is None
    # In the second round we never come as far as they do.
    assert peers.ratios(ours, theirs) == [80 / 20, 0]
    assert peers.race(peers.STOCK, ours, theirs)[-3:] == (
        "1 of 2",
        "2.0 (0.0 to 4.0)",
        "2.5: NOT met",
    )
    assert peers.race("another", ours, theirs)[-1] == "1: met"
    assert peers.accuracy(ours) == "95.5%; 33 of 33 is 90% to 100%"
    assert peers.accuracy([a_race((40, 32, 33), (80, 31, 33))]).startswith("93.9%; 31 of 33")
    assert peers.accuracy([a_race((40, 32, 33), (80, 31, 33))], True).startswith("97.0%; 32 of 33")
    assert peers.spread([3, 1, 2]) == "2 (1 to 3)"
    assert peers.spread([1.5], "{:.1f}") == "1.5"


def test_the_report_of_the_race():
    ours = a_race((10, 28, 33), (20, 31, 33), steps={"Step 1": 2.0, "Step 2": 3.5})
    runs = {name: [a_race((40, 25, 33), (90, 31, 33))] for name in peers.RACE}
    lines = peers.section(runs | {peers.OURS: [ours]})
    row = "| PyTorch's tutorial | 25 | 40 | 90 | 100 | 93.9%; 31 of 33 is 80% to 98% | 2,000 | "
    assert any(line.startswith(row) for line in lines)
    assert "| PyTorch's tutorial | 93.9% | 1 of 1 | 4.5 | 1: met |" in lines
    slower = [a_race((90, 31, 33), whole=240)]
    lines_then = peers.section(runs | {peers.OURS: [ours], peers.STOCK: slower})
    said = "With stock fastai in float32 the same cells, imports included, take 2.4 times as long."
    assert any(line.startswith(said) for line in lines_then)
    assert any(line.startswith("Part I takes 100 s") for line in lines)
    assert not any(line.startswith("Not measured") for line in lines)
    del runs["PyTorch's tutorial"]  # as while the race goes on
    rest = peers.section(runs | {peers.OURS: [ours]})
    assert "Not measured: PyTorch's tutorial with 25 epochs." in rest
    assert "| Step 2 | 3.5 |" in lines
    lines = {
        row.split(" | ")[0]: int(row.split(" | ")[-1][:-2]) for row in lines if " 2,000 " in row
    }
    assert lines[f"| {peers.STOCK}"] < lines[f"| {peers.OURS}"] < lines["| PyTorch's tutorial"]


def test_the_longest_recipe_runs_in_the_first_round_alone(monkeypatch):
    monkeypatch.setattr(peers, "peers_python", lambda: "python")
    monkeypatch.setattr(peers, "run", lambda name, seed, python: a_race((9, 31 + seed, 33)))
    told = []
    peers.measure(2, told.append)
    assert len(told) == 2 * len(peers.RACE) - 1
    assert told[-1][0].startswith(
        "Rounds: 2, each with a seed of its own; PyTorch's tutorial ran in the first alone."
    )
    assert any(line.startswith(f"| {peers.ONCE} | 93.9% | 1 of 1 | 1.0 |") for line in told[-1])
    assert told[len(peers.RACE) - 2][0].startswith("Rounds: 1, each with a seed of its own.")


def test_lines_without_docstrings_comments_and_empty_ones():
    code = (
        '"""Title.\n\nMore.\n"""\n\nimport os  # counts\n\n\ndef f():\n    """Say."""\n    # no\n'
    )
    assert peers.lines_of(code + "    return 'a string'\n") == 3


def test_the_race_runs_the_notebooks_own_cells(stored, monkeypatch):
    monkeypatch.syspath_prepend(peers.RECIPES)
    import part_one

    cells = part_one.part_one()
    sources = {cell.id: cell.source for cell in stored.cells}
    assert all(sources[id] == code for id, _, code in cells)
    assert cells[0][0] == "import" and cells[-1][1].startswith("Step 15")
    assert set(peers.TRAINING) < {id for id, *_ in cells}
    assert sources["learn"] == "learn = vision_learner(dls, resnet34, metrics=accuracy)"
    stock = part_one.changed(sources["import"], part_one.ADDED, "")
    assert "fast_defaults" not in stock and "\nset_seed(" in stock
    with pytest.raises(ValueError, match="once"):
        part_one.changed("learn = 1", part_one.ADDED, "")


def test_a_prediction_is_not_taken_for_an_epoch(monkeypatch):
    monkeypatch.syspath_prepend(peers.RECIPES)
    from part_one import teller
    from run import Notes

    notes, right = Notes(), lambda guess, truth: (guess - truth).abs().lt(1e3).float().mean()
    learn = synth_learner(metrics=right)
    learn.add_cb(teller(learn, notes))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
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
    assert "| a step of the head | 2.000 | 50% |" in text and "come to 6% of the" in text
    assert "1.26 times as fast as the notebook, and so 3.03 times as fast as stock" in text
    assert "NOT met" in limit.section([(260.0, 520.0, 170.0, pieces)])[0]


def test_the_limit_is_measured_on_the_notebooks_own_training(stored):
    code = {cell.id: " ".join(cell.source.split()) for cell in stored.cells}
    assert f"fit_one_cycle({limit.HEAD}, 3e-3)" in code["fit-head"]
    assert f"fit_one_cycle({limit.ALL}, slice(1e-5, 3e-4))" in code["fit-all"]
    assert limit.RATES == (3e-3, slice(1e-5, 3e-4))
    # The command for many processes trains alike, and names its own numbers.
    stages = train.STAGES["head"], train.STAGES["all"]
    assert [epochs for _, epochs, _ in stages] == [limit.HEAD, limit.ALL]
    assert tuple(rate for *_, rate in stages) == limit.RATES
    source = " ".join(Path(limit.__file__).read_text().split())
    for part in ("batch_tfms=aug_transforms(), bs=16, num_workers=0", "item_tfms=Resize(224)"):
        assert part in code["dls"] and part in source
    assert code["learn"].split("vision_learner(")[1].strip(" )") in source
    assert "fast_defaults()" in code["import"] and "cbs=OURS" in source


def test_stock_fastai_has_nothing_of_ours():
    ours = {callback.__name__ for callback in limit.OURS}
    for make, found in ((limit.learner, ours), (limit.stock_learner, set())):
        learn = make(limit.loaders())
        assert {type(cb).__name__ for cb in learn.cbs} & ours == found


def test_copies_fill_a_folder_of_any_size(tmp_path):
    growth.copies(tmp_path, 40, 20)
    counts = check_folder(tmp_path)
    assert [len(counts[split]) for split in ("train", "valid")] == [20, 20]
    assert [sum(counts[split].values()) for split in ("train", "valid")] == [40, 20]
    first = sorted((tmp_path / "train").rglob("*.jpg"))[0]
    assert first.read_bytes()[:2] == b"\xff\xd8"


def test_growth_is_flat_or_not():
    run = {"load": 0.5, "seconds": 30.0, "pictures": 300, "peak": 10**9}
    found = {(300, 2): run, (3000, 2): {**run, "seconds": 330.0, "pictures": 3000}}
    lines = growth.section(found)
    assert "picture: with more pictures flat, at most 5% from the median" in lines[0]
    assert "memory: with more pictures flat, at most 0% from the median" in lines[0]
    assert "NOT" not in lines[0] and "with more classes" not in lines[0]
    assert "| 3,000 | 2 | 0.5 | 330 | 110.0 | 1,000 |" in lines
    found[20000, 2] = {**run, "seconds": 3000.0, "pictures": 20000, "peak": 2 * 10**9}
    found[3000, 200] = {**found[3000, 2], "peak": 1.1e9}
    said = growth.section(found)[0]
    assert "picture: with more pictures NOT flat, at most 36% from the median" in said
    assert "memory: with more pictures NOT flat, at most 100% from the median; with" in said
    assert "with more classes flat, at most 5% from the median (flat means 15%)." in said


def test_gains_are_told_as_ratios_to_the_notebooks_way():
    ways = {gains.AS_IT_IS: [(10.0, 40.0), (20.0, 40.0)], "other": [(15.0, 40.0), (20.0, 60.0)]}
    lines = gains.section(ways, (0.05, 0.15))
    assert "| as it is | 15.0 | 1.00 | 40.0 | 1.00 |" in lines
    assert "| other | 17.5 | 1.25 | 50.0 | 1.25 |" in lines
    assert "in 50 ms" in lines[-1] and "150 ms, 3.0 times as long" in lines[-1]


def test_each_way_that_is_tried_differs_from_the_notebooks():
    first, *others = gains.ways().values()
    assert first == ({}, {}) and all(other != first for other in others)
    learn = synth_learner(cbs=gains.ColoursFirst())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert not learn.colours_first.channels_last
    learn = synth_learner(cbs=gains.Float32())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert learn.float32.dtype == torch.float32
    for callback, dropped in ((gains.NativePrecision, True), (gains.KeptGradients, False)):
        learn = synth_learner(cbs=callback())
        learn.create_opt()
        left = []
        learn.opt.zero_grad = lambda model=learn.model, left=left: left.extend(
            p.grad is None for p in model.parameters()
        )
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
        assert left and set(left) == {dropped}
    ours, whole = gains.photos()
    assert ours > 0 and whole > 0


SAID = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |     torch._C
import time:    500000 |     500100 |   torch
import time:     20000 |     520100 | fastai.vision.all
import time:      3000 |       3000 | json
import time:      2000 |     150000 |       torch._dynamo.exc
import time:    300000 |     450000 |     torch._dynamo.utils
"""


def test_imports_are_summed_up_by_package():
    spent = start.import_times(SAID)
    assert spent == pytest.approx({"torch": 0.8021, "fastai": 0.02, "json": 0.003})
    compiler = start.compiler_time(SAID)
    assert compiler == 0.45
    lines = start.section(spent, compiler, 0.1, 8.0, 1.5, {"cold": (60.0, 12.0)})
    assert lines[0].startswith("Plain Python starts and ends in 0.1 s; with")
    assert lines[-12:-8] == [
        "| torch | 0.80 |",
        "| fastai | 0.02 |",
        "| json | 0.00 |",
        "| all else | 0.00 |",
    ]
    assert "| cold | 60 | 12 | 72 |" in lines


def test_a_command_that_fails_says_why():
    with pytest.raises(RuntimeError, match="on purpose"):
        start.seconds_of([sys.executable, "-c", "raise SystemExit('on purpose')"])
    assert start.seconds_of([sys.executable, "-c", "pass"]) > 0


def test_ten_seeds_are_compared_pair_by_pair(tmp_path, monkeypatch):
    ours, stock = seeds.MAKERS
    rows = [
        {ours: [(0.5, 0.8), (0.2, 0.9)], stock: [(0.5, 0.9), (0.3, 0.9)]},
        {ours: [(0.4, 0.6), (0.1, 1.0)], stock: [(0.5, 0.9), (0.3, 0.8)]},
        {ours: [(0.4, 0.7), (0.1, 0.8)], stock: [(0.5, 0.9), (0.3, 0.7)]},
    ]
    lines = seeds.section(rows)
    table = "\n".join(lines)
    assert "| after the head | 70.0% ± 10.0% | 90.0% ± 0.0% | -20.0 (-44.8 to +4.8) |" in table
    assert "| 90.0% ± 10.0% | 80.0% ± 10.0% | +10.0 (-14.8 to +34.8) | -0.167 (" in table
    assert "is +10.0 points from stock" in lines[0] and "can show: met" in lines[0]
    assert "| 1 | 60.0% | 90.0% | 100.0% | 80.0% |" in lines
    worse = [
        {ours: [(0.5, 0.8), (0.2, 0.8 + n)], stock: [(0.5, 0.8), (0.2, 0.9)]} for n in (0, 0.01)
    ]
    assert "can show: NOT met" in seeds.section(worse)[0]
    assert seeds.section(rows[:1])  # as after the first seed

    # An interrupted measurement goes on after its last seed; of another recipe nothing counts.
    trained, told = [], []

    def train(dls, make, seed):
        trained.append(seed)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return 1.0, rows[seed % 3][ours]

    monkeypatch.setattr(seeds, "KEPT", tmp_path / "out" / "seeds.jsonl")
    monkeypatch.setattr(seeds, "train", train)
    monkeypatch.setattr(seeds, "recipe", lambda *what: "this one")
    with pytest.raises(KeyboardInterrupt):
        seeds.measure(3, told.append)
    assert trained == [0, 0, 1, 1] and len(told) == 1
    seeds.measure(3, told.append)
    assert trained[4:] == [n for n in range(1, 10) for _ in seeds.MAKERS]
    assert "seeds 0 to 9" in told[-1][0]
    assert seeds.kept("another", seeds.KEPT) == {} and len(seeds.kept("this one", seeds.KEPT)) == 10


def test_each_part_writes_its_section_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_all, "REPORT", tmp_path / "results.md")
    monkeypatch.setattr(limit, "measure", lambda rounds, tell: tell([f"{rounds} rounds"]))

    def interrupted(rounds, tell):
        tell(["the first half"])
        raise KeyboardInterrupt

    monkeypatch.setattr(growth, "measure", interrupted)
    assert bench_all.main(["--parts", "limit", "--rounds", "2"]) == 0
    assert bench_all.main(["--parts", "growth", "start"]) == 130
    text = bench_all.REPORT.read_text()
    assert "`python -m bench --parts limit --rounds 2`" in text and "2 rounds" in text
    assert "the first half" in text and bench_all.TITLES["start"] not in text
    # What another kind of hardware gave stays, and comes first or last in its part.
    assert report.kind() in report.KINDS
    monkeypatch.setattr(bench_all, "kind", lambda: "GPU, float16")
    assert bench_all.main(["--parts", "limit", "--rounds", "5"]) == 0
    text = bench_all.REPORT.read_text()
    assert "2 rounds" in text and "5 rounds" in text and "the first half" in text
    places = [text.index(words) for words in ("5 rounds", "2 rounds", "the first half")]
    assert places == sorted(places)


def test_a_part_that_fails_leaves_the_others_their_turn(tmp_path, monkeypatch, capsys):
    def fails(rounds, tell):
        raise RuntimeError("no network")

    monkeypatch.setattr(bench_all, "REPORT", tmp_path / "results.md")
    monkeypatch.setattr(growth, "measure", fails)
    monkeypatch.setattr(limit, "measure", lambda rounds, tell: tell(["measured"]))
    assert bench_all.main(["--parts", "growth", "limit"]) == 1
    assert "growth: no network" in capsys.readouterr().err
    assert "measured" in bench_all.REPORT.read_text()


def test_rounds_are_one_or_more():
    with pytest.raises(SystemExit):
        bench_all.main(["--rounds", "0"])
