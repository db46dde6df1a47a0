"""The bundled body: the file is whole, is a resnet34, and its features have not collapsed."""

import hashlib

import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision import transforms
from torchvision.models import resnet34

WEIGHTS = ROOT / "weights"
FILE = WEIGHTS / "resnet34-body.safetensors"


@pytest.fixture(scope="module")
def state():
    """The tensors of the bundled file by name."""
    with safe_open(FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def body(state):
    """The bundled body in float32, ready to give features."""
    model = resnet34()
    model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    model.fc = nn.Identity()
    return model.eval()


def test_checksum():
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert (WEIGHTS / "SHA256SUMS").read_text().split() == [digest, FILE.name]


def test_size():
    assert 40e6 < FILE.stat().st_size < 45e6


def test_names_and_shapes_are_those_of_resnet34(state):
    expected = {
        name: value.shape
        for name, value in resnet34().state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    assert {name: value.shape for name, value in state.items()} == expected


def test_number_formats(state):
    for name, value in state.items():
        assert value.dtype == (torch.float16 if value.ndim == 4 else torch.float32), name
        assert value.is_contiguous(), name


def test_all_numbers_are_finite_and_no_variance_is_negative(state):
    for name, value in state.items():
        assert value.float().isfinite().all(), name
        if name.endswith("running_var"):
            assert (value > 0).all(), name


def test_the_file_says_what_it_is():
    with safe_open(FILE, "pt") as file:
        about = file.metadata()
    assert about["architecture"].startswith("torchvision resnet34")
    assert int(about["samples_seen"]) > 100_000


def test_the_card_names_the_file_and_its_checksum():
    card = (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert FILE.name in card
    assert (WEIGHTS / "SHA256SUMS").read_text().split()[0] in card


@torch.no_grad()
def test_features_have_not_collapsed(body):
    files = sorted((ROOT / "imgs" / "train").glob("*/*.jpg"))[::6]
    if len(files) < 30:
        pytest.skip("imgs/train holds too few pictures to judge features by")
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    pictures = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])
    features = body(pictures).double()
    energy = torch.linalg.svdvals(features - features.mean(0)).square()
    share = energy / energy.sum()
    rank = torch.exp(-(share * torch.log(share + 1e-12)).sum())  # Roy and Vetterli, 2007
    assert rank > 5
