"""What a segmentation checkpoint says about masks; apart from the task, so that it is read without Lightning."""

from typing import Any

from elastic_cnn.data.labels import Labels
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.picture_kinds import Reading
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

LABELS_KEY = "labels"  # of a card's `info`


def card_labels(card: NetworkCard) -> tuple[Labels, dict[str, Any]]:
    """The labels that a segmentation network was trained with, and how its data is read (`dataset`, `test_size`)."""
    known = card.info.get(LABELS_KEY, {})
    palette = tuple(map(tuple, known.get("palette", ())))
    return Labels(card.classes, known.get("void", IGNORE), palette, known.get("values", {})), known


def reading_of(spec: InputSpec) -> Reading:
    """How photos are read for a network of that input."""
    return Reading(len(spec.mean), spec.max_value, spec.background)
