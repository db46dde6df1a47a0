"""Train the head, then all layers, as Keras' guide does, on its PyTorch backend.

"Transfer learning & fine-tuning" on keras.io: random flips and turns, batches of 64, Adam at 0.001
for the head (2 epochs) and at 0.00001 for all layers (1), the body in inference mode throughout,
the pictures decoded once and kept. The guide's Xception gives way to our body, and its 150 pixels
to 224.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
from body import MEAN, SPREAD, bundled_resnet34
from keras import layers
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class InInferenceMode(nn.Sequential):
    """A body whose batch norms keep their averages, as the guide wants it.

    There `training=False` sees to that; around a PyTorch module, `fit` overrides it.
    """

    def train(self, mode=True):
        return super().train(False)


def train(path, epochs, seed, notes):
    """Train the head for `epochs[0]` epochs, then all layers for `epochs[1]`."""
    keras.utils.set_random_seed(seed)
    keras.config.set_image_data_format("channels_first")
    change = transforms.Compose([transforms.Resize((224, 224)), transforms.PILToTensor()])
    train_set, valid_set = (datasets.ImageFolder(path / split, change) for split in SPLITS)
    train_ds = DataLoader(list(train_set), batch_size=64, shuffle=True)
    valid_ds = DataLoader(list(valid_set), batch_size=64)

    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    body = InInferenceMode(*list(bundled_resnet34().children())[:-2])
    base_model = layers.TorchModuleWrapper(body, output_shape=(None, 512, 7, 7))
    base_model.trainable = False
    inputs = keras.Input(shape=(3, 224, 224))
    x = augmentation(inputs)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Normalization(axis=1, mean=MEAN, variance=[s**2 for s in SPREAD])(x)
    x = base_model(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(len(train_set.classes))(x))

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for number, rate, trainable in zip(epochs, (1e-3, 1e-5), (False, True), strict=True):
        base_model.trainable = trainable
        model.compile(keras.optimizers.Adam(rate), loss=loss, metrics=["accuracy"])
        tell = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: notes(
                round(logs["val_accuracy"] * len(valid_set)), len(valid_set)
            )
        )
        model.fit(train_ds, epochs=number, validation_data=valid_ds, callbacks=[tell], verbose=0)


SPLITS = ("train", "valid")
