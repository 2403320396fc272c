"""Data sets of the Hugging Face Hub, or in its form on the disk: pictures in a column `image`, classes in `label`."""

from collections.abc import Sequence
from typing import Any

from timm.data import create_dataset

from elastic_cnn.extras import require
from elastic_cnn.text import listed

IMAGE, LABEL = "image", "label"


def open_hub_data(data: str, names: Sequence[str]) -> tuple[str, Any]:
    """The name of the first split of `names` that `data` (`hfds/NAME`) has, and timm's reader of it.

    `ValueError` where it cannot be opened, lacks one of the two columns, or holds labels that are no class numbers.
    """
    require("datasets", "data")
    problems = []
    for name in names:
        try:
            reader = create_dataset(data, split=name).reader
        except ValueError as error:  # no such split
            problems.append(str(error))
        except OSError as error:  # nothing there, or no way there
            raise ValueError(
                f"{data} cannot be opened: {error}; name a folder that save_to_disk wrote, or a data set of the Hub"
            ) from error
        else:
            _check_labels(f"{data} ({name})", reader)
            return f"{data} ({name})", reader
    raise ValueError(f"{data} cannot be opened: {problems[0]}")


def _wrong(name: str, columns: Sequence[str]) -> ValueError:
    lacking = next((column for column in (IMAGE, LABEL) if column not in columns), IMAGE)
    return ValueError(
        f"{name} has no column {lacking!r} of {'pictures' if lacking == IMAGE else 'classes'} (it has "
        f"{listed(list(columns))}): save it with the columns {IMAGE!r} and {LABEL!r}"
    )


def _check_labels(name: str, reader: Any) -> None:
    """`ValueError` for labels that are no class numbers; numbers without names get their own as names."""
    found = reader.dataset
    columns = list(found.features)
    if len(found) and found.data.column(IMAGE).null_count == len(found):  # timm's reader has made it up
        columns.remove(IMAGE)
    if not {IMAGE, LABEL} <= set(columns):
        raise _wrong(name, columns)
    if not str(getattr(found.features[LABEL], "dtype", "")).startswith(("int", "uint")):
        raise ValueError(
            f"{name}: the column {LABEL!r} holds no class numbers: save it as class_encode_column({LABEL!r}) makes it"
        )
    labels = found[LABEL][:]
    if wrong := [label for label in labels if label is None or label < 0]:
        raise ValueError(
            f"{name}: {len(wrong)} of {len(labels)} photos are of no class (label {wrong[0]}): remove them"
        )
    if not reader.class_to_idx:
        reader.class_to_idx = {str(number): number for number in range(max(labels, default=-1) + 1)}
