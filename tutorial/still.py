"""Keep the batch norms of a borrowed body as they were learned."""

from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze
from fastai.torch_core import get_model
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["StillBatchNorm"]


class StillBatchNorm(Callback):
    """Let the body's batch norms use the averages that they came with, in every training.

    A batch norm in training measures the mean and spread of each batch anew. That takes large
    batches; with 16 pictures the measures waver, and the body's later layers no longer meet the
    numbers that they were taught on. fastai's `BnFreeze` does the same for frozen layers only;
    this one goes on when the body is unfrozen. (Scale and shift may then learn, as all else.)
    """

    run_after = BnFreeze.run_after  # after fastai has put the model into training mode

    def before_train(self):
        body = get_model(self.model)[0]  # with several processes the model is wrapped
        for module in body.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
