"""Where the masks of a segmentation network's table lie: pictures beside it, by the numbers of its rows."""

from pathlib import Path

MASKS = "masks"  # the folder
KINDS = ("truth", "prediction", "errors")


def mask_file(folder: Path, kind: str, number: int) -> Path:
    """The mask of a kind of photo `number`, a thousand to a folder."""
    return folder / kind / f"{number // 1000:04d}" / f"{number:07d}.png"
