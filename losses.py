"""How the losses of a step's tasks become one update.

The losses of a step are a vector with one loss for each pair of images and head. One object turns them into
gradients. To form them in another way, write a class with a `forward` of its own and name it in COMBINATIONS
here and, with a few words for the help, in LOSSES of settings.py.
"""

from torch import Tensor, nn


class Combination(nn.Module):
    """Makes one loss of those of a step's tasks: here their weighted sum.

    Its parameters, if it has any, are trained along with the network; its state dict is saved and resumed.
    """

    def __init__(self, num_heads: int) -> None:
        """
        Args:
            num_heads: number of heads of the network.
        """
        super().__init__()

    def forward(self, losses: Tensor, weights: Tensor) -> Tensor:
        """What is minimised: a single number, float32.

        Args:
            losses: float32, P: the mean cross-entropy of each pair of images and head of a step. In setting 5
                these are the heads, in order.
            weights: float32, P, summing to 1: what each of them weighs by the definition of the setting.
        """
        return losses @ weights

    def backward(self, losses: Tensor, weights: Tensor, features: Tensor) -> None:
        """Give every parameter that takes part its gradient.

        Args:
            losses: as in `forward`.
            weights: as in `forward`.
            features: float32, B x features: what the encoder made of the batch, and the losses come from.
        """
        self(losses, weights).backward()


COMBINATIONS = {"mean": Combination}
"""The class behind each name of LOSSES."""
