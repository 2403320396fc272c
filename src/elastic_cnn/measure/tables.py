"""Tables of texts: aligned for the terminal, or Markdown."""

from collections.abc import Sequence

from elastic_cnn.text import printable

Cells = Sequence[Sequence[object]]
WIDEST = 60  # characters of a cell on a terminal: names of layers fit, class names may be of any length


def text_table(header: Sequence[str], rows: Cells, left: int = 1) -> str:
    """Columns aligned by spaces, the first `left` to the left, the others to the right. For terminals: of a text of
    more than `WIDEST` characters the middle is left out."""
    lines = [[_shortened(printable(str(cell))) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])

    def aligned(line: Sequence[str]) -> str:
        cells = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return "\n".join(map(aligned, lines))


def _shortened(text: str) -> str:
    """Its beginning and its end, which often is what two long names differ in."""
    if len(text) <= WIDEST:
        return text
    end = WIDEST // 3
    return f"{text[: WIDEST - end - 3]}...{text[-end:]}"


def markdown_table(header: Sequence[str], rows: Cells, left: int | None = None) -> str:
    """A Markdown table, `|` in cells escaped; the first `left` columns to the left, the others to the right (None: all
    to the left)."""
    rule = ["---"] * len(header) if left is None else ["---"] * left + ["---:"] * (len(header) - left)
    lines = [header, *rows]
    escaped = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [escaped[0], rule, *escaped[1:]])
