"""`torch.export` programs: capturing a network for any batch and size, and the `.pt2` file."""

import contextlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from elastic_cnn.export.description import Sizes
from elastic_cnn.export.formats import Run, Shrink
from elastic_cnn.nn.resample import AreaDownsample, CeilMaxPool

ATTEMPTS = 4  # a network's range of sizes is asked for, and narrowed as torch.export suggests
CAPTURES_POOLING = (2, 13)  # since this torch for any size
SMALLEST = 33  # below, the coarsest map of a network of stride 32 is a single pixel
EXAMPLE = (160, 192)  # height and width of the example; only its being none of the special cases matters
METADATA_FILE = "elastic_cnn.json"


def capture(
    network: nn.Module, channels: int, own: tuple[int, int], fixed: tuple[int, int] | None = None
) -> tuple[ExportedProgram, Sizes]:
    """`network` in eval mode as a graph for any batch, and any size or the `fixed` (height, width).

    Takes images `(N, channels, H, W)`; own: the (height, width) that must be among those taken. Returns the program
    and the sizes that it was proven to hold for. `ValueError` where it cannot be captured, with the reason.
    """
    sizes = Sizes(fixed=fixed) if fixed else Sizes(min(SMALLEST, *own))
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            with torch.no_grad(), _sizes_of_one_are_not_special():
                example = torch.zeros(2, channels, *(fixed or EXAMPLE))
                return torch.export.export(network, (example,), dynamic_shapes=(_dynamic(sizes),)), sizes
        except Exception as error:  # torch.export fails in many ways
            reason = _first_line(error)
            narrower = None if fixed else _suggested(str(error))
        if narrower is None or narrower == sizes:
            break
        if not narrower.takes(*own):
            reason = f"its graph would take {narrower}, but its own size is {own[0]}x{own[1]}"
            break
        sizes = narrower
    remedy = "; a fixed size may work (--fixed-size)"
    if fixed:
        remedy = f" at {fixed[0]}x{fixed[1]}; another --fixed-size, or none, may work"
    elif tuple(map(int, torch.__version__.split(".")[:2])) < CAPTURES_POOLING:
        remedy += f", or torch 2.13 or newer (this is {torch.__version__}, which captures no pooling for any size)"
    raise ValueError(f"{type(network).__name__} cannot be captured as a graph{remedy}: {reason}")


def for_any_size(network: nn.Module) -> nn.Module:
    """Put poolings that round sizes up (timm's shortcuts hold such) into the form that dynamic sizes allow, in place;
    returns `network`. The outputs stay the same."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            square = isinstance(child, nn.AvgPool2d | nn.MaxPool2d) and _square(child)
            if not square or not child.ceil_mode:
                continue
            if type(child) is nn.AvgPool2d and not child.count_include_pad and child.divisor_override is None:
                setattr(module, name, AreaDownsample(square))
            elif type(child) is nn.MaxPool2d and child.dilation in (1, (1, 1)):
                setattr(module, name, CeilMaxPool(square))
    return network


def _square(pool: nn.AvgPool2d | nn.MaxPool2d) -> int:
    """The window's side where windows are square, lie side by side and are not padded; else 0."""
    sides = {
        side for value in (pool.kernel_size, pool.stride) for side in (value if isinstance(value, tuple) else (value,))
    }
    return int(sides.pop()) if len(sides) == 1 and pool.padding in (0, (0, 0)) else 0


def _suggested(message: str) -> Sizes | None:
    """The sizes to which torch.export's message wants the range narrowed; None where it has no advice that we follow.

    It writes `height = Dim('height', min=61)`, or `height = 32*_height`, for height and width.
    """
    _, _, advice = message.partition("Suggested fixes:")
    least = [int(number) for number in re.findall(r"^\s*(?:height|width) = Dim\(.*min=(\d+)", advice, re.MULTILINE)]
    steps = [int(number) for number in re.findall(r"^\s*(?:height|width) = (\d+)\*_\w+$", advice, re.MULTILINE)]
    if not least and not steps:
        return None
    multiple = max(steps, default=1)
    return Sizes(max([2 * multiple if steps else 1, *least]), multiple)  # one part alone is a special case


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _dynamic(sizes: Sizes) -> dict[int, Any]:
    shapes: dict[int, Any] = {0: Dim("batch", min=1)}
    if sizes.fixed:
        return shapes
    for axis, name in ((2, "height"), (3, "width")):
        if sizes.multiple > 1:
            shapes[axis] = sizes.multiple * Dim(f"{name}_parts", min=sizes.minimum // sizes.multiple)
        else:
            shapes[axis] = Dim(name, min=sizes.minimum)
    return shapes


@contextlib.contextmanager
def _sizes_of_one_are_not_special() -> Iterator[None]:
    """By default torch captures a graph apart for maps and batches of one, and refuses a range that holds both."""
    from torch.fx.experimental import _config

    config: Any = _config
    with config.patch(backed_size_oblivious=True):
        yield


def write(file: Path, program: ExportedProgram, metadata: dict[str, str], shrink: Shrink | None) -> None:
    """Save the program with its metadata as the extra file `elastic_cnn.json`. shrink: None, it has no 8 bits."""
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, ensure_ascii=False)})


def read(path: str | Path, threads: int | None = None) -> tuple[Run, dict[str, str]]:
    """The program as a function of images, on torch's threads, and its metadata. `ValueError` where the file is of
    another kind."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a torch.export program: it may be truncated, or of another format")
    extra: dict[str, Any] = {METADATA_FILE: ""}
    try:
        with warnings.catch_warnings():  # of torch 2.10, about the bytes that it reads by itself
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = torch.export.load(io.BytesIO(Path(path).read_bytes()), extra_files=extra)
    except Exception as error:  # pickles, archives and schemas fail in many ways
        raise ValueError(f"{path} is not a readable torch.export program ({type(error).__name__}: {error})") from error
    try:
        values = json.loads(text) if (text := extra[METADATA_FILE]) else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its description is no JSON that can be read ({error})") from error
    module = program.module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return run, values
