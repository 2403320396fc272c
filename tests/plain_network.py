"""A network of the kind that every tutorial has: it is of no family that a rule knows."""

from torch import nn


def plain(**_: object) -> nn.Module:
    """VGG's kind: three stages of two convolutions, each closed by pooling; (N, 3, H, W) -> (N, 4)."""
    layers: list[nn.Module] = []
    for before, width in ((3, 8), (8, 12), (12, 16)):
        for channels in (before, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
