"""Fine-tune with Hugging Face's Trainer.

The task guide "Image classification" of the Transformers documentation: random crops, batches of
16 of which four make a step, AdamW at 0.00005 that rises for a tenth of the way and then sinks,
3 epochs, a checkpoint after each and the best one loaded at the end. Its ViT gives way to our body.
"""

import tempfile

import numpy as np
from body import MEAN, SPREAD, bundled_resnet34
from torch import nn
from torchvision import datasets, transforms
from transformers import DefaultDataCollator, Trainer, TrainingArguments, set_seed

CHANGES = {
    "train": transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SPREAD),
        ]
    ),
    "valid": transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SPREAD),
        ]
    ),
}


class Pictures(datasets.ImageFolder):
    """Pictures under the names that Trainer expects."""

    def __getitem__(self, i):
        picture, label = super().__getitem__(i)
        return {"pixel_values": picture, "labels": label}


class Model(nn.Module):
    """A resnet34 that tells its loss, as Transformers' own models do."""

    def __init__(self, classes):
        super().__init__()
        self.net = bundled_resnet34()
        self.net.fc = nn.Linear(self.net.fc.in_features, classes)

    def forward(self, pixel_values, labels):
        logits = self.net(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(path, epochs, seed, notes):
    """Train all layers for `epochs[0]` epochs."""
    set_seed(seed)
    train_set, valid_set = (Pictures(path / split, change) for split, change in CHANGES.items())

    def compute_metrics(found):
        right = (np.argmax(found.predictions, axis=1) == found.label_ids).sum()
        notes(right, len(valid_set))
        return {"accuracy": right / len(valid_set)}

    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            remove_unused_columns=False,
            eval_strategy="epoch",
            save_strategy="epoch",
            learning_rate=5e-5,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=4,
            per_device_eval_batch_size=16,
            num_train_epochs=epochs[0],
            warmup_steps=0.1,  # below 1: a share of all steps
            logging_steps=10,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = Trainer(
            model=Model(len(train_set.classes)),
            args=args,
            data_collator=DefaultDataCollator(),
            train_dataset=train_set,
            eval_dataset=valid_set,
            compute_metrics=compute_metrics,
        )
        trainer.train()
