"""Class names for people: ImageNet's synset numbers in words."""

import re
from functools import cache
from typing import Any

from timm.data import ImageNetInfo

_SYNSET = re.compile(r"n\d{8}")


@cache
def _imagenet(subset: str) -> Any:
    return ImageNetInfo(subset)


@cache
def readable(name: str) -> str:
    """`tench` for `n01440764`; the first name where ImageNet gives several. Other names as they are."""
    if not _SYNSET.fullmatch(name):
        return name
    for subset in ("imagenet-1k", "imagenet-22k"):
        try:
            return str(_imagenet(subset).label_name_to_description(name)).split(",")[0]
        except KeyError:
            continue
    return name
