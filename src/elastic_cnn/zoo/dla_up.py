"""DLA-Up: semantic segmentation with DLA's iterative deep aggregation decoder (Yu et al., arXiv 1707.06484; paper,
section 4.3).

The outputs of the levels 1 to 5 (strides 2 to 32) are aggregated row by row. A row brings every coarser map up to one
level: each is projected to the level's channels, enlarged by 2 and merged, one after another, with what is there.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.nn.resample import crop

FIRST_LEVEL = 1  # the finest level that the decoder takes, of stride 2


def bilinear_kernel(channels: int) -> Tensor:
    """Weights `(channels, 1, 4, 4)` with which a transposed convolution of stride 2 interpolates bilinearly."""
    tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
    return (tent[:, None] * tent[None, :]).repeat(channels, 1, 1, 1)


def _convolve(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _enlarge(channels: int) -> nn.ConvTranspose2d:
    up = nn.ConvTranspose2d(channels, channels, 4, 2, 1, groups=channels, bias=False)
    with torch.no_grad():
        up.weight.copy_(bilinear_kernel(channels))
    return up


class FixedUpsample(nn.Module):
    """Enlarges `(N, channels, H, W)` to `(N, channels, 2 H, 2 W)` by a transposed convolution that is not trained."""

    weight: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.register_buffer("weight", bilinear_kernel(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, None, 2, 1, groups=self.channels)


class AggregationRow(nn.Module):
    """Merges maps into the first of them, one after another.

    Takes maps of `in_channels` channels: the first `(N, out_channels, H, W)`, all others of half its height and width,
    rounded up. Returns what stands after each merger, every one `(N, out_channels, H, W)`.
    """

    def __init__(self, out_channels: int, in_channels: Sequence[int]):
        super().__init__()
        self.projects = nn.ModuleList(_convolve(channels, out_channels, 1) for channels in in_channels[1:])
        self.ups = nn.ModuleList(_enlarge(out_channels) for _ in in_channels[1:])
        self.nodes = nn.ModuleList(_convolve(2 * out_channels, out_channels, 3) for _ in in_channels[1:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = maps[0]
        height, width = x.shape[-2:]
        merged = []
        for low, project, up, node in zip(maps[1:], self.projects, self.ups, self.nodes, strict=True):
            enlarged = crop(up(project(low)), height, width)
            x = node(torch.cat((x, enlarged), 1))
            merged.append(x)
        return merged


class DLAUp(nn.Module):
    """The decoder: maps of `channels[i]` channels at strides 2, 4, 8, ... -> one of `channels[0]` at stride 2."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.rows = nn.ModuleList()
        present = list(channels)
        for level in range(len(channels) - 2, -1, -1):  # from the coarsest map but one to the finest
            self.rows.append(AggregationRow(channels[level], present[level:]))
            present[level:] = [channels[level]] * len(present[level:])

    def forward(self, maps: list[Tensor]) -> Tensor:
        maps = list(maps)
        for i, row in enumerate(self.rows):
            level = len(maps) - 2 - i
            maps[level + 1 :] = row(maps[level:])
        return maps[-1]


class DLASegmentation(nn.Module):
    """Images `(N, in_chans, H, W)` of any height and width -> logits `(N, num_classes, H, W)`.

    backbone: a DLA without classifier that takes any size (`AnySizeDLA`), elastic or not.
    """

    def __init__(self, backbone: Any, num_classes: int = 21):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        channels = list(backbone.channels[FIRST_LEVEL:])
        self.decoder = DLAUp(channels)
        self.classifier = nn.Conv2d(channels[0], num_classes, 1)
        self.upsample = FixedUpsample(num_classes)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training computes the backbone's inner activations again when they are needed."""
        self.backbone.set_grad_checkpointing(enable)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return crop(self._logits(x), height, width)

    def _logits(self, x: Tensor) -> Tensor:  # (N, num_classes, H, W), H and W rounded up to even numbers
        levels = list(range(FIRST_LEVEL, len(self.backbone.channels)))
        maps = self.backbone.forward_intermediates(x, levels, intermediates_only=True)
        return self.upsample(self.classifier(self.decoder(maps)))

    def released_output(self, images: Tensor) -> Tensor:
        """What the released code returns for the same images: log-probabilities without the last row and column of the
        size rounded up to even numbers; `(N, num_classes, H, W)` for odd H and W, one less for even ones."""
        return self._logits(images).log_softmax(1)[..., :-1, :-1]
