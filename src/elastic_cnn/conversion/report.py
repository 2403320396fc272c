"""What a conversion did to each block, for people and for a checkpoint's card."""

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.measure.tables import text_table


@dataclass(frozen=True)
class BlockConversion:
    """One converted block.

    shares: of the channels at each of `scales`. macs_before, macs: multiply-adds of the block. error_before, error: of
    its output on the calibration photos, relative to the trained block's variance, as it was divided and as it was
    refitted; None without a refit. notes: what was left as it was, and why.
    """

    name: str
    kind: str
    scales: tuple[int, ...]
    shares: tuple[float, ...]
    macs_before: int
    macs: int
    error_before: float | None = None
    error: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did. `str()` prints it for people, `to_dict` gives JSON values.

    macs_ratio: multiply-adds over the base's. ordered, refitted: which steps were taken. photos: how many it was
    calibrated on, of the size (height, width). seconds: what it took. time: measured time over the base's, where that
    was aimed at; changed: part of the answers on photos held out that changed, where that was.
    """

    blocks: tuple[BlockConversion, ...]
    macs_ratio: float
    ordered: bool
    refitted: bool
    photos: int
    size: tuple[int, int]
    seed: int
    seconds: float
    time: MedianInterval | None = None
    changed: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        head = ["block", "kind", "channels at scale", "multiply-adds", "error divided", "error refitted"]
        rows = [
            [
                block.name,
                block.kind,
                ", ".join(f"{scale}: {part:.1%}" for scale, part in zip(block.scales, block.shares, strict=True)),
                f"{block.macs / block.macs_before:.3f}",
                _per_cent(block.error_before),
                _per_cent(block.error),
            ]
            for block in self.blocks
        ]
        lines = text_table(head, rows, left=2).splitlines()
        lines += [f"  {block.name}: {note}" for block in self.blocks for note in block.notes]
        steps = " and ".join(["ordered"] * self.ordered + ["refitted"] * self.refitted) or "divided as they stood"
        lines.append(
            f"{len(self.blocks)} blocks {steps}, on {self.photos} photos of {self.size[0]} x {self.size[1]} pixels in "
            f"{self.seconds:.0f} s; multiply-adds {self.macs_ratio:.3f} of the base's"
            + (f", time {self.time.median:.3f}" if self.time else "")
            + (f", {self.changed:.1%} of the answers on photos held out changed" if self.changed is not None else "")
        )
        return "\n".join(lines)


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
