"""The helpers of Part II: rivals, leaks, luck, where a network looks, strangers."""

from copy import deepcopy
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from tutorial import bodies, leaks, look, luck, rivals, unknown
from tutorial.defaults import OURS
from tutorial.draw import how_far, show_change

matplotlib.use("agg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red and green pictures of noise, eight a class to learn from and four to check on."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("imgs")
    for split, n in (("train", 8), ("valid", 4)):
        for label, channel in (("green", 1), ("red", 0)):
            (path / split / label).mkdir(parents=True)
            for i in range(n):
                picture = rng.integers(0, 120, (70, 64, 3), dtype=np.uint8)
                picture[..., channel] += 120
                Image.fromarray(picture).save(path / split / label / f"{label}.{i}.png")
    return path


@pytest.fixture(scope="module")
def learn(folder):
    torch.manual_seed(0)
    dls = ImageDataLoaders.from_folder(
        folder, valid="valid", item_tfms=Resize(64), bs=4, num_workers=0
    )
    return vision_learner(dls, resnet18, pretrained=False)


# --- rivals


def test_mean_colour_and_histogram(tmp_path):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    assert np.allclose(rivals.mean_colour(tmp_path / "red.png"), [1, 0, 0])
    shares = rivals.colour_histogram(tmp_path / "red.png")
    assert shares.shape == (512,)
    assert shares.max() == 1 and (shares**2).sum() == pytest.approx(1)
    assert shares.argmax() == 0 * 64 + 7 * 8 + 7  # hue 0, full saturation and value


def test_rivals_count_right_answers(learn):
    assert rivals.rival(learn.dls, LogisticRegression(), rivals.mean_colour) == 8
    assert rivals.rival(learn.dls, DummyClassifier(), rivals.mean_colour) == 4


def test_frozen_features_keep_the_order_and_leave_the_learner_alone(learn):
    files = list(learn.dls.valid_ds.items)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    seen = rivals.frozen_features(learn, files)
    assert seen.shape == (8, 1024) and seen.dtype == torch.float32
    backwards = rivals.frozen_features(learn, files[::-1])
    assert torch.allclose(seen, backwards.flip(0), rtol=0.05, atol=0.05)
    assert not torch.allclose(seen[0], seen[-1], rtol=0.05, atol=0.05)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_class_numbers_come_from_folders(learn):
    numbers = rivals.class_numbers(learn.dls.valid_ds.items, learn.dls.vocab)
    names = [file.parent.name for file in learn.dls.valid_ds.items]
    assert [learn.dls.vocab[i] for i in numbers] == names


# --- leaks


def pictures(folder):
    return sorted(folder.rglob("*.[jp][pn]g"))


def test_no_leak_among_different_pictures(folder, capsys):
    found = leaks.find_leaks(pictures(folder), folder)
    assert len(found) == 8 and not found.leak.any()
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
    assert [str(f) for f in found[found.leak].file] == [f"test/{twin.name}"]
    assert str(found.twin[0]) == "train/1.png"
    leaks.show_leaks(found, tmp_path)
    said = capsys.readouterr().out
    assert "FAIL" in said and "train/1.png" in said


def test_the_networks_word_alone_is_no_leak(folder):
    files = pictures(folder)
    found = leaks.find_leaks(files, folder, torch.ones(len(files), 3))
    assert set(found.by) == {"hash", "network"}
    assert found[found.by == "network"].alike.min() > 0.99 and not found.leak.any()


def test_one_split_alone_gives_a_sentence(folder, capsys):
    found = leaks.find_leaks(pictures(folder / "train"), folder)
    leaks.show_leaks(found, folder)
    assert "Nothing to compare" in capsys.readouterr().out


# --- luck


@pytest.fixture(scope="module")
def clouds():
    """Two clouds of features that a straight border parts."""
    torch.manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 20) + 3 * y[:, None]
    return (x[:48], y[:48]), (x[48:], y[48:])


def test_heads_differ_by_seed_and_only_by_seed(clouds):
    one, hit = luck.train_head(*clouds, seed=1, epochs=3, rate=1e-2)
    same, _ = luck.train_head(*clouds, seed=1, epochs=3, rate=1e-2)
    other, _ = luck.train_head(*clouds, seed=2, epochs=3, rate=1e-2)
    assert hit.dtype == bool and hit.shape == (32,) and hit.mean() > 0.9
    weights = [next(head.parameters()) for head in (one, same, other)]
    last = [list(head.parameters())[-1] for head in (one, same, other)]
    assert torch.equal(last[0], last[1]) and not torch.equal(last[0], last[2])
    assert len(weights[0]) == 20


def test_is_it_real():
    wrong, right = np.zeros(20, bool), np.ones(20, bool)
    assert "helped" in luck.is_it_real([wrong], [right])
    assert "done harm" in luck.is_it_real([right], [wrong])
    assert "no difference" in luck.is_it_real([right, wrong], [right, wrong])
    few = wrong.copy()
    few[:3] = True
    said = luck.is_it_real(
        [wrong] * 3, [few] * 3
    )  # three runs do not make three times the pictures
    assert "better on 3 of 20" in said and "do not show" in said


def test_learning_curve_rises(clouds):
    scores = luck.learning_curve(*clouds, sizes=[1, 20], draws=4)
    assert list(scores) == [1, 20] and len(scores[1]) == 4
    assert np.mean(scores[1]) < np.mean(scores[20])
    assert np.mean(scores[20]) > 0.9


# --- the wrong way


def test_how_far_measures_each_block(learn):
    after = deepcopy(learn.model).to(memory_format=torch.channels_last)  # as after a training
    with torch.no_grad():
        for p in after[0][4].parameters():
            p.mul_(2)
    moved = how_far(learn.model, after)
    assert moved.pop("layer1") == pytest.approx(1, abs=1e-5)
    assert set(moved) == {"stem", "layer2", "layer3", "layer4", "head"}
    assert max(moved.values()) == 0


def test_a_bar_too_low_to_be_seen_has_its_number(learn, monkeypatch):
    after = deepcopy(learn.model)
    with torch.no_grad():
        for p in after[0][4].parameters():
            p.mul_(1.0005)
        for p in after[0][5].parameters():
            p.mul_(2.5)
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.extend(t.get_text() for t in plt.gca().texts))
    show_change(learn.model, gentle=after)
    assert drawn == ["0%", "0.05%", "150%", "0%", "0%", "0%"]


# --- where it looks


class BrightRight(nn.Module):
    """A body of one map that copies the right half of a picture's mean, coarsely."""

    def forward(self, x):
        maps = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 32)
        half = torch.zeros_like(maps)
        half[..., maps.shape[-1] // 2 :] = 1
        return maps * half


class Toy:
    """As much of a learner as `grad_cam` needs: class 1 is a bright right half."""

    model = nn.Sequential(BrightRight(), nn.Sequential(nn.Flatten(), nn.Linear(49, 2)))


def toy():
    with torch.no_grad():
        linear = Toy.model[1][1]
        linear.bias.zero_()
        linear.weight[0], linear.weight[1] = 0, 1
    return Toy


def test_grad_cam_shows_where_the_reason_is():
    heat = look.grad_cam(toy(), torch.ones(1, 3, 224, 224), 1)
    assert heat.shape == (224, 224) and heat.max() == 1
    assert heat[:, 150:].min() > 0.9 and heat[:, :64].max() < 0.1


def test_occlusion_falls_where_the_reason_is_covered():
    chance = look.occlusion(toy(), torch.full((1, 3, 224, 224), 0.05), 1)
    assert chance.shape == (7, 7)
    assert chance[:, -1].max() < chance[:, 0].min()


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
    left, right, bottom, top = look._middle(side, places)
    assert (left, right) == (top, bottom) and 0 < left < side / 8 and side * 3 / 4 < right < side


def test_looks_are_drawn_for_any_learner(learn, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look.plt, "show", lambda: None)
        look.show_looks(learn, list(learn.dls.valid_ds.items[:2]))
        axes = look.plt.gcf().axes
    shown = axes[0].images[0].get_array()
    assert shown.std() > 5 and "green.0.png" in axes[0].get_title()
    look.plt.close("all")


# --- strangers


def test_strangers_are_five_different_pictures():
    made = unknown.strangers()
    assert len(made) == 5
    assert len({picture.tobytes() for picture in made.values()}) == 5


def test_distances():
    known = torch.tensor([[0, 1], [1, 0.1]])
    found = unknown.distances(torch.tensor([[2.0, 0], [-1, -1]]), known)
    assert found[0] == pytest.approx(1 - 1 / 1.01**0.5, abs=1e-4)
    assert found[1] == pytest.approx(1 + 0.5**0.5, abs=1e-4)


def test_a_copy_of_a_known_picture_is_near_though_it_is_known():
    known = torch.tensor([[1.0, 0], [0, 1], [1, 0]])  # the first and the last are copies
    assert unknown.distances(known).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert unknown.distances(known[:1], known).tolist() == pytest.approx([0], abs=1e-6)


def test_answers():
    probs = torch.tensor([[0.2, 0.8], [0.9, 0.1]])
    assert unknown.answers(probs, ["a", "b"], [True, False]) == ["b", "I don't know"]


def test_reliability_counts_every_answer(capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unknown.plt, "show", lambda: None)
        sure = torch.tensor([0.6, 0.9, 0.97, 0.995, 1.0])
        probs = torch.stack([sure, 1 - sure], 1)
        unknown.show_reliability(probs, torch.tensor([0, 0, 1, 0, 0]))
        names = [label.get_text() for label in unknown.plt.gca().get_xticklabels()]
    unknown.plt.close("all")
    assert [name.split("\n")[1] for name in names] == [
        "1 of 1 right",
        "1 of 1 right",
        "0 of 1 right",
        "2 of 2 right",
    ]


def test_transforms_of_the_pictures_are_undone_for_drawing(learn):
    x, drawn = look.prepare(learn, list(learn.dls.valid_ds.items[:1]))
    assert x.shape == (1, 3, 64, 64)
    assert drawn[0].dtype == np.uint8 and drawn[0][..., 1].mean() > drawn[0][..., 0].mean()


# --- two bodies


def test_only_pictures_that_one_alone_gets_right_tell_which_is_better():
    names, right, wrong = ["ours", "theirs"], np.ones(20, bool), np.zeros(20, bool)
    assert "right on the same pictures" in bodies.which_is_better(names, [right, right])
    few = right.copy()
    few[:3] = False
    said = bodies.which_is_better(names, [few, right])
    assert "ours on 0, theirs on 3 of 20 pictures." in said and "can't tell" in said
    assert "theirs is better here" in bodies.which_is_better(names, [wrong, right])
    assert "ours is better here" in bodies.which_is_better(names, [right, wrong])
    even = [np.arange(20) % 2 == 0, np.arange(20) % 2 == 1]  # many differ, but evenly
    assert "can't tell" in bodies.which_is_better(names, even)


def test_two_bodies_are_laid_side_by_side(learn, capsys):
    truth = rivals.class_numbers(learn.dls.valid_ds.items, learn.dls.vocab)
    right, wrong = torch.eye(2)[truth], torch.eye(2)[1 - truth]
    bodies.compare_bodies([learn, learn], [wrong, right], truth)
    lines = capsys.readouterr().out.splitlines()
    numbers = sum(p.numel() for p in learn.model.parameters())
    assert lines[0].startswith("resnet18: 0 of 8 right")
    assert lines[2].startswith("resnet18: 8 of 8 right")
    assert lines[1].startswith(f"    {numbers:,} numbers; ")
    assert lines[1].endswith(" s to look at 8 pictures.")
    assert "resnet18 on 0, resnet18 on 8 of 8 pictures." in lines[4]


# --- batch norms


def test_batch_norms_of_the_body_keep_still_while_it_is_frozen_and_learn_afterwards(learn):
    def batch_norms(model):
        names = {k.rsplit(".", 1)[0] for k in model.state_dict() if k.endswith("running_mean")}
        return {k: v.clone() for k, v in model.state_dict().items() if k.rsplit(".", 1)[0] in names}

    def changed(then, now, part):
        return [not torch.equal(now[k], v) for k, v in then.items() if k.startswith(part)]

    learn = vision_learner(learn.dls, resnet18, cbs=OURS, pretrained=False)
    learn.freeze()  # which fastai does by itself only if the body has been trained
    stages = [batch_norms(learn.model)]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        stages.append(batch_norms(learn.model))
        learn.unfreeze()
        learn.fit(1, 1e-3)
        stages.append(batch_norms(learn.model))
    untouched, frozen, tuned = stages
    assert not any(changed(untouched, frozen, "0.")) and all(changed(untouched, frozen, "1."))
    assert all(changed(frozen, tuned, "0.")) and all(changed(frozen, tuned, "1."))
