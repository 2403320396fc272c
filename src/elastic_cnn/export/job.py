"""`export_checkpoint`: from a checkpoint to a checked file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.data.photo_files import draw
from elastic_cnn.export import check, photos
from elastic_cnn.export.description import CARD_KEY, Sizes, metadata
from elastic_cnn.export.formats import FORMATS, TARGETS, Run
from elastic_cnn.export.onnx_file import OPSET
from elastic_cnn.export.program_file import capture, for_any_size
from elastic_cnn.export.quantize import METHODS, quantize_onnx
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.fast.forms import join_last_convolutions
from elastic_cnn.files import FAULTS_OF_DISKS, naming, not_written, refuse_output
from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo import NetworkCard, load_checkpoint
from elastic_cnn.zoo.checkpoint import checkpoint_file


@dataclass(frozen=True)
class Int8:
    """Quantize to 8 bits. images: folder of photos to calibrate on, `count` of them at random, and as many others to
    compare on. method: see `quantize_onnx`."""

    images: str
    count: int = 128
    method: str = "minmax"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"the number of photos to calibrate on must be at least 1, got {self.count}")
        if self.method not in METHODS:
            raise ValueError(f"unknown calibration method {self.method!r}; choose from {', '.join(METHODS)}")


@dataclass(frozen=True)
class Test:
    """Measure top-1 of the network and of the file on a split of `data`, on at most `limit` photos."""

    data: str
    split: str = "val"
    limit: int = 10**9


@dataclass
class Exported:
    """What was written. sizes: that the file takes. checks: its errors against the network (float32 files).

    joined: blocks whose branches were joined for the target; None where it asks for none.

    calibrated, compared: photos used (int8 files); agreement: part of the answers that stayed the same on the latter.
    top1: of the network and of the file, where a test was asked for. unreadable: photos that were left out.
    """

    path: Path
    format: str
    sizes: Sizes
    bytes: int
    checks: list[check.Check] = field(default_factory=list)
    calibrated: int = 0
    compared: int = 0
    agreement: float | None = None
    top1: tuple[float, float] | None = None
    unreadable: int = 0
    joined: int | None = None


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path | None = None,
    format: str | None = None,
    *,
    fixed_size: tuple[int, int] | None = None,
    target: str = "any",
    int8: Int8 | None = None,
    test: Test | None = None,
    overwrite: bool = False,
    strict: bool = False,
) -> Exported:
    """Write a checkpoint's network, in the form of `optimize_for_inference`, as a file for another runtime.

    out: the file (.onnx, .xml with .bin, .pt2); by default beside the checkpoint, named as it is. format: one of
    `FORMATS`, by default after the ending of `out`. fixed_size: take this (height, width) alone. target: one of
    `TARGETS`, the processors whose fastest form is written; what is computed is the same.

    strict: a photo that cannot be read is an error, else it is left out with a warning and counted.

    A float32 file is left only if it computes what the network does, at two sizes and two batches, see `check`.
    Raises `ValueError` for bad input, a network that cannot be captured, and a file that differs.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; choose from {', '.join(TARGETS)}{did_you_mean(target, TARGETS)}")
    source = checkpoint_file(checkpoint)
    out, format = _target(source, out, format, overwrite)
    if int8 and not FORMATS[format].int8:
        able = " and ".join(name for name, known in FORMATS.items() if known.int8)
        raise ValueError(f"8-bit files are written in the formats {able}, not {format}")
    network, card = load_checkpoint(source)
    if test and not task_spec(card.task).top1:
        raise ValueError(f"top-1 is measured for classification; this checkpoint is for {card.task}")
    channels = len(card.input.mean)
    left_out = LeftOut(strict)
    tested = photos.open_split(test.data, test.split, card.classes, card.input) if test else None
    images = _photos(int8, card, left_out) if int8 else None
    fast = optimize_for_inference(network, channels_last=False, native=False)
    joined = join_last_convolutions(fast) if target == "amx" else None
    program, sizes = capture(fast if fixed_size else for_any_size(fast), channels, card.input.size, fixed_size)
    with _beside(out) as folder:
        file = Path(folder) / out.name
        _write(file, format, program, metadata(card, sizes, opset=str(OPSET)), images[0] if images else None, int8)
        run, values = FORMATS[format].read(file, None)
        if CARD_KEY not in values:
            raise RuntimeError(f"{out.name} lost its metadata")
        bytes_written = sum(part.stat().st_size for part in Path(folder).glob(f"{out.stem}.*"))
        result = Exported(out, format, sizes, bytes_written, joined=joined)
        if images:
            _compare(result, run, network, card, images)
        else:
            with naming(source):
                result.checks = check.check(run, network, check.cases(sizes, card.input.size, channels))
        if test and tested is not None:
            runs: list[Run] = [_plain(network), run]
            before, after = photos.top1(runs, tested, test.limit, left_out)
            result.top1 = (before, after)
        result.unreadable = len(left_out.paths)
        _move(file, out, FORMATS[format].beside)
    return result


@contextmanager
def _beside(out: Path) -> Iterator[str]:
    """A temporary folder beside `out`. `OSError` names `out` where nothing can be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise not_written(out, error) from error
    with folder as name:
        try:
            yield name
        except OSError as error:
            if str(error.filename or "").startswith(name) or error.errno in FAULTS_OF_DISKS:
                raise not_written(out, error) from error
            raise


def _target(source: Path, out: str | Path | None, format: str | None, overwrite: bool) -> tuple[Path, str]:
    """The file to write and its format. `ValueError` where they do not fit, or it cannot be written or exists."""
    out, format = _named(source, out, format)
    beside = FORMATS[format].beside
    for path in (out,) if beside is None else (out, out.with_suffix(beside)):
        refuse_output(path, overwrite)
    return out, format


def _named(source: Path, out: str | Path | None, format: str | None) -> tuple[Path, str]:
    endings = {known.suffix: name for name, known in FORMATS.items()}
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if out is None:
        if format is None:
            raise ValueError(f"name a format ({', '.join(FORMATS)}) or a file to write")
        return source.with_suffix(FORMATS[format].suffix), format
    out = Path(out)
    format = format or endings.get(out.suffix)
    if format is None or out.suffix != FORMATS[format].suffix:
        wanted = FORMATS[format].suffix if format else ", ".join(endings)
        raise ValueError(f"{out}: the file's name must end in {wanted}")
    return out, format


def _photos(int8: Int8, card: NetworkCard, left_out: LeftOut) -> tuple[Tensor, Tensor | None]:
    """Images to calibrate on and images to compare on, None where no other photo can be read."""
    chosen, others = draw(find_pictures(int8.images), int8.count, int8.seed)
    calibration = photos.read_images(chosen, card.input, left_out)
    if calibration is None:
        raise ValueError(f"none of {len(chosen)} photos in {int8.images} can be read, the last being {left_out.last}")
    return calibration, photos.read_images(others, card.input, left_out)


def _write(
    file: Path, format: str, program: torch.export.ExportedProgram, values: dict[str, str], images: Tensor | None,
    int8: Int8 | None,
) -> None:  # fmt: skip
    if int8 is None or images is None:
        FORMATS[format].write(file, program, values, None)
        return

    def shrink(onnx: Path) -> Path:
        smaller = onnx.with_name("int8.onnx")
        quantize_onnx(onnx, smaller, images, int8.method)
        return smaller

    precision = f"int8, {int8.method} of {len(images)} photos"
    FORMATS[format].write(file, program, {**values, "precision": precision}, shrink)


def _compare(
    result: Exported, run: Run, network: nn.Module, card: NetworkCard, images: tuple[Tensor, Tensor | None]
) -> None:
    """Fill in how often a quantized file answers as the network does, on photos that it was not calibrated on."""
    calibration, others = images
    result.calibrated = len(calibration)
    seen = calibration if others is None else others
    result.compared = len(seen)
    pairs = [(run(batch), _plain(network)(batch)) for batch in seen.split(photos.BATCH)]
    for output, expected in pairs:
        if output.shape != expected.shape or not output.isfinite().all():
            raise ValueError("the quantized file gives no usable output on the photos; no file was left")
    agreement = task_spec(card.task).code("agreement")
    agreed = [agreement(*pair) * len(pair[0]) for pair in pairs]
    result.agreement = sum(agreed) / len(seen)


def _plain(network: nn.Module) -> Run:
    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network(images)

    return run


def _move(file: Path, out: Path, beside: str | None) -> None:
    """Put a finished file in its place; a pair so that a reader never sees two that differ."""
    pair = None if beside is None else file.with_suffix(beside)
    for part in (file, pair):
        if part is not None:
            with part.open("rb+") as opened:
                os.fsync(opened.fileno())
    if pair is not None:
        out.unlink(missing_ok=True)
        os.replace(pair, out.with_suffix(pair.suffix))
    os.replace(file, out)
