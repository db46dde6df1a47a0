"""The generator behind the bundled body: repeatable, labelled, and never one of the two robots."""

import argparse
import dataclasses
import sys

import numpy as np
import pytest
from conftest import ROOT

for needed in ("numba", "cv2", "skia"):
    pytest.importorskip(
        needed,
        reason=f"{needed} is missing; tools/pretrain_body/requirements.txt has what the generator "
        "needs, and the tutorial works without it",
    )
sys.path.insert(0, str(ROOT / "tools" / "pretrain_body"))

import creatures  # noqa: E402
import evaluate  # noqa: E402
import scenes  # noqa: E402
import schedules  # noqa: E402
import torch  # noqa: E402
import train  # noqa: E402

from bench import limit  # noqa: E402


def source(seed=0):
    return scenes.SceneSource(seed, creatures=64, backgrounds=12)


@pytest.fixture(scope="module")
def batch():
    return source().batch(32, 64)


def test_same_seed_gives_same_pictures(batch):
    pictures, labels, fine, coarse = source().batch(32, 64)
    # Compilers may round differently, so a few levels of 255 are allowed, but not other pictures.
    assert np.abs(pictures - batch[0]).mean() < 1
    np.testing.assert_array_equal(labels, batch[1])
    np.testing.assert_allclose(fine, batch[2], atol=0.1)


def test_another_seed_gives_other_pictures(batch):
    assert np.abs(source(1).batch(32, 64)[0] - batch[0]).mean() > 20


def test_shapes_and_ranges(batch):
    pictures, labels, fine, coarse = batch
    assert pictures.shape == (64, 64, 64, 3) and pictures.dtype == np.float32
    assert pictures.min() >= 0 and 200 < pictures.max() <= 255
    assert fine.shape == (64, 4, 4, scenes.DESCRIPTORS + 2)
    assert coarse.shape == (64, 2, 2, scenes.DESCRIPTORS + 2)
    assert np.isfinite(fine).all() and fine.min() >= 0 and coarse.max() < 1.001


def test_labels_are_in_range(batch):
    labels = batch[1]
    assert labels.shape == (64, len(scenes.LABELS))
    for column, (name, classes) in zip(labels.T, scenes.LABELS.items(), strict=True):
        known = column[column != scenes.IGNORE]
        assert known.min() >= 0 and known.max() < classes, name


def test_two_halves_show_the_same_creatures_in_other_pictures(batch):
    pictures, labels = batch[:2]
    own = len(scenes.CREATURE_LABELS)
    same = (labels[:32, :own] == labels[32:, :own]) | (labels[:32, :own] == scenes.IGNORE)
    same |= labels[32:, :own] == scenes.IGNORE
    assert same.all()
    assert np.abs(pictures[:32] - pictures[32:]).mean((1, 2, 3)).min() > 1


def test_half_of_the_creatures_share_their_colours(batch):
    hues = [list(scenes.LABELS).index(k) for k in ("hue_0", "value_0", "hue_1", "value_1")]
    related = batch[1][:16, hues].reshape(2, 8, 4)
    for family in related:
        known = family[(family != scenes.IGNORE).all(1)]
        assert (known == known[0]).all()


def test_descriptors_of_a_plain_red_picture():
    red = np.zeros((1, 64, 64, 3), np.float32)
    red[..., 0] = 250
    cover = np.zeros((1, 64, 64, 2), np.float32)
    cover[:, :16, :16, 0] = 1
    fine, coarse = scenes.describe(red, cover)
    # hue bin 0 of 8, saturation 3 of 4, value 3 of 4; no edge; one of four cells is covered
    assert (fine[..., 15] == 1).all() and (np.delete(fine[..., :144], 15, -1) == 0).all()
    assert fine[0, 0, 0, 144] == 1 and fine[0, 1, 1, 144] == 0
    assert coarse[0, 0, 0, 144] == pytest.approx(0.25)


def test_descriptors_know_the_direction_of_an_edge():
    picture = np.zeros((1, 32, 32, 3), np.float32)
    picture[:, :, 8:] = 200  # gets lighter to the right: direction 0, bin 8 of 16
    cover = np.zeros((1, 32, 32, 2), np.float32)
    fine = scenes.describe(picture, cover)[0]
    assert fine[0, 0, 0, 128:144].argmax() == 8
    assert fine[0, 0, 1, 128:144].max() == 0


# --- no picture of the two robots


def creature_with(palette, **labels):
    """A creature whose labels and palette are set by hand."""
    rng = np.random.default_rng(0)
    drawn = creatures.draw_creature(rng, creatures.draw_palette(rng))
    plain = dict.fromkeys(drawn.labels, 0)
    return dataclasses.replace(
        drawn,
        palette=np.array(palette, float),
        labels=plain | labels,
        head_colour=0,
        face_colour=-1,
        nose_colour=-1,
    )


BLUE, YELLOW, RED, WHITE, GREEN = (
    (0, 0.4, 0.9),
    (0.9, 0.6, 0.1),
    (0.8, 0, 0),
    (1, 1, 1),
    (0, 0.7, 0),
)


def test_the_robot_cat_is_rejected():
    cat = creature_with([BLUE, WHITE, RED, WHITE, WHITE], head=creatures.ELLIPSOID)
    assert creatures.is_replica(dataclasses.replace(cat, face_colour=1))
    assert creatures.is_replica(dataclasses.replace(cat, nose_colour=2))
    assert creatures.is_replica(dataclasses.replace(cat, face_colour=1, nose_colour=2))
    headless = dataclasses.replace(cat, head_colour=-1, face_colour=1)
    headless.labels.update(head=creatures.NO_HEAD, body=creatures.ELLIPSOID)
    assert creatures.is_replica(headless)


@pytest.mark.parametrize("paint", [YELLOW, (0.6, 0.4, 0.2), (0.9, 0.9, 0.2)])
@pytest.mark.parametrize("part", [{"eyes": creatures.TUBE_EYES}, {"moves_on": creatures.TRACKS}])
def test_the_tracked_robot_is_rejected(paint, part):
    robot = creature_with([paint, WHITE, RED, WHITE, WHITE], body=creatures.BOX, **part)
    assert creatures.is_replica(robot)


def test_their_neighbours_are_not():
    cat = creature_with([BLUE, WHITE, RED, WHITE, WHITE], head=creatures.ELLIPSOID)
    assert not creatures.is_replica(cat)  # blue and round, but neither face nor nose
    green = creature_with([GREEN, WHITE, RED, WHITE, WHITE], head=creatures.ELLIPSOID)
    assert not creatures.is_replica(dataclasses.replace(green, face_colour=1, nose_colour=2))
    colours = [GREEN, WHITE, RED, WHITE, WHITE]
    for part in ({"eyes": creatures.TUBE_EYES}, {"moves_on": creatures.TRACKS}):
        assert not creatures.is_replica(creature_with(colours, body=creatures.BOX, **part))


def test_without_colour_they_are_rejected_too():
    colours = [GREEN, GREEN, GREEN, WHITE, WHITE]
    cat = creature_with(colours, head=creatures.ELLIPSOID, belly_patch=1)
    assert creatures.is_replica(dataclasses.replace(cat, face_colour=1, nose_colour=1))
    assert not creatures.is_replica(dataclasses.replace(cat, nose_colour=1))
    parts = {"eyes": creatures.TUBE_EYES, "moves_on": creatures.TRACKS}
    assert creatures.is_replica(creature_with(colours, body=creatures.BOX, **parts))


@pytest.mark.parametrize("paint", [BLUE, YELLOW])
def test_no_creature_drawn_in_their_colours_is_a_replica(paint):
    rng = np.random.default_rng(3)
    palette = np.array([paint, WHITE, RED, WHITE, (0.1, 0.1, 0.1)])
    drawn = [creatures.draw_creature(rng, palette) for _ in range(400)]
    assert not any(creatures.is_replica(c) for c in drawn)
    # and the rule had something to reject
    any_at_all = [creatures._draw_any(rng, palette) for _ in range(400)]
    assert sum(creatures.is_replica(c) for c in any_at_all) > 10


def test_redundancy_is_small_only_where_features_are_independent():
    torch.manual_seed(0)
    z = torch.randn(1000, 20)
    assert float(train.redundancy_loss(z)) == pytest.approx(1 / 1000, rel=0.3)
    assert float(train.redundancy_loss(5 + 3 * z)) == pytest.approx(
        float(train.redundancy_loss(z)), rel=1e-3
    )
    assert float(train.redundancy_loss(z[:, :1] * torch.ones(20))) == pytest.approx(1, abs=1e-3)
    assert float(train.redundancy_loss(z[:, :2].repeat(1, 10))) > 0.4


def test_rows_after_the_checkpoint_are_dropped_on_going_on(tmp_path):
    log = tmp_path / "training.csv"
    log.write_text("minutes,samples\n1.000,5\n2.000,9\n2.500,12\n")
    train.forget_after(log, 2.0)
    assert log.read_text() == "minutes,samples\n1.000,5\n2.000,9\n"


def test_a_schedule_is_epochs_and_rates():
    assert schedules.schedule("2,3e-3") == (2, 3e-3, [])
    assert schedules.schedule("3,1e-5,3e-4") == (3, slice(1e-5, 3e-4), [])
    still = (3, slice(1e-5, 3e-4), [schedules.StillBatchNorm])
    assert schedules.schedule("3,1e-5,3e-4,still") == still
    for text in ("3", "still", "3,still", "3,1e-5,3e-4,1e-3", "three,1e-3", "3,fast"):
        with pytest.raises(ValueError):
            schedules.schedule(text)


def test_without_options_a_body_is_measured_with_the_notebooks_schedule():
    parser = argparse.ArgumentParser()
    evaluate.add_plan(parser)
    plan = parser.parse_args([])
    assert (plan.head_epochs, plan.epochs) == (limit.HEAD, limit.ALL)
    assert (plan.head_rate, slice(*plan.rates)) == limit.RATES


def test_the_table_of_schedules_takes_means_over_fifths_and_seeds():
    rows = [[(0.1, 1.0), (0.3, 0.8)], [(0.2, 0.9), (0.2, 0.7)]]
    assert schedules.markdown({"2,3e-3": rows}).endswith("| 2,3e-3 | 85.0% | 5.0% | 0.200 |")
    assert "| - |" in schedules.markdown({"2,3e-3": rows[:1]})


def test_a_picture_is_met_in_another_look_but_with_its_own_label():
    looks, labels = torch.arange(12).view(3, 4, 1), torch.arange(4)
    pictures = schedules.Augmented(looks, labels)
    for i in range(len(pictures)):
        met = [pictures[i] for _ in range(60)]
        assert {int(x) for x, _ in met} == {i, i + 4, i + 8} and {int(y) for _, y in met} == {i}
