"""Single networks of further libraries: those that are installed."""

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from foreign.checks import Case
from torch import nn


def _xray(name: str) -> nn.Module:
    import torchxrayvision

    if name == "ResNetAE":
        return torchxrayvision.autoencoders.ResNetAE(weights=None)
    return torchxrayvision.models.DenseNet(num_classes=4, in_channels=1)


def _efficientnet(name: str) -> nn.Module:
    return importlib.import_module("efficientnet_pytorch").EfficientNet.from_name(name)


def _pretrainedmodels(name: str) -> nn.Module:
    return importlib.import_module("pretrainedmodels").__dict__[name](num_classes=1000, pretrained=None)


def _yolo(name: str) -> nn.Module:
    return importlib.import_module("ultralytics.nn.tasks").DetectionModel(f"{name}.yaml", verbose=False)


def _face() -> nn.Module:
    return importlib.import_module("facenet_pytorch").InceptionResnetV1(pretrained=None, classify=False)


def _cells() -> nn.Module:
    return importlib.import_module("cellpose.resnet_torch").CPnet([2, 16, 32, 64], 3, 3)


def _kornia(name: str) -> nn.Module:
    feature = importlib.import_module("kornia.feature")
    return getattr(feature, name)(pretrained=False)


def _first_installed(makers: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...], tuple[int, ...] | None]]):
    for name, (package, make, size, odd) in makers.items():
        if find_spec(package):
            yield Case(name, make, size, odd, batch=1)


def cases() -> Iterator[Case]:
    makers: dict = {
        "torchxrayvision DenseNet": ("torchxrayvision", lambda: _xray("DenseNet"), (1, 224, 224), (1, 193, 225)),
        "torchxrayvision ResNetAE": ("torchxrayvision", lambda: _xray("ResNetAE"), (1, 224, 224), None),
        "facenet InceptionResnetV1": ("facenet_pytorch", _face, (3, 160, 160), (3, 151, 173)),
        "cellpose CPnet": ("cellpose", _cells, (2, 64, 64), (2, 80, 96)),
    }
    for name in ("efficientnet-b0", "efficientnet-b1"):
        makers[f"efficientnet_pytorch {name}"] = (
            "efficientnet_pytorch",
            lambda name=name: _efficientnet(name),
            (3, 224, 224),
            (3, 193, 225),
        )
    for name in (
        "resnet18",
        "se_resnet50",
        "se_resnext50_32x4d",
        "bninception",
        "xception",
        "dpn68",
        "polynet",
        "senet154",
    ):
        makers[f"pretrainedmodels {name}"] = (
            "pretrainedmodels",
            lambda name=name: _pretrainedmodels(name),
            (3, 224, 224),
            None,
        )
    for name in ("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n"):
        makers[f"ultralytics {name}"] = ("ultralytics", lambda name=name: _yolo(name), (3, 128, 128), (3, 96, 160))
    for name in ("HardNet", "TFeat", "SOSNet", "HyNet"):
        makers[f"kornia {name}"] = ("kornia", lambda name=name: _kornia(name), (1, 32, 32), None)
    yield from _first_installed(makers)
    yield Case(
        "torch.hub-style single convolution", lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), odd=(3, 33, 41)
    )
