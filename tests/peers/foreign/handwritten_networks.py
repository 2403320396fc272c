"""Networks as people write them: tutorials, course work, medical and signal networks, odd but legal uses of torch."""

import functools
from collections.abc import Callable, Iterator

import timm
import torch
import torchvision.models as tv
from foreign.checks import Case
from foreign.handwritten_modules import (
    Attentive,
    Branching,
    Checkpointed,
    Cut,
    Fixed,
    Functional,
    Generator,
    Keeps,
    Listed,
    Named,
    Namesake,
    NamesakeWithNorm,
    NoPadding,
    NormAct,
    PadFirst,
    Reads,
    Standardized,
    SuperResolution,
    Tied,
    Twins,
    UNet,
    WithNorm,
    by_attributes,
    by_dtype,
    by_weight,
    conv3,
    four,
    many_times,
    plain,
    small_resnet,
)
from torch import nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune


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
    network = tv.resnet18()
    for block in network.modules():
        if isinstance(block, tv.resnet.BasicBlock):
            block.relu = nn.PReLU()
    return network


def with_stem(channels: int) -> nn.Module:
    network = tv.resnet18(num_classes=10)
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
    yield from other_inputs()
    yield from odd_layers()
    yield from changed_networks()


def other_inputs() -> Iterator[Case]:
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


def odd_layers() -> Iterator[Case]:
    group, instance = functools.partial(nn.GroupNorm, 8), functools.partial(nn.InstanceNorm2d, affine=True)
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
    yield Case(
        "subclassed basic block",
        lambda: tv.ResNet(type("Mine", (tv.resnet.BasicBlock,), {}), [2, 2, 2, 2]),
    )
    yield Case("bottleneck with attention", lambda: timm.models.resnet.ResNet(Attentive, (2, 2, 2, 2), num_classes=10))
    yield Case("resnet18, PReLU", with_prelu)
    yield Case("timm resnet18, PReLU", lambda: timm.create_model("resnet18", act_layer="prelu"))
    yield Case("resnet18, group norm", lambda: tv.resnet18(norm_layer=functools.partial(nn.GroupNorm, 32)))
    yield Case("resnet50, instance norm", lambda: tv.resnet50(norm_layer=instance), (3, 64, 64), (3, 97, 83))
    yield Case(  # float32 is 2e-4 off itself here: the last norms see 2 x 2 values
        "resnet50, instance norm, double precision",
        lambda: tv.resnet50(norm_layer=instance).double(),
        (3, 64, 64),
        (3, 97, 83),
        dtype=torch.float64,
    )
    yield Case("features of resnet50", lambda: timm.create_model("resnet50", features_only=True))
    yield Case("features of EfficientNet", lambda: timm.create_model("efficientnet_b0", features_only=True))


def changed_networks() -> Iterator[Case]:
    """Other weights, wrappers, dtypes, calls and outputs."""
    norms = {"weight": nn.utils.weight_norm, "spectral": nn.utils.spectral_norm}
    newer = {"weight": parametrizations.weight_norm, "spectral": parametrizations.spectral_norm}
    bases = {
        "plain": plain,
        "resnet18": tv.resnet18,
        "EfficientNet": lambda: timm.create_model("efficientnet_b0"),
    }
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
