"""The names of the classes that the released networks were trained for, in the order of their outputs."""

from timm.data import ImageNetInfo
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights


def class_names(task: str, num_classes: int) -> tuple[str, ...]:
    """ImageNet's synset ids (the names of its folders), COCO's 80 or VOC's 21 names; numbers for any other count."""
    names: tuple[str, ...] = ()
    if task == "segmentation":
        names = ("background", *DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"][1:])
    elif task == "multilabel":
        no_class = ("__background__", "N/A")  # COCO's numbers have gaps
        categories = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
        names = tuple(name for name in categories if name not in no_class)
    elif task == "classification":
        names = tuple(ImageNetInfo().label_names())
    return names if len(names) == num_classes else tuple(map(str, range(num_classes)))
