"""What an optimization for inference did to a network, what it left, and why."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class OptimizationReport:
    """The outcome of `optimize_for_inference`. `str()` prints it for people.

    folded: {name of a norm: name of the layer that took it in}.
    rewritten: {name of a block: the form that it has now}.
    left: {name of a norm or block: why it stands as it was}.
    notes: what holds for the network as a whole.
    """

    folded: dict[str, str] = field(default_factory=dict)
    rewritten: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        forms = ", ".join(f"{count} {form}" for form, count in Counter(self.rewritten.values()).items()) or "none"
        lines = [f"{len(self.folded)} norms folded; blocks in a faster form: {forms}"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  left, {reason}: {shown}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
