"""What is the LocalMixer? An MLP mixer whose channels fall into groups that meet in one layer of each block.

Ren, Kornblith, Liao and Hinton 2023, "Scaling Forward Gradient With Local Losses" (arXiv 2210.03310), section 4.
Every linear map is a module of its own with a layer norm, without scale or shift, after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lpc.compiler.frontend.modules import GroupedLinear, Patches

# fan-in -> standard deviation of a weight
SCALES: dict[str, Callable[[int], float]] = {
    "kaiming": lambda fan_in: min(2.0 / math.sqrt(fan_in), 0.1),
    "lecun": lambda fan_in: min(1.0 / math.sqrt(fan_in), 0.1),
    "constant": lambda fan_in: 0.1,
}


class LocalMixer(nn.Module):
    """[batch, *image] -> [batch, classes]; blocks hand on [batch, patches, groups, channels of a group].

    `image` is [colours, height, width], cut into `side` patches along each axis. `pre_norm` puts a layer norm before
    every linear map too, `readout_norm` one before the readout. The readout's weights begin at 0.
    """

    def __init__(
        self,
        image: Sequence[int] = (3, 32, 32),
        side: int = 8,
        blocks: int = 4,
        channels: int = 512,
        groups: int = 16,
        classes: int = 10,
        pre_norm: bool = True,
        readout_norm: bool = True,
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        if len(image) != 3:
            raise ValueError(f"`image` is [channels, height, width], found {list(image)}")
        colours, height, width = image
        ensure_divides(side, height, "rows", "patches")
        ensure_divides(side, width, "columns", "patches")
        ensure_divides(groups, channels, "channels", "groups")
        size = (height // side, width // side)
        self.patches = Patches(size)
        first = EmbeddingBlock(colours * math.prod(size), channels, groups, pre_norm)
        later = [MixingBlock(side * side, channels, groups, pre_norm) for _ in range(blocks - 1)]
        self.blocks = nn.ModuleList([first, *later])
        self.readout = Readout(channels, classes, readout_norm)
        draw_weights(self, SCALES[init])

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image)
        for block in self.blocks:
            x = block(x)
        return self.readout(x)  # type: ignore[no-any-return]


class EmbeddingBlock(nn.Module):
    """The first block, without mixing of patches and without a residual: [batch, patches, pixels] -> groups."""

    def __init__(self, pixels: int, channels: int, groups: int, pre_norm: bool) -> None:
        super().__init__()
        width = channels // groups
        self.before_fc = norm(pixels, pre_norm)
        self.fc = nn.Linear(pixels, channels)
        self.fc_norm = norm(channels)
        self.fc_relu = nn.ReLU()
        self.split = nn.Unflatten(-1, (groups, width))
        self.before_group_fc = norm(width, pre_norm)
        self.group_fc = GroupedLinear(groups, width, width)
        self.group_fc_norm = norm(width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc_relu(self.fc_norm(self.fc(self.before_fc(x))))
        return self.relu(self.group_fc_norm(self.group_fc(self.before_group_fc(self.split(h)))))  # type: ignore[no-any-return]


class MixingBlock(nn.Module):
    """A later block: patches mix, then all channels, then the channels of each group; the input is added at last."""

    def __init__(self, patches: int, channels: int, groups: int, pre_norm: bool) -> None:
        super().__init__()
        width = channels // groups
        self.join = nn.Flatten(2)
        self.before_token = norm(channels, pre_norm)
        self.token = nn.Linear(patches, patches)
        self.token_norm = norm(channels)
        self.token_relu = nn.ReLU()
        self.before_fc = norm(channels, pre_norm)
        self.fc = nn.Linear(channels, channels)
        self.fc_norm = norm(channels)
        self.fc_relu = nn.ReLU()
        self.split = nn.Unflatten(-1, (groups, width))
        self.before_group_fc = norm(width, pre_norm)
        self.group_fc = GroupedLinear(groups, width, width)
        self.group_fc_norm = norm(width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.before_token(self.join(x)).transpose(1, 2)
        h = self.token_relu(self.token_norm(self.token(h).transpose(1, 2)))
        h = self.fc_relu(self.fc_norm(self.fc(self.before_fc(h))))
        h = self.group_fc_norm(self.group_fc(self.before_group_fc(self.split(h))))
        return self.relu(h + x)  # type: ignore[no-any-return]


class Readout(nn.Module):
    """The mean over patches, a layer norm over all channels, a linear map that starts at 0."""

    def __init__(self, channels: int, classes: int, before: bool) -> None:
        super().__init__()
        self.norm = norm(channels, before)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x.mean(1).flatten(1)))  # type: ignore[no-any-return]


def norm(width: int, wanted: bool = True) -> nn.Module:
    return nn.LayerNorm(width, elementwise_affine=False) if wanted else nn.Identity()


def ensure_divides(parts: int, length: int, of: str, into: str) -> None:
    if length % parts:
        raise ValueError(f"{length} {of} cannot be divided into {parts} {into}")


def draw_weights(network: LocalMixer, scale: Callable[[int], float]) -> None:
    """Draw all weights from normal laws and set biases, and the readout, to 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | GroupedLinear):
            nn.init.normal_(module.weight, std=scale(module.weight.shape[-1]))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.zeros_(network.readout.fc.weight)
