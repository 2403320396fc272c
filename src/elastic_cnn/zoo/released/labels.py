"""The data sets that the released networks were trained on, and the names of their classes in the order of outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timm.data import ImageNetInfo
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from elastic_cnn.zoo.checkpoint import InputSpec


@dataclass(frozen=True)
class TrainedOn:
    """A data set: what the card of a network trained on it says.

    names: of its classes. info: what stands in the card besides.
    """

    task: str
    names: Callable[[], Sequence[str]]
    input: InputSpec = field(default_factory=InputSpec)
    info: Mapping[str, Any] = field(default_factory=dict)

    def classes(self, count: int) -> tuple[str, ...]:
        """The names of `count` classes; numbers where the data set has another number of them."""
        names = tuple(self.names())
        return names if len(names) == count else tuple(map(str, range(count)))


def _coco_names() -> list[str]:
    no_class = ("__background__", "N/A")  # COCO's numbers have gaps
    return [name for name in FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"] if name not in no_class]


def _voc_names() -> list[str]:
    return ["background", *DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"][1:]]


# ImageNet's classes by synset ids, the names of its folders; COCO's test images are squashed to the size
IMAGENET = TrainedOn("classification", lambda: ImageNetInfo().label_names())
COCO = TrainedOn("multilabel", _coco_names, InputSpec(crop_mode="squash", crop_pct=1.0))
VOC = TrainedOn(
    "segmentation",
    _voc_names,
    InputSpec(size=(513, 513)),
    {"labels": {"dataset": "voc", "void": 255, "test_size": "crop"}},
)
