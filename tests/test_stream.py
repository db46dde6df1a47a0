"""The cells of scale.md that pack pictures into shards and read them as a stream."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from contextlib import redirect_stdout

import matplotlib
import nbformat
import numpy as np
import pytest
from conftest import NOTEBOOK, ROOT, code_cells
from PIL import Image

matplotlib.use("agg")
GUIDE = ROOT / "scale.md"
PICTURES = 48  # to train on
SHARD = 8

pytestmark = pytest.mark.slow


def cells(guide=GUIDE):
    """The two grey boxes of Python: packing, and reading."""
    return re.findall(r"(?ms)^```python\n(.*?)^```", guide.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with imgs, and with shards as the first cell makes them, but smaller."""
    root = tmp_path_factory.mktemp("stream")
    rng = np.random.default_rng(0)
    for label, colour in {"grass": (60, 160, 60), "sky": (90, 140, 230)}.items():
        for split, many in (("train", PICTURES // 2), ("valid", 5), ("test", 2)):
            place = root / "imgs" / split / ("" if split == "test" else label)
            place.mkdir(parents=True, exist_ok=True)
            for i in range(many):
                pixels = rng.normal(colour, 40, (64, 80, 3)).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(place / f"{label}.{i}.jpg")
    pack = cells()[0]
    assert pack.count("maxsize=3e8") == 1
    done = subprocess.run(
        [sys.executable, "-c", pack.replace("maxsize=3e8", f"maxcount={SHARD}")],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


def names(root):
    """What the shards hold: (shard, key, label) of each picture."""
    found = []
    for file in sorted((root / "shards").iterdir()):
        with tarfile.open(file) as shard:
            for member in shard:
                if member.name.endswith(".cls"):
                    label = int(shard.extractfile(member).read())
                    found.append((file.name, member.name[:-4], label))
    return found


def test_the_shards_hold_every_picture_once_in_mixed_order(folder):
    found = names(folder)
    assert len(found) == len({key for _, key, _ in found}) == PICTURES
    assert len({shard for shard, _, _ in found}) == PICTURES / SHARD
    labels = [label for _, _, label in found]
    assert sum(labels) == PICTURES / 2
    shards = [labels[i : i + SHARD] for i in range(0, PICTURES, SHARD)]
    assert all(0 < sum(shard) < SHARD for shard in shards)


@pytest.fixture(scope="module")
def space(folder):
    """The names of a notebook in which the cells up to step 6 ran, the stream among them."""
    nb = nbformat.read(NOTEBOOK, as_version=4)
    code = {cell.id: cell.source for cell in code_cells(nb)}
    assert cells()[1].count("with_length(280,") == 1
    stream = cells()[1].replace("with_length(280,", f"with_length({PICTURES},")
    names, before = {}, os.getcwd()
    os.chdir(folder)
    try:
        with redirect_stdout(io.StringIO()):
            for source in (code["import"], "path = Path('imgs')", code["dls"], code["augment"]):
                exec(source, names)
            exec(stream, names)
            names["seen"] = [[y.tolist() for _, y in names["dls"].train] for _ in range(2)]
            for id in ("batch", "learn", "frozen", "fit-head", "accuracy", "top-losses"):
                exec(code[id], names)
            for id in ("confusion", "test-files", "probs", "argmax", "verdict", "rates"):
                exec(code[id], names)
            exec("learn.fit_one_cycle(1, slice(1e-4, 1e-3))", names)
        yield names
    finally:
        os.chdir(before)


def test_batches_are_full_and_come_in_another_order_each_epoch(space):
    first, second = space["seen"]
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [16] * 3
    assert first != second
    assert len(space["dls"].train) == 3


def test_a_batch_is_shown_under_the_names_of_their_classes(space):
    x, y = space["dls"].train.one_batch()
    shown = space["dls"].train.decode_batch((x, y), max_n=4)
    assert {str(label) for _, label in shown} <= {"grass", "sky"}


def test_the_network_learns_from_the_stream(space):
    assert space["right"] >= 9  # of 10; half of them would be chance
    assert len(space["valid_truth"]) == 10
    assert space["learn"].recorder.values[-1][0] < 0.6  # the training loss; guessing gives 0.69


def test_test_pictures_keep_their_order(space):
    files = [str(file) for file in space["test_files"]]
    assert list(space["first"].index) == files == sorted(files)
    alone = space["learn"].predict(space["test_files"][0])[2]
    again = space["learn"].get_preds(dl=space["dls"].test_dl(space["test_files"]))[0][0]
    assert alone.tolist() == pytest.approx(again.tolist(), abs=0.02)


def test_it_reads_shard_by_shard(folder):
    """The stream holds a window of pictures, not the set: the first comes before the last shard."""
    code = cells()[1].split("stream = stream.compose")[0].replace("import webdataset as wds", "")
    code = f"""
import sys
from pathlib import Path
import webdataset as wds
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
{code}
next(iter(stream))
print(len([name for name in opened if name.endswith(".tar")]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


def test_two_processes_share_the_shards(folder, tmp_path):
    cell = cells()[1].split("stream = stream.map_tuple")[0]
    cell = cell.replace("seed=42)\nstream", "seed=42, nodesplitter=wds.split_by_node)\nstream")
    cell = cell.replace('.to_tuple("jpg", "cls")', '.to_tuple("__key__")')
    assert "split_by_node" in cell and "__key__" in cell
    (tmp_path / "read.py").write_text(
        "import json\nfrom pathlib import Path\n"
        "from torch import distributed\ndistributed.init_process_group('gloo')\n"
        f"{cell}\nprint(json.dumps([key for key, in stream]), flush=True)\n"
        "distributed.destroy_process_group()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        + [tmp_path / "read.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert len(first) == len(second) == PICTURES / 2
    assert len({*first, *second}) == PICTURES
