"""The helpers of Part II: rivals, leaks, luck, where a network looks, strangers; and two bodies."""

from copy import deepcopy
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.vision.all import resnet18, vision_learner
from PIL import Image
from shapes import loaders, squares
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from tutorial import bodies, leaks, look, luck, rivals, unknown
from tutorial.draw import how_far, show_change

matplotlib.use("agg")
RIGHT, WRONG = np.ones(20, bool), np.zeros(20, bool)
FEW = np.arange(20) < 3
EVEN = np.arange(20) % 2 == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("imgs"), train=16, valid=8)


@pytest.fixture(scope="module")
def learn(folder):
    torch.manual_seed(0)
    return vision_learner(loaders(folder), resnet18, pretrained=False)


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure as it is shown."""
    axes = []
    monkeypatch.setattr(plt, "show", lambda: axes.extend(plt.gcf().axes))
    yield axes
    plt.close("all")


# --- rivals


def test_mean_colour_and_histogram(tmp_path):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    assert np.allclose(rivals.mean_colour(tmp_path / "red.png"), [1, 0, 0])
    shares = rivals.colour_histogram(tmp_path / "red.png")
    assert shares.shape == (512,) and np.flatnonzero(shares) == [7 * 8 + 7]  # hue 0, full and light
    half = Image.new("RGB", (40, 40), (255, 0, 0))
    half.paste((0, 0, 0), (0, 0, 20, 40))
    half.save(tmp_path / "half.png")
    largest = sorted(rivals.colour_histogram(tmp_path / "half.png"))[-2:]
    assert largest == pytest.approx([0.5**0.5] * 2, abs=0.02)


def test_rivals_count_right_answers(learn):
    assert rivals.rival(learn.dls, LogisticRegression(), rivals.mean_colour) == 8
    assert rivals.rival(learn.dls, DummyClassifier(), rivals.mean_colour) == 4


def test_frozen_features_keep_the_order_and_leave_the_learner_alone(learn):
    files = list(learn.dls.valid_ds.items)
    before = deepcopy(learn.model.state_dict())
    seen, backwards = (rivals.frozen_features(learn, f) for f in (files, files[::-1]))
    assert seen.shape == (8, 1024) and seen.dtype == torch.float32
    assert torch.allclose(seen, backwards.flip(0), rtol=0.05, atol=0.05)
    assert not torch.allclose(seen[0], seen[-1], rtol=0.05, atol=0.05)
    assert all(torch.equal(t, before[name]) for name, t in learn.model.state_dict().items())


# --- leaks


def pictures(folder):
    return sorted(folder.rglob("*.[jp][pn]g"))


def test_no_leak_among_different_pictures_whatever_the_network_says(folder, capsys):
    files = pictures(folder)
    found = leaks.find_leaks(files, folder, torch.ones(len(files), 3))
    assert found.by.value_counts().to_dict() == {"hash": 8, "network": 8}
    assert found[found.by == "network"].alike.min() > 0.99 and not found.leak.any()
    leaks.show_leaks(found, folder)
    assert "PASS" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["bytes", "saved anew", "squeezed"])
def test_a_planted_leak_is_found(tmp_path, capsys, way):
    rng = np.random.default_rng(1)
    small = [rng.integers(0, 256, (5, 5, 3), dtype=np.uint8) for _ in range(4)]
    scenes = [Image.fromarray(s).resize((200, 160), Image.BICUBIC) for s in small]
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
    for i, scene in enumerate(scenes[:3]):
        scene.save(tmp_path / "train" / f"{i}.png")
    scenes[3].save(tmp_path / "valid" / "v.png")
    twin = tmp_path / "test" / ("t.jpg" if way == "saved anew" else "t.png")
    if way == "bytes":
        twin.write_bytes((tmp_path / "train" / "1.png").read_bytes())
    else:
        scenes[1].resize((150, 150) if way == "squeezed" else (200, 160)).save(twin)
    found = leaks.find_leaks(pictures(tmp_path), tmp_path)
    leaky = found[found.leak]
    assert [(str(f), str(t)) for f, t in zip(leaky.file, leaky.twin, strict=True)] == [
        (f"test/{twin.name}", "train/1.png")
    ]
    leaks.show_leaks(found, tmp_path)
    said = capsys.readouterr().out
    assert "FAIL" in said and "train/1.png" in said


def test_one_split_alone_has_nothing_to_compare(folder, capsys):
    leaks.show_leaks(leaks.find_leaks(pictures(folder / "train"), folder), folder)
    said = capsys.readouterr().out
    assert said and "PASS" not in said


# --- luck


@pytest.fixture(scope="module")
def clouds():
    """Two clouds of features that a straight border parts."""
    torch.manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 20) + 3 * y[:, None]
    return (x[:48], y[:48]), (x[48:], y[48:])


def test_heads_differ_by_seed_and_only_by_seed(clouds):
    (one, hit), (same, _), (other, _) = (
        luck.train_head(*clouds, seed, epochs=3, rate=1e-2) for seed in (1, 1, 2)
    )
    assert hit.dtype == bool and hit.shape == (32,) and hit.mean() > 0.9
    last = [list(head.parameters())[-1] for head in (one, same, other)]
    assert torch.equal(last[0], last[1]) and not torch.equal(last[0], last[2])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([WRONG], [RIGHT], ["helped", "second is better"]),
        ([RIGHT], [WRONG], ["harm", "first is better"]),
        ([RIGHT], [RIGHT], ["no difference", "same pictures"]),
        ([EVEN], [~EVEN], ["do not show", "can't tell"]),
        ([WRONG] * 3, [FEW] * 3, ["do not show", "can't tell"]),  # runs are no new pictures
    ],
)
def test_a_difference_is_believed_only_if_enough_pictures_show_it(before, after, words):
    assert words[0] in luck.is_it_real(before, after)
    assert words[1] in bodies.which_is_better(["first", "second"], [before[0], after[0]])


def test_two_bodies_are_laid_side_by_side(learn, capsys):
    files, vocab = learn.dls.valid_ds.items, learn.dls.vocab
    truth = rivals.class_numbers(files, vocab)
    assert [vocab[i] for i in truth] == [file.parent.name for file in files]
    bodies.compare_bodies([learn, learn], [torch.eye(2)[1 - truth], torch.eye(2)[truth]], truth)
    said = capsys.readouterr().out
    assert "0 of 8" in said and "8 of 8" in said
    assert said.count(f"{sum(p.numel() for p in learn.model.parameters()):,}") == 2


def test_a_learning_curve_rises(clouds):
    scores = luck.learning_curve(*clouds, sizes=[1, 20], draws=4)
    assert list(scores) == [1, 20] and len(scores[1]) == 4
    assert np.mean(scores[1]) < np.mean(scores[20]) > 0.9


# --- the wrong way


def test_how_far_each_block_moved_is_measured_and_written_down(learn, drawn):
    after = deepcopy(learn.model).to(memory_format=torch.channels_last)  # as after a training
    with torch.no_grad():
        for block, times in ((4, 1.0005), (5, 2.5)):
            for p in after[0][block].parameters():
                p.mul_(times)
    moved = how_far(learn.model, after)
    assert list(moved) == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert list(moved.values()) == pytest.approx([0, 0.0005, 1.5, 0, 0, 0], abs=1e-5)
    show_change(learn.model, gentle=after)
    assert [t.get_text() for t in drawn[0].texts] == ["0%", "0.05%", "150%", "0%", "0%", "0%"]


# --- where it looks


class BrightRight(nn.Module):
    """A body of one map that copies the right half of a picture's mean, coarsely."""

    def forward(self, x):
        maps = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 32)
        half = torch.zeros_like(maps)
        half[..., maps.shape[-1] // 2 :] = 1
        return maps * half


def test_both_maps_show_where_the_reason_is():
    linear = nn.Linear(49, 2)
    nn.init.zeros_(linear.bias)
    with torch.no_grad():
        linear.weight[0], linear.weight[1] = 0, 1
    toy = SimpleNamespace(model=nn.Sequential(BrightRight(), nn.Sequential(nn.Flatten(), linear)))
    heat = look.grad_cam(toy, torch.ones(1, 3, 224, 224), 1)
    assert heat.shape == (224, 224) and heat.max() == 1
    assert heat[:, 150:].min() > 0.9 and heat[:, :64].max() < 0.1
    chance = look.occlusion(toy, torch.full((1, 3, 224, 224), 0.05), 1)
    assert chance.shape == (7, 7) and chance[:, -1].max() < chance[:, 0].min()


@pytest.mark.parametrize("side, places", [(32, 7), (64, 7), (300, 7), (30, 8)])
def test_a_patch_keeps_its_share_of_a_picture_of_any_size(side, places):
    """A model that sees the mean of all colours tells how much of the picture is covered."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 2, bias=False))
    with torch.no_grad():
        model[1].weight[0], model[1].weight[1] = 0, 1 / (3 * side**2)
    chance = look.occlusion(SimpleNamespace(model=model), torch.ones(1, 3, side, side), 1)
    covered = 1 - np.log(chance / (1 - chance))  # the logit is the share that is not covered
    assert chance.shape == (places, places)
    assert covered == pytest.approx((side // 4) ** 2 / side**2, abs=1e-3)


def test_looks_are_drawn_for_any_learner(learn, drawn):
    files = sorted(learn.dls.valid_ds.items)[::7]  # a dark one and a light one
    look.show_looks(learn, files)
    dark, light = drawn[0].images[0].get_array(), drawn[3].images[0].get_array()
    assert dark.mean() < 80 and light.mean() > 170  # the transforms are undone for drawing
    assert files[0].name in drawn[0].get_title()
    left, right, bottom, top = drawn[2].images[1].get_extent()
    assert (left, right) == (top, bottom) and 0 < left < 8 and 48 < right < 64


# --- strangers


def test_distances():
    known = torch.tensor([[1.0, 0], [0, 1], [1, 0]])  # the first and the last are copies
    assert unknown.distances(known).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert unknown.distances(known[:1], known).tolist() == pytest.approx([0], abs=1e-6)
    far = unknown.distances(torch.tensor([[-1.0, -1]]), known)
    assert far.tolist() == pytest.approx([1 + 0.5**0.5], abs=1e-4)


def test_answers():
    probs = torch.tensor([[0.2, 0.8], [0.9, 0.1]])
    sure, unsure = unknown.answers(probs, ["a", "b"], [True, False])
    assert sure == "b" and unsure not in ("a", "b")


def test_reliability_counts_every_answer(drawn):
    sure = torch.tensor([0.6, 0.9, 0.97, 0.995, 1.0])
    unknown.show_reliability(torch.stack([sure, 1 - sure], 1), torch.tensor([0, 0, 1, 0, 0]))
    names = [label.get_text().split("\n")[1] for label in drawn[0].get_xticklabels()]
    assert [name[:6] for name in names] == ["1 of 1", "1 of 1", "0 of 1", "2 of 2"]
