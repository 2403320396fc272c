"""Frames of films as photos, by PyAV."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.extras import require

MISSING = 1.0  # seconds at the end of a film that need not have pictures; or a tenth of it
ENDINGS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def is_video(path: str | Path) -> bool:
    """Whether a file is taken for a film, by its name's ending."""
    return str(path).lower().endswith(ENDINGS)


def frames(path: str | Path, every: float) -> Iterator[tuple[str, Image.Image]]:
    """(`FILM@SECONDS`, frame as RGB, upright as the camera says): the first frame, then the first one at least `every`
    seconds after the last.

    Raises `MissingExtra` without PyAV, and `UnreadableSample` where the file is no film or is cut off (at the latest
    after the frames that are there).
    """
    av: Any = require("av", "video")
    try:
        with av.open(str(path)) as film:
            if not film.streams.video:
                raise UnreadableSample(str(path), "it holds no pictures that move")
            due = seconds = 0.0
            for number, frame in enumerate(film.decode(video=0)):
                seconds = float(frame.time) if frame.time is not None else float(number)
                if seconds + 1e-6 < due:
                    continue
                due = seconds + every
                image = frame.to_image().convert("RGB")
                turned = frame.rotation  # degrees counterclockwise
                yield f"{path}@{seconds:.2f}", image.rotate(turned, expand=True) if turned else image
            whole = _length(film, av.time_base)
            if whole - seconds > max(MISSING, whole / 10):
                raise UnreadableSample(str(path), f"it is cut off: it lasts {whole:.1f} s and ends at {seconds:.1f} s")
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, UnreadableSample):
            raise
        raise UnreadableSample(str(path), getattr(error, "strerror", None) or error) from error


def _length(film: Any, units: int) -> float:
    """Seconds that the pictures should last: the sound may last longer, so the file's length is the second choice."""
    pictures = film.streams.video[0]
    if pictures.duration is not None and pictures.time_base is not None:
        return float(pictures.duration * pictures.time_base)
    return 0.0 if film.duration is None else float(film.duration / units)
