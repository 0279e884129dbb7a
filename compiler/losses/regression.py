"""How far are predictions from numbers? Squared error and bitwise cross-entropy, against fields and images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.losses.kind import LossFunction, Options, Sight, reduced
from lpc.compiler.setting import Setting, Shape, static


def _scaled(prediction: Tensor, options: Options) -> Tensor:
    scale = float(options["scale"])
    return prediction if scale == 1.0 else scale * prediction


def mse(options: Options, setting: Setting) -> LossFunction:
    reduction = str(options["reduction"])

    def loss(sight: Sight) -> Tensor:
        prediction = sight.prediction
        difference = _scaled(prediction, options) - sight.truth.reshape(prediction.shape).to(prediction.dtype)
        return reduced(difference * difference, reduction)

    return loss


def binary_cross_entropy(options: Options, setting: Setting) -> LossFunction:
    reduction = str(options["reduction"])
    function = F.binary_cross_entropy_with_logits if options["logits"] else F.binary_cross_entropy

    def loss(sight: Sight) -> Tensor:
        prediction = sight.prediction
        truth = sight.truth.reshape(prediction.shape).to(prediction.dtype)
        return reduced(function(_scaled(prediction, options), truth, reduction="none"), reduction)

    return loss


def recon(options: Options, setting: Setting) -> LossFunction:
    """Return the loss of a decoded image; the sigmoid that ends InfoPro's decoder is in here, with the logarithm."""
    distance = F.binary_cross_entropy_with_logits if options["distance"] == "bce" else F.mse_loss

    def loss(sight: Sight) -> Tensor:
        prediction = sight.prediction
        original = _original(sight.truth.to(prediction.dtype), options["mean"], options["std"])
        return distance(prediction, original.reshape(prediction.shape))

    return loss


def recon_input(options: Options, setting: Setting) -> LossFunction:
    """Return the squared error of what is decoded of a block's input, which is a constant to the loss."""

    def loss(sight: Sight) -> Tensor:
        prediction = sight.prediction
        return F.mse_loss(prediction, sight.truth.detach().reshape(prediction.shape).to(prediction.dtype))

    return loss


def inverse(options: Options, setting: Setting) -> LossFunction:
    """Return the squared distance of what is taken back to what was there, summed over units, its mean over samples.

    In training the step gives it the block's output of a noisy input as the feature, and that input as the target.
    """

    def loss(sight: Sight) -> Tensor:
        there = sight.truth.detach()
        back = sight.prediction.reshape(there.shape).to(there.dtype)
        return reduced((back - there).square(), "batchmean")

    return loss


def _original(image: Tensor, mean: float | list[float], std: float | list[float]) -> Tensor:
    """Undo a normalisation, for all channels at once or one by one (a plan holds no constant tensors)."""
    if not isinstance(mean, list) and not isinstance(std, list):
        return image * std + mean
    count = image.shape[1]
    means, stds = (v if isinstance(v, list) else [v] * count for v in (mean, std))
    if len(means) != count or len(stds) != count:
        raise ValueError(f"`mean` and `std` need one number, or one for each of {count} channels")
    return torch.cat([image[:, c : c + 1] * stds[c] + means[c] for c in range(count)], 1)


def elements(target: Shape, output: Shape) -> int:
    """One output for each number of a sample's target."""
    count = 1
    for size in target:
        count *= static(size)
    return count
