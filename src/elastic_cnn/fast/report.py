"""What a faster form did to a network, what it left, and why: one report for all of them."""

from collections import Counter
from dataclasses import dataclass, field
from html import escape


@dataclass
class FormReport:
    """The outcome of `optimize_for_inference`, `optimize_for_training` or `use_gpu_kernels`. `str()` prints it.

    rewritten: {name of a block: the form that it has now}.
    left: {name of a norm or block: why it stands as it was}.
    folded: {name of a norm: name of the layer that took it in}.
    notes: what holds for the network as a whole.
    reason: why no block can have the form here at all; empty where some can.
    """

    rewritten: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def fused(self) -> dict[str, str]:
        """`rewritten`, as forms of fused passes call it."""
        return self.rewritten

    @property
    def plain(self) -> dict[str, str]:
        """`left`, likewise."""
        return self.left

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        forms = ", ".join(f"{count} {form}" for form, count in Counter(self.rewritten.values()).items()) or "none"
        lines = [f"blocks in a faster form: {forms}" + (f" ({self.reason})" if self.reason else "")]
        if self.folded:
            lines[0] = f"{len(self.folded)} norms folded; {lines[0]}"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name or "the network itself")
        for reason, names in reasons.items():
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  left, {reason}: {shown}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


OptimizationReport = TrainingReport = FormReport  # the names that the two functions' results have had
