"""What a conversion came to, beside its base: cost, time, answers, labels; a table and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elastic_cnn.conversion.answers import has_answers, same_answers
from elastic_cnn.conversion.report import ConversionReport
from elastic_cnn.conversion.times import time_ratios
from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.measure.tables import text_table
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, save, style


@dataclass(frozen=True)
class Outcome:
    """macs: multiply-adds over the base's; time: seconds over the base's in the form `form`, None where they were not
    measured, with `obstacle` saying why. same: part of the answers on `photos` photos that stayed (None: no photos were
    left to compare on, or the network gives no answers). top1: of the base and of the conversion, None without labels.
    """

    macs: float
    form: str
    time: MedianInterval | None
    obstacle: str
    same: float | None
    photos: int
    top1: tuple[float, float] | None = None

    def table(self) -> str:
        """One line each, the base beside the conversion; below them why it was not timed, where it should have been."""
        rows = [["multiply-adds", "1", f"{self.macs:.3f}"]]
        if self.time is not None:
            shown = f"{self.time.median:.3f} ({self.time.low:.3f} to {self.time.high:.3f})"
            rows.append([f"time, {self.form}", "1", shown])
        if self.same is not None:
            rows.append([f"same answers on {self.photos} other photos", "100%", f"{self.same:.1%}"])
        if self.top1 is not None:
            rows.append(["top-1", *(f"{value:.2%}" for value in self.top1)])
        shown = text_table(["", "base", "converted"], rows)
        return f"{shown}\nnot timed: {self.obstacle}" if self.obstacle else shown


def compare_networks(
    base: nn.Module, elastic: Any, others: Sequence[Tensor], image: Tensor, form: str | None, task: str
) -> Outcome:
    """The outcome for `elastic`, which `convert` made of `base`, without labels.

    others: batches (N, C, H, W) that were not calibrated on. image: (1, C, H, W) to time on. form: None leaves out the
    time.
    """
    report: ConversionReport = elastic.conversion_report
    time, obstacle = report.time, ""
    if time is None and form is not None:
        try:
            time = time_ratios([elastic], base, image, form)[0]
        except ValueError as error:
            obstacle = str(error)
    count = sum(len(batch) for batch in others)
    comparable = bool(count) and has_answers(base.eval(), image)
    same = same_answers(elastic, base, others, task) if comparable else None
    return Outcome(report.macs_ratio, form or "", time, obstacle, same, count)


def draw_blocks(report: ConversionReport, path: str | Path) -> list[Path]:
    """A picture of what each block became, as `path`.png: the part of it at each resolution, and its error before and
    after the refit."""
    names = [plain(block.name) for block in report.blocks]
    with style():
        figure = new_figure(7.2, max(2.4, 0.8 + 0.17 * len(names)))
        left, right = figure.subplots(1, 2, sharey=True)
        begins = [0.0] * len(names)
        scales = sorted({scale for block in report.blocks for scale in block.scales})
        for scale, colour in zip(scales, (BLUE, ORANGE, GREY, "#CC79A7"), strict=False):
            widths = [dict(zip(b.scales, b.shares, strict=True)).get(scale, 0.0) for b in report.blocks]
            label = "full resolution" if scale == 1 else f"1/{scale}"
            left.barh(names, [100 * w for w in widths], left=[100 * b for b in begins], color=colour, label=label)
            begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
        left.set_xlim(0, 100)
        left.invert_yaxis()
        left.set_xlabel("channels (%)")
        left.legend(frameon=False, fontsize=7, loc="lower right")
        known = [(name, b) for name, b in zip(names, report.blocks, strict=True) if b.error is not None]
        lowest, highest = 1.0, 1.0  # per cent
        for value, marker, colour, label in (
            ("error_before", "o", GREY, "divided"),
            ("error", "s", ORANGE, "refitted"),
        ):
            errors = [100 * max(getattr(block, value), 1e-6) for _, block in known]
            right.plot(errors, [name for name, _ in known], marker, color=colour, label=label, linestyle="")
            lowest, highest = min([lowest, *errors]), max([highest, *errors])
        right.set_xlim(lowest / 2, highest * 2)
        right.set_xscale("log")
        right.set_xlabel("error of the block's output (% of its variance)")
        if known:
            right.legend(frameon=False, fontsize=7)
        return save(figure, path, ("png",))
