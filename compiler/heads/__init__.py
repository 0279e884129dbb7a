"""Which local heads are there? One table: name -> the module from a block's output to the loss's prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lpc.compiler.heads import copies, networks, scores, shared, steps
from lpc.compiler.setting import Setting

HeadBuilder = Callable[[Setting, Mapping[str, Any]], nn.Module | None]

# None stands for the identity. A builder raises ValueError for a block or a loss that the head does not fit.
HEADS: dict[str, HeadBuilder] = {
    "identity": scores.identity,
    "linear": scores.linear,
    "gap_linear": scores.gap_linear,
    "pool_linear": scores.pool_linear,
    "mlp": networks.mlp,
    "mlp_sr": networks.mlp_sr,
    "cnn": networks.cnn,
    "convs_fcs": networks.convs_fcs,
    "aug": copies.aug,
    "shared_readout": shared.shared_readout,
    "token": scores.token,
    "class_channels": scores.class_channels,
    "linear_map": scores.linear_map,
    "conv3x3_map": scores.conv3x3_map,
    "square_map": scores.square_map,
    "nce_maps": steps.nce_maps,
    "simclr_mlp": networks.simclr_mlp,
    "decoder": networks.decoder,
    "transposed_decoder": networks.transposed_decoder,
    "back_map": scores.back_map,
}
