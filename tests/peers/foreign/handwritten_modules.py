"""Modules and networks as people write them, of which `handwritten_networks.py` makes cases."""

import functools
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

conv3 = functools.partial(nn.Conv2d, kernel_size=3, padding=1)


def unit(c_in: int, c_out: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> list[nn.Module]:
    return [conv3(c_in, c_out), norm(c_out), nn.ReLU()]


def plain(channels: int = 3, head: bool = True, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """Three stages of two units, the network of every tutorial."""
    layers: list[nn.Module] = []
    for c_in, c_out in ((channels, 16), (16, 32), (32, 64)):
        layers += [*unit(c_in, c_out, norm), *unit(c_out, c_out, norm), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)] if head else []))


def four(make=conv3) -> nn.Sequential:
    """Convolutions at two resolutions: the least that has a stage to convert."""
    down = make(16, 16, stride=2)
    return nn.Sequential(make(3, 16), nn.ReLU(), make(16, 16), nn.ReLU(), make(16, 16), nn.ReLU(), down, make(16, 8))


class Fixed(nn.Module):
    """Maps of a fixed size, flattened by view."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.features, self.head = plain(channels, head=False), nn.Linear(64 * (side // 8) ** 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.view(x.size(0), -1))


class NoPadding(nn.Module):
    def __init__(self, channels: int = 1):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(channels, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.b(F.relu(self.a(x)))), 2)
        return F.log_softmax(self.head(self.c(x).mean((2, 3))), 1)


class PadFirst(nn.Module):
    """Padding by a layer of its own, as image-to-image networks do."""

    def __init__(self, pad: Callable[[int], nn.Module]):
        super().__init__()
        valid = lambda a, b: [pad(1), nn.Conv2d(a, b, 3), nn.InstanceNorm2d(b), nn.ReLU()]  # noqa: E731
        self.layers = nn.Sequential(*valid(3, 16), *valid(16, 16), conv3(16, 32, stride=2), *valid(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Pair(nn.Module):
    def __init__(self, a: int, b: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.layers = nn.Sequential(*unit(a, b, norm), *unit(b, b, norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UNet(nn.Module):
    def __init__(self, channels: int = 3, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, widths=(16, 32, 64)):
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([Pair(channels, a, norm), Pair(a, b, norm), Pair(b, c, norm)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)])
        self.merge, self.head = nn.ModuleList([Pair(2 * b, b, norm), Pair(2 * a, a, norm)]), nn.Conv2d(a, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, merge, old in zip(self.up, self.merge, reversed(kept[:-1]), strict=True):
            x = up(x)
            x = F.pad(x, (0, old.shape[3] - x.shape[3], 0, old.shape[2] - x.shape[2]))
            x = merge(torch.cat([old, x], 1))
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__()
        self.first, self.second = conv3(a, b, stride=stride, bias=False), conv3(b, b, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(b), nn.BatchNorm2d(b)])
        self.shortcut = nn.Conv2d(a, b, 1, stride) if stride > 1 or a != b else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


def small_resnet() -> nn.Module:
    blocks = [Residual(16, 16), Residual(16, 16), Residual(16, 32, 2), Residual(32, 32), Residual(32, 64, 2)]
    return nn.Sequential(conv3(3, 16), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Reads(nn.Module):
    """A module around its convolutions; `use` says what it does with the second one."""

    def __init__(self, use: Callable[["Reads", Tensor], Tensor], kernel: int = 3):
        super().__init__()
        self.a, self.b = conv3(3, 16), nn.Conv2d(16, 16, kernel, padding=kernel // 2)
        self.down, self.last, self.use = conv3(16, 16, stride=2), conv3(16, 4), use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.down(self.use(self, F.relu(self.a(x))))))


def by_weight(owner: Reads, x: Tensor) -> Tensor:
    return F.conv2d(x, owner.b.weight, owner.b.bias, padding=1)


def by_dtype(owner: Reads, x: Tensor) -> Tensor:
    return owner.b(x.to(owner.b.weight.dtype))


def by_attributes(owner: Reads, x: Tensor) -> Tensor:
    assert (owner.b.out_channels, owner.b.stride, owner.b.groups) == (16, (1, 1), 1)
    return owner.b(x)[..., : x.shape[-2], : x.shape[-1]] * owner.b.kernel_size[0]


def many_times(owner: Reads, x: Tensor) -> Tensor:
    for _ in range(3):
        x = torch.tanh(owner.b(x))
    return x


class Listed(nn.Module):
    """A plain list beside the registered modules."""

    def __init__(self):
        super().__init__()
        self.layers = [conv3(3, 16), conv3(16, 16), conv3(16, 16)]
        for index, layer in enumerate(self.layers):
            self.add_module(f"layer{index}", layer)
        self.down, self.last = conv3(16, 16, stride=2), conv3(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.last(self.down(x))


class Cut(nn.Module):
    """A trained backbone cut into pieces, and a decoder of one's own."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet18()
        self.stem, self.first = nn.Sequential(net.conv1, net.bn1, net.relu), nn.Sequential(net.maxpool, net.layer1)
        self.second, self.third = net.layer2, net.layer3
        self.merge, self.head = nn.ModuleList([Pair(384, 128), Pair(192, 64), Pair(128, 32)]), nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for stage in (self.first, self.second, self.third):
            maps.append(stage(maps[-1]))
        x = maps.pop()
        for merge in self.merge:
            old = maps.pop()
            x = merge(torch.cat([F.interpolate(x, size=old.shape[-2:]), old], 1))
        return self.head(x)


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, weight, self.bias)


class WithNorm(nn.Conv2d):
    """A convolution that holds its norm and activation, as detection libraries have it."""

    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__(a, b, 3, stride, 1)
        self.norm = nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(super().forward(x)))


Namesake = type("Conv2d", (Standardized,), {"__module__": "torch.nn.modules.conv"})


NamesakeWithNorm = type("Conv2d", (WithNorm,), {"__module__": "torch.nn.modules.conv"})


class NormAct(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.1)


class Attentive(timm.models.resnet.Bottleneck):
    """timm's bottleneck with a spatial gate behind it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = nn.Conv2d(self.conv3.out_channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * self.gate(x).sigmoid()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = four()
        self.layers[4].weight = self.layers[2].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = plain()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.features(first) - self.features(second)).abs()


class Named(Twins):
    def forward(self, photo: Tensor, scale: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": self.features(photo) * scale}


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, 3, 3) / 10)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.features[7:](checkpoint(self.features[:7], x, use_reentrant=False))


class Branching(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) * (2 if float(x.mean()) > 100 else 1)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.ConvTranspose2d(32, 64, 4)
        widths = ((64, 32), (32, 32), (32, 16))
        self.rest = nn.Sequential(*[nn.Sequential(nn.Upsample(scale_factor=2), *unit(a, b)) for a, b in widths])

    def forward(self, z: Tensor) -> Tensor:
        return self.rest(self.first(z[:, :, None, None]))


class SuperResolution(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.head, self.tail = conv3(channels, 32), nn.Sequential(conv3(32, 4 * channels), nn.PixelShuffle(2))
        self.body = nn.ModuleList(nn.Sequential(conv3(32, 32), nn.ReLU(), conv3(32, 32)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.body:
            x = x + block(x)
        return self.tail(x)


class Keeps(nn.Module):
    """Keeps an activation, which cannot be copied."""

    def __init__(self):
        super().__init__()
        self.layers = four()

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.layers[0](x)
        return self.layers[1:](self.kept)
