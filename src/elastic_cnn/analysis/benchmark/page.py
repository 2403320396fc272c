"""Tables of a Markdown page, written anew from the JSON files of `elastic benchmark`.

    python -m elastic_cnn.analysis.benchmark.page docs/performance.md

Between `<!-- figures FILE.json -->` and `<!-- end -->` stands what `render` makes of the file, which lies in the folder
`measured` of the folder named as the page.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from elastic_cnn.analysis.benchmark.table import HEADER, describe_peaks, rows_of, title_of
from elastic_cnn.files import write_text
from elastic_cnn.measure.machine import machine_line
from elastic_cnn.measure.tables import markdown_table

BLOCK = re.compile(r"(<!-- figures (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(results: dict[str, Any]) -> str:
    """Hardware, one table a cell, where the time goes, and what could not be measured."""
    lines = [machine_line(results["machine"]) + "."]
    lines += [describe_peaks(peaks) + "." for peaks in results.get("peaks", [])]
    parts = [" ".join(lines)]
    for cell in results["cells"]:
        parts.append(f"**{title_of(cell, results['request']['size'])}**")
        parts.append(markdown_table(HEADER, rows_of(cell), left=2))
        parts += [f"Not measured: {o['network']}, {o['form']}: {o['reason']}." for o in cell["unavailable"]]
    if found := results.get("breakdown"):
        parts.append(_times(found))
    return "\n\n".join(parts)


def _times(found: list[dict[str, Any]]) -> str:
    """Kinds of operation down, networks across: ms a call."""
    header = ["ms", "", *(f"{entry['network']}, {entry['job']} b{entry['batch']}" for entry in found)]
    columns = [dict(entry["parts"]) for entry in found]
    kinds = sorted(set().union(*columns), key=lambda kind: -max(column.get(kind, 0) for column in columns))
    longest = max(sum(column.values()) for column in columns)
    rows = [
        [kind, "", *(f"{column.get(kind, 0):.1f}" for column in columns)]
        for kind in kinds
        if max(column.get(kind, 0) for column in columns) >= 0.005 * longest
    ]
    rows.append(["all", "", *(f"{sum(column.values()):.1f}" for column in columns)])
    return markdown_table(header, rows, left=2)


def with_figures(text: str, folder: Path) -> str:
    """The page's text with every block of figures written anew from the files in `folder`."""

    def block(match: re.Match[str]) -> str:
        results = json.loads((folder / match[2]).read_text(encoding="utf-8"))
        return f"{match[1]}\n{render(results)}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def main(path: str) -> None:
    """Write the page at `path` anew."""
    page = Path(path)
    write_text(page, with_figures(page.read_text(encoding="utf-8"), page.with_suffix("") / "measured"))


if __name__ == "__main__":
    main(sys.argv[1])
