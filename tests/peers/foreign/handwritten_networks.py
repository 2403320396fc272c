"""Networks as people write them: tutorials, course work, medical and signal networks, odd but legal uses of torch."""

import functools
from collections.abc import Callable, Iterator

import timm
import torch
import torch.nn.functional as F
import torchvision
from foreign.checks import Case
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune
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


def every_convolution(network: nn.Module, change: Callable[[nn.Conv2d], object]) -> nn.Module:
    for module in list(network.modules()):
        if type(module) is nn.Conv2d:
            change(module)
    return network


def quantization_aware() -> nn.Module:
    network = plain().train()
    network.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(network, inplace=True)
    network(torch.randn(2, 3, 64, 64))
    return network.apply(quantization.disable_observer)


def frozen(network: nn.Module) -> nn.Module:
    network.requires_grad_(False)
    list(network.parameters())[-1].requires_grad_(True)
    return network


def with_prelu() -> nn.Module:
    network = torchvision.models.resnet18()
    for block in network.modules():
        if isinstance(block, torchvision.models.resnet.BasicBlock):
            block.relu = nn.PReLU()
    return network


def with_stem(channels: int) -> nn.Module:
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return network


def lazy() -> nn.Module:
    network = nn.Sequential(nn.LazyConv2d(16, 3, padding=1), nn.LazyBatchNorm2d(), *four()[1:])
    network(torch.zeros(1, 3, 32, 32))
    return network


def eeg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, (1, 33), padding=(0, 16)),
        nn.Conv2d(8, 16, (22, 1), groups=8),
        nn.BatchNorm2d(16),
        nn.ELU(),
        nn.AvgPool2d((1, 4)),
        nn.Conv2d(16, 16, (1, 17), padding=(0, 8), groups=16),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
    )


def cases() -> Iterator[Case]:
    group, instance = functools.partial(nn.GroupNorm, 8), functools.partial(nn.InstanceNorm2d, affine=True)
    tv = torchvision.models
    yield Case("plain", plain)
    for channels in (1, 2, 4, 5):
        yield Case(f"plain, {channels} channels", lambda c=channels: plain(c), (channels, 28, 28), (channels, 31, 33))
        yield Case(f"U-Net, {channels} channels", lambda c=channels: UNet(c), (channels, 64, 64), (channels, 61, 83))
        yield Case(
            f"resnet18, {channels} channels", lambda c=channels: with_stem(c), (channels, 64, 64), (channels, 61, 83)
        )
        yield Case(f"fixed size, {channels} channels", lambda c=channels: Fixed(c, 32), (channels, 32, 32), None)
    for name in ("efficientnet_b0", "mobilenetv3_small_050", "convnext_atto", "regnetx_002", "vgg11_bn", "resnet18"):
        yield Case(
            f"timm {name}, one channel", lambda n=name: timm.create_model(n, in_chans=1), (1, 64, 64), (1, 61, 83)
        )
    yield Case("no padding", NoPadding, (1, 28, 28), (1, 31, 37))
    yield Case("reflection by a layer", lambda: PadFirst(nn.ReflectionPad2d))
    yield Case("zeros by a layer", lambda: PadFirst(nn.ZeroPad2d))
    yield Case("reflecting convolutions", lambda: four(functools.partial(conv3, padding_mode="reflect")))
    yield Case("circular convolutions", lambda: four(functools.partial(conv3, padding_mode="circular")))
    yield Case(
        "even kernels, same", lambda: nn.Sequential(nn.Conv2d(3, 16, 4, padding="same"), nn.MaxPool2d(2), *four()[2:4])
    )
    yield Case("U-Net", UNet)
    yield Case("U-Net, instance norm", lambda: UNet(norm=instance))
    yield Case("U-Net, group norm", lambda: UNet(norm=group))
    yield Case("own residual blocks", small_resnet, (3, 32, 32), (3, 37, 45))
    yield Case("cut backbone, own decoder", Cut)
    for name, use in {"weight": by_weight, "dtype": by_dtype, "attributes": by_attributes}.items():
        yield Case(f"reads {name} of a convolution", lambda use=use: Reads(use))
    yield Case("recurrent convolution", lambda: Reads(many_times))
    yield Case("plain list of modules", Listed)
    yield Case("tied parameter", Tied)
    yield Case("standardized", lambda: four(lambda a, b, stride=1: Standardized(a, b, 3, stride, 1)))
    yield Case("standardized, named Conv2d", lambda: four(lambda a, b, stride=1: Namesake(a, b, 3, stride, 1)))
    yield Case("norm inside", lambda: four(WithNorm))
    yield Case("norm inside, named Conv2d", lambda: four(NamesakeWithNorm))
    yield Case("norm with activation", lambda: plain(norm=NormAct))
    yield Case("subclassed basic block", lambda: tv.ResNet(type("Mine", (tv.resnet.BasicBlock,), {}), [2, 2, 2, 2]))
    yield Case("bottleneck with attention", lambda: timm.models.resnet.ResNet(Attentive, (2, 2, 2, 2), num_classes=10))
    yield Case("resnet18, PReLU", with_prelu)
    yield Case("timm resnet18, PReLU", lambda: timm.create_model("resnet18", act_layer="prelu"))
    yield Case("resnet18, group norm", lambda: tv.resnet18(norm_layer=functools.partial(nn.GroupNorm, 32)))
    yield Case("resnet50, instance norm", lambda: tv.resnet50(norm_layer=instance), (3, 64, 64), (3, 97, 83))
    yield Case("features of resnet50", lambda: timm.create_model("resnet50", features_only=True))
    yield Case("features of EfficientNet", lambda: timm.create_model("efficientnet_b0", features_only=True))
    norms = {"weight": nn.utils.weight_norm, "spectral": nn.utils.spectral_norm}
    newer = {"weight": parametrizations.weight_norm, "spectral": parametrizations.spectral_norm}
    bases = {"plain": plain, "resnet18": tv.resnet18, "EfficientNet": lambda: timm.create_model("efficientnet_b0")}
    slow = {"export": "hooks and parametrisations: not asked"}
    for kind in norms:
        for base, make in bases.items():
            yield Case(f"old {kind} norm, {base}", lambda k=kind, m=make: every_convolution(m(), norms[k]), skip=slow)
            yield Case(f"{kind} norm, {base}", lambda k=kind, m=make: every_convolution(m(), newer[k]), skip=slow)
    for base, make in bases.items():
        cut = functools.partial(prune.l1_unstructured, name="weight", amount=0.3)
        yield Case(f"pruned, {base}", lambda m=make, cut=cut: every_convolution(m(), cut), skip=slow)
    yield Case("quantization-aware", quantization_aware, skip=slow)
    yield Case("scripted", lambda: torch.jit.script(plain().eval()), skip=slow)
    yield Case("DataParallel", lambda: nn.DataParallel(tv.resnet18()), skip=slow)
    yield Case("compiled (eager backend)", lambda: torch.compile(plain(), backend="eager"), skip=slow)
    yield Case("one dimension", lambda: nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 3)), (3, 64), None)
    yield Case("three dimensions", lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 3)), (3, 16, 16, 16), None)
    yield Case("no convolution", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)), odd=None)
    yield Case("functional convolution", Functional)
    yield Case("lazy layers, run once", lazy)
    yield Case("lazy layers, never run", lambda: nn.Sequential(nn.LazyConv2d(16, 3), nn.ReLU(), nn.LazyConv2d(8, 3)))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        word = str(dtype).removeprefix("torch.")
        yield Case(f"resnet18 in {word}", lambda d=dtype: tv.resnet18().to(d), dtype=dtype, skip=slow)
        yield Case(f"plain in {word}", lambda d=dtype: plain().to(d), dtype=dtype, skip=slow)
    yield Case("frozen but the head", lambda: frozen(tv.resnet18()))
    yield Case("gradient checkpointing", Checkpointed, skip=slow)
    yield Case("depends on data", Branching, skip=slow)
    yield Case("keeps an activation", Keeps, skip=slow)
    yield Case("two inputs", Twins, example=lambda size: (torch.randn(2, *size), torch.randn(2, *size)))
    yield Case("named inputs", Named, example=lambda size: {"photo": torch.randn(2, *size), "scale": torch.rand(2, 1)})
    yield Case("generator", Generator, (32,), None)
    yield Case("super-resolution", lambda: SuperResolution(3), (3, 32, 32), (3, 31, 45))
    yield Case("super-resolution, one channel", lambda: SuperResolution(1), (1, 32, 32), (1, 31, 45))
    yield Case("electrodes and time", eeg, (1, 22, 256), None)
