"""The network that is imitated: EfficientNet-Lite0, trained on ImageNet's photos."""

import torch
import torch.nn.functional as F
from torch import nn

from tutorial import efficientnet_lite0

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = {"layer2": 40, "layer3": 112, "layer4": 320, "head": 1280}
STRIDES = {"layer2": 8, "layer3": 16, "layer4": 32, "head": 32}
STAGES = {2: "layer2", 4: "layer3", 6: "layer4"}  # of the network's seven


class Teacher(nn.Module):
    """What a student of another size is to say of the same scenes.

    Parameters
    ----------
    student_side : int
        Side of the student's pictures in pixels: the maps are averaged to its maps' sizes.
    """

    def __init__(self, student_side):
        super().__init__()
        self.net = efficientnet_lite0(weights="DEFAULT").eval().requires_grad_(False)
        self.sides = {name: student_side // stride for name, stride in STRIDES.items()}

    def forward(self, x):
        """Maps at strides 8, 16 and 32, the last map, class scores.

        Parameters
        ----------
        x : Tensor, shape (n, 3, side, side)
            Normalised with `MEAN` and `STD`.

        Returns
        -------
        list of Tensor
            In the order of `CHANNELS`, shapes (n, channels, side, side); then (n, 1000).
        """
        net, maps = self.net, {}
        x = net.bn1(net.conv_stem(x))
        for i, stage in enumerate(net.blocks):
            x = stage(x)
            if i in STAGES:
                maps[STAGES[i]] = x
        maps["head"] = net.bn2(net.conv_head(x))
        scores = net.classifier(maps["head"].mean((2, 3)))
        return [F.adaptive_avg_pool2d(maps[n], self.sides[n]) for n in CHANNELS] + [scores]


def compiled(teacher, batch, side):
    """The same function for one shape of batch, five times as fast on a processor (OpenVINO)."""
    import openvino

    example = torch.zeros(batch, 3, side, side)
    model = openvino.convert_model(teacher, example_input=example, input=list(example.shape))
    hints = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    run = openvino.Core().compile_model(model, "CPU", hints)
    return lambda x: [torch.from_numpy(out.copy()) for out in run(x.numpy()).values()]
