"""The bundled body: the stored file is whole, its card is its own, its features tell apart."""

import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision import transforms

from tutorial.backbone import BUNDLED, resnet34


@pytest.fixture(scope="module")
def body():
    """The bundled body, which is loaded only if checksum, names and shapes are right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BODY", "bundled")
        model = resnet34(weights="DEFAULT")
    model.fc = nn.Identity()
    return model.eval()


def test_the_file_is_small_and_its_card_names_it():
    card = BUNDLED.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    digest, name = BUNDLED.with_name("SHA256SUMS").read_text().split()
    assert digest in card and name in card
    assert BUNDLED.stat().st_size < 45e6
    with safe_open(BUNDLED, "pt") as file:
        assert "resnet34" in file.metadata()["architecture"]
        formats = {(t.ndim == 4, t.dtype) for t in map(file.get_tensor, file.keys())}
    assert formats == {(True, torch.float16), (False, torch.float32)}


def test_all_weights_are_finite_and_all_variances_positive(body):
    for name, t in body.state_dict().items():
        assert t.isfinite().all(), name
        assert not name.endswith("running_var") or (t > 0).all(), name


@torch.no_grad()
def test_features_have_not_collapsed(body):
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    files = sorted((ROOT / "imgs" / "train").glob("*/*.jpg"))[::9]
    features = body(torch.stack([prepare(Image.open(file)) for file in files])).double()
    energy = torch.linalg.svdvals(features - features.mean(0)).square()
    share = energy / energy.sum()
    rank = torch.exp(-(share * torch.log(share + 1e-12)).sum())  # Roy and Vetterli, 2007
    assert rank > 5
