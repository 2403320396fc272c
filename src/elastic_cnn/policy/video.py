"""Frames of films as photos, by PyAV."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.extras import require

ENDINGS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def is_video(path: str | Path) -> bool:
    """Whether a file is taken for a film, by its name's ending."""
    return str(path).lower().endswith(ENDINGS)


def frames(path: str | Path, every: float) -> Iterator[tuple[str, Image.Image]]:
    """(`FILM@SECONDS`, frame as RGB): the first frame, then the first one at least `every` seconds after the last.

    Raises `MissingExtra` without PyAV, and `UnreadableSample` where the file is no film or is cut off.
    """
    av: Any = require("av", "video")
    try:
        with av.open(str(path)) as film:
            if not film.streams.video:
                raise UnreadableSample(str(path), "it holds no pictures that move")
            due = 0.0
            for number, frame in enumerate(film.decode(video=0)):
                seconds = float(frame.time) if frame.time is not None else float(number)
                if seconds + 1e-6 < due:
                    continue
                due = seconds + every
                yield f"{path}@{seconds:.2f}", frame.to_image().convert("RGB")
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, UnreadableSample):
            raise
        raise UnreadableSample(str(path), getattr(error, "strerror", None) or error) from error
