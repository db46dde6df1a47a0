"""Mixed precision on whatever device there is.

Recent GPUs and some CPUs multiply 16-bit numbers several times faster than 32-bit ones. Sums,
weights and the loss stay in 32 bits, so that small values are not lost (Micikevicius et al., "Mixed
Precision Training", 2018). fastai's own ``to_bf16`` does this on NVIDIA GPUs only.
"""

import joblib
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.torch_core import default_device
from fastcore.foundation import L
from torch.amp import GradScaler, autocast

__all__ = ["NativePrecision", "best_dtype", "describe_device", "native_precision"]


def native_precision():
    """Return a fastai callback that trains and predicts in the device's fastest precision.

    For example ``vision_learner(dls, resnet34, cbs=native_precision())``; after `fast_defaults`, in
    step 1, every learner has one. Predictions and losses are float32. The precision is chosen when
    a fit or a prediction starts, so an exported learner adapts to the machine that loads it.

    Returns
    -------
    NativePrecision
    """
    return NativePrecision()


class NativePrecision(MixedPrecision):
    """fastai's ``MixedPrecision`` with four differences.

    - It chooses the precision itself, and works on CPUs too.
    - Autocast is on during the forward pass only, so a run that is interrupted can't leave it on.
    - Pictures and weights are in channels-last order, which the fast kernels need.
    - If the learner gets another precision later, such as fastai's by ``to_fp16``, that one rules.
    """

    def __call__(self, event_name):
        mine = [cb for cb in self.learn.cbs if isinstance(cb, MixedPrecision)]
        if mine[-1] is self:
            return super().__call__(event_name)

    def before_fit(self):  # fastai sends this event before predictions as well
        device = next(self.model.parameters()).device
        self.dtype = best_dtype(device)
        # Only float16 needs its gradients scaled: bfloat16 has the range of float32.
        self.learn.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.scales = L()
        self.channels_last = device.type in ("cpu", "cuda")
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def before_batch(self):
        if self.channels_last:
            self.learn.xb = tuple(_channels_last(x) for x in self.xb)
        if self.dtype != torch.float32:
            device = next(self.model.parameters()).device
            _run_next_forward_in(self.model, autocast(device.type, dtype=self.dtype))

    def after_step(self):
        super().after_step()
        # fastai would set the gradients to zero and keep them, which takes memory and time.
        self.model.zero_grad(set_to_none=True)

    def after_loss(self):
        """Do nothing: autocast has ended already, so the loss is in float32."""


def describe_device():
    """Name the device and its precision, for the first sentences of step 1.

    Returns
    -------
    device, precision : str
        For example ``("CPU, 2 cores", "bfloat16 (AVX512-BF16)")``.
    """
    device = default_device()
    name = {torch.bfloat16: "bfloat16", torch.float16: "float16"}.get(best_dtype(device), "float32")
    if device.type == "cuda":
        return torch.cuda.get_device_name(device), name
    if device.type == "cpu":
        cores = joblib.cpu_count()  # it knows the quota of a container, too
        unit = _fast_bfloat16_unit()
        return f"CPU, {cores} core{'s' * (cores > 1)}", f"{name} ({unit})" if unit else name
    return "Apple GPU" if device.type == "mps" else device.type, name


def best_dtype(device):
    """Return the fastest dtype that `device` supports in hardware.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.dtype
        bfloat16, float16 (a GPU without bfloat16) or float32.
    """
    if device.type == "cuda":
        # A GPU that only emulates bfloat16 (Turing, such as the T4) is fast in float16.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and _fast_bfloat16_unit():
        return torch.bfloat16
    return torch.float32


def _fast_bfloat16_unit():
    """Name the instructions by which this CPU multiplies bfloat16; empty if it has none."""
    if not torch.backends.mkldnn.is_available():  # oneDNN, whose kernels use them
        return ""
    has = torch.cpu.get_capabilities()
    if has.get("amx_bf16"):
        return "AMX"
    return "AVX512-BF16" if has.get("avx512_bf16") else ""


def _channels_last(x):
    """Return a batch of pictures in channels-last order, anything else as it is."""
    if isinstance(x, torch.Tensor) and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _run_next_forward_in(model, context):
    """Make the next call of `model` run inside `context`, and only that one call."""
    before = vars(model).get("forward")

    def forward(*args, **kwargs):
        # Restore first, so that an error or a Ctrl-C below leaves no trace.
        if before is None:
            del model.forward
        else:
            model.forward = before
        with context:
            return model.forward(*args, **kwargs)

    model.forward = forward
