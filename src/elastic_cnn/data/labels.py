"""What the values in segmentation masks mean: classes, pixels that do not count, colours."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.text import distinct_keys, wrong_class_name

LABELS_FILE = "labels.json"
VOID, OTHER = "void", "other"  # words of `values`: what does not count; all values that are not listed
NO_CLASS = -1
GREY_VALUES = 2**16  # masks of 8 and 16 bits
Colour = tuple[int, int, int]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def voc_palette(count: int) -> tuple[Colour, ...]:
    """VOC's colours: the bits of the class number, dealt to red, green and blue from the highest bit on."""
    colours = []
    for number in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)


@dataclass(frozen=True)
class Labels:
    """What the values in masks mean.

    classes: names; the value `v` of a pixel is the class `classes[v]`, where `values` does not say otherwise.
    void: the value of pixels that do not count; 255 never counts either, unless `values` says so.
    palette: a colour (red, green, blue; 0..255) for each class, to show masks and to read colour masks by; VOC's, to
        show them alone, where none is given.
    values: what stored values mean: {0: "ground", 255: "disc"}. Keys are grey values, "#rrggbb" for colours, or
        "other" for every value that is not listed; entries are class names, class numbers, or "void" (or null).
        Where a grey value is listed, values that are not are errors.
    """

    classes: tuple[str, ...]
    void: int = IGNORE
    palette: tuple[Colour, ...] = ()
    values: Mapping[int | str, int | str | None] = field(default_factory=dict, hash=False)
    coloured: bool = field(init=False, compare=False)  # whether a palette was given

    def __post_init__(self) -> None:
        if isinstance(self.classes, str | Mapping):
            raise ValueError(f"classes={self.classes} must be a list of names, in the order of their values from 0 on")
        object.__setattr__(self, "classes", tuple(self.classes))
        if not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes={list(self.classes)} must be names: quote numbers and yes, no, on, off")
        if wrong := wrong_class_name(self.classes):
            raise ValueError(f"classes={list(self.classes)}: {wrong}")
        if len(set(self.classes)) != len(self.classes) or not 2 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes={self.classes} must be 2 to {IGNORE} different names")
        object.__setattr__(self, "coloured", bool(self.palette))
        palette = tuple(tuple(colour) for colour in self.palette) or voc_palette(len(self.classes))
        object.__setattr__(self, "palette", palette)
        valid = (len(c) == 3 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in palette)
        if len(palette) != len(self.classes) or not all(valid):
            raise ValueError(f"palette={self.palette} must hold {len(self.classes)} colours of three numbers 0..255")
        if not isinstance(self.values, Mapping):
            raise ValueError(f"values={self.values} must be a mapping such as {{0: {self.classes[0]}, 255: {VOID}}}")
        object.__setattr__(self, "values", {_key(key): self._target(key, to) for key, to in self.values.items()})
        self._check_void()

    def _target(self, key: Any, target: Any) -> str | None:
        """A class's name, or None for void, from an entry of `values`."""
        if target is None or (target == VOID and VOID not in self.classes):
            return None
        if type(target) is int and 0 <= target < len(self.classes):
            return self.classes[target]
        if target in self.classes:
            return str(target)
        raise ValueError(f"values: {key} is {target!r}, which is no class ({', '.join(self.classes)}) and not {VOID}")

    def _check_void(self) -> None:
        if type(self.void) is not int or not 0 <= self.void <= 255:
            raise ValueError(f"void={self.void!r} must lie between 0 and 255")
        if self.mapped:
            grey = {to for key, to in self.values.items() if not _is_colour(key)}
            if lost := [name for name in self.classes if name not in grey]:
                raise ValueError(f"values: no value is the class {lost[0]!r}")
        elif self.void < len(self.classes):
            shown = ", ".join(f"{value}: {name}" for value, name in enumerate(self.classes[:2], self.void == 0))
            shown += ", ..." if len(self.classes) > 2 else ""
            raise ValueError(
                f"void={self.void} is the value of the class {self.classes[self.void]!r} too: say what stored values "
                f"mean with values={{{self.void}: {VOID}, {shown}}}, or choose a void behind the classes "
                f"({len(self.classes)}..255)"
            )

    @property
    def mapped(self) -> bool:
        """Whether `values` says what grey values mean."""
        return any(not _is_colour(key) for key in self.values)

    @cached_property
    def table(self) -> np.ndarray:
        """(65536,) int16: the class number of each grey value, `IGNORE` for void, `NO_CLASS` for none."""
        number = {name: position for position, name in enumerate(self.classes)}
        other = NO_CLASS if OTHER not in self.values else self._number(self.values[OTHER], number)
        table = np.full(GREY_VALUES, other, np.int16)
        table[[self.void, IGNORE]] = IGNORE
        if not self.mapped:
            table[: len(self.classes)] = range(len(self.classes))
        for key, target in self.values.items():
            if type(key) is int:
                table[key] = self._number(target, number)
        return table

    @cached_property
    def colour_table(self) -> tuple[np.ndarray, np.ndarray]:
        """(colours ascending as red * 65536 + green * 256 + blue, their class numbers or `IGNORE`), int64 (n,) each.

        `ValueError` where two classes have one colour.
        """
        number = {name: position for position, name in enumerate(self.classes)}
        found: dict[int, int] = {}
        for position, (red, green, blue) in enumerate(self.palette if self.coloured else ()):
            if found.setdefault(red << 16 | green << 8 | blue, position) != position:
                raise ValueError(f"palette: two classes have the colour {(red, green, blue)}")
        for key, target in self.values.items():
            if _is_colour(key):
                found[int(str(key)[1:], 16)] = self._number(target, number)
        codes = sorted(found)
        return np.array(codes, np.int64), np.array([found[code] for code in codes], np.int64)

    @staticmethod
    def _number(target: int | str | None, number: Mapping[str, int]) -> int:
        return IGNORE if target is None else number[str(target)]

    def describe(self) -> str:
        """What values mean, in a few words, for messages."""
        if self.mapped:
            shown = [f"{key}: {VOID if to is None else to}" for key, to in self.values.items()]
        else:
            shown = [f"{value}: {name}" for value, name in enumerate(self.classes)]
            shown.append(f"{self.void}: {VOID}")
        return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])

    def to_dict(self) -> dict[str, Any]:
        """`void`, `palette` and `values` as JSON holds them."""
        values = {str(key): target for key, target in self.values.items()}
        return {"void": self.void, "palette": self.palette, **({"values": values} if values else {})}


def _is_colour(key: int | str) -> bool:
    return isinstance(key, str) and key.startswith("#")


def _key(key: Any) -> int | str:
    """A key of `values`: a grey value (JSON's are text), a colour in lower case, or `other`."""
    text = str(key)
    if type(key) is not bool and re.fullmatch(r"\d{1,5}", text) and int(text) < GREY_VALUES:
        return int(text)
    if text == OTHER or re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return text.lower()
    raise ValueError(f"values: {key!r} is no grey value (0..{GREY_VALUES - 1}), no colour (#rrggbb), not {OTHER}")


VOC_LABELS = Labels(VOC_CLASSES)


def read_labels(folder: Path) -> Labels:
    """Labels from `labels.json` in a data folder: `{"classes": [...], "void": 11, "palette": [[r, g, b], ...]}`.

    `void` (255 by default), `palette` and `values` may be left out. `ValueError` names the file and what is wrong.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        raise ValueError(
            f"the classes of {folder} are not known: give them as options.classes in the recipe, or write {path} with "
            '{"classes": ["sky", ...], "void": 255}'
        )
    known = [entry.name for entry in fields(Labels) if entry.init]
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=distinct_keys)
        if not isinstance(values, dict) or "classes" not in values:
            raise ValueError('it must be a mapping that holds {"classes": ["sky", ...]}')
        if unknown := [key for key in values if key not in known]:
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(known)}")
        return Labels(**values)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: save it in UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
