"""Fine-tune as PyTorch's own tutorial does.

"Transfer Learning for Computer Vision Tutorial" on docs.pytorch.org, its first scenario: random
crops, batches of 4, SGD at 0.001 that sinks to a tenth every 7 epochs, 25 epochs, float32; of all
epochs the best one is kept.
"""

import tempfile
from pathlib import Path

import joblib
import torch
from body import MEAN, SPREAD, bundled_resnet34
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

CHANGES = {
    "train": transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SPREAD),
        ]
    ),
    "valid": transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SPREAD),
        ]
    ),
}


def train(path, epochs, seed, notes):
    """Train all layers for `epochs[0]` epochs."""
    torch.manual_seed(seed)
    workers = min(4, joblib.cpu_count())  # the tutorial's 4, where there are so many cores
    pictures = {split: datasets.ImageFolder(path / split, CHANGES[split]) for split in CHANGES}
    loaders = {
        split: DataLoader(found, batch_size=4, shuffle=True, num_workers=workers)
        for split, found in pictures.items()
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = bundled_resnet34()
    model.fc = nn.Linear(model.fc.in_features, len(pictures["train"].classes))
    model = model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best = -1
    kept = Path(tempfile.mkdtemp()) / "best.pt"
    for _ in range(epochs[0]):
        model.train()
        for inputs, labels in loaders["train"]:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, labels in loaders["valid"]:
                inputs, labels = inputs.to(device), labels.to(device)
                right += (model(inputs).argmax(1) == labels).sum().item()
        notes(right, len(pictures["valid"]))
        if right > best:
            best = right
            torch.save(model.state_dict(), kept)
    model.load_state_dict(torch.load(kept))
