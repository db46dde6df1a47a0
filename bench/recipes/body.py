"""The bundled body for recipes that don't use fastai."""

from pathlib import Path

from safetensors.torch import load_file
from torchvision.models import resnet34

WEIGHTS = Path(__file__).resolve().parent.parent.parent / "weights" / "resnet34-body.safetensors"
# What its pictures are made of: mean and standard deviation of red, green and blue.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def bundled_resnet34():
    """Return torchvision's resnet34 with the bundled body and an untrained last layer."""
    model = resnet34()
    missing, unknown = model.load_state_dict(load_file(WEIGHTS), strict=False)
    assert missing == ["fc.weight", "fc.bias"] and not unknown
    return model
