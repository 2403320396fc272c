"""A report of a test as one HTML page: tables and pictures within it, nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from elastic_cnn.demo.page import breakable, chart, data_uri, page, paragraph, section, table
from elastic_cnn.evaluation.pictures import Mistake
from elastic_cnn.policy.names import readable

PIXELS = 1.6  # of a chart to one of the page, where that is wide enough


class Pictures(NamedTuple):
    """A chart as PNG: for a light page, and for a dark one."""

    light: bytes
    dark: bytes


def percent(value: float | None) -> str:
    """A fraction in per cent; `-` for none."""
    return "-" if value is None else f"{100 * value:.1f}%"


def interval(row: Mapping[str, Any]) -> str:
    """`12.0% (8.1 to 17.3)`."""
    if row["error"] is None:
        return "-"
    return f"{percent(row['error'])} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def class_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table by class, in words."""
    if "average_precision" in rows[0]:
        keys = ("precision", "recall", "f1", "average_precision")
        header = ["class", "photos", "precision", "recall", "F1", "average precision"]
        return header, [[_name(r), str(r["photos"]), *(percent(r[key]) for key in keys)] for r in rows]
    header = ["class", "photos", "error (95% interval)", "precision", "most often taken for"]
    cells = [
        [
            _name(row),
            str(row["photos"]),
            interval(row),
            percent(row["precision"]),
            f"{readable(row['taken_for'])} ({row['taken']})" if row["taken_for"] else "-",
        ]
        for row in rows
    ]
    return header, cells


def size_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The same by size of the object."""
    cells = [[f"{row['from']:.0f} to {row['to']:.0f}", str(row["photos"]), interval(row)] for row in rows]
    return ["object's size in pixels", "photos", "error (95% interval)"], cells


def against_lines(found: Mapping[str, Any], name: str) -> str:
    """What the paired test says, and no more."""
    unit = "points of error" if found["test"].startswith("McNemar") else "wrong labels a photo"
    factor = 100 if unit.startswith("points") else 1
    value, low, high = (factor * found[key] for key in ("value", "low", "high"))
    sure = (
        "more than chance on these photos would"
        if found["p_value"] < 0.05
        else "chance on these photos suffices for that"
    )
    better = "fewer" if value > 0 else "more" if value < 0 else "neither more nor fewer"
    return (
        f"{abs(value):.2f} {unit} {better} than {name} (95% interval {low:.2f} to {high:.2f}; {found['test']}, "
        f"p = {found['p_value']:.2g}: {sure}). Right alone: this one on {found['only_this_right']} photos, the "
        f"other on {found['only_other_right']}."
    )


def render(found: Mapping[str, Any], pictures: Mapping[str, Pictures], wrong: Sequence[Mistake] = ()) -> str:
    """The page. found: as in report.json. pictures: those that were drawn, by name. wrong: the worst first."""
    results, data = found["results"], Path(found["data"])
    tested = f"{found['split']} of {data.name or found['data']}"
    if data.name == "split.csv":  # of a run that divided its photos itself
        tested = f"{found['split']} of the run {data.parent.name}"
    parts = [
        f"<h1>{escape(results['network'])}: {escape(tested)}</h1>",
        section(
            "test",
            "What was found",
            paragraph(found["headline"], "lead"),
            *map(paragraph, found["lines"]),
            kind="verdict",
        ),
    ]
    if found["against"] is not None:
        parts.append(section("against", "Against another network", paragraph(found["against"]["text"])))
    header, cells = class_table(found["classes"])
    order = sorted(range(len(cells)), key=lambda row: _rank(found["classes"][row]))
    parts.append(
        section("classes", "By class, the worst first", table(header, [cells[row] for row in order], [""] * len(cells)))
    )
    if "confusion" in pictures:
        parts.append(_picture("confusion", "Confusions", pictures, "rows are what photos are, columns what was said"))
    text = f"{found['calibration']['answers']} answers; where the line lies below the diagonal the network is too sure"
    parts.append(_picture("reliability", "Is it as sure as it is right?", pictures, text))
    if found["sizes"]:
        header, cells = size_table(found["sizes"])
        parts.append(section("sizes", "By size", table(header, cells, [""] * len(cells))))
    if wrong:
        parts.append(_mistakes(wrong))
    parts.append(section("details", "How this was made", *map(paragraph, found["details"])))
    return page(f"Test of {results['network']}", parts)


def _mistakes(wrong: Sequence[Mistake]) -> str:
    tiles = []
    for photo, truth, answer in wrong:
        buffer = BytesIO()
        photo.save(buffer, "JPEG", quality=84)
        source = data_uri("image/jpeg", buffer.getvalue())
        tiles.append(
            f'<figure><img src="{source}" alt="a photo of {escape(truth)}"><figcaption>{breakable(truth)}<br>'
            f'<span class="wrong">said: {breakable(answer)}</span></figcaption></figure>'
        )
    note = paragraph("wrong answers of the largest loss, the worst first", "note")
    return section("worst", "The worst mistakes", f'<div class="tiles photos">{"".join(tiles)}</div>', note)


def _name(row: Mapping[str, Any]) -> str:
    words = readable(row["class"])
    return row["class"] if words == row["class"] else f"{words} ({row['class']})"


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Classes that occur first, those with the largest error, or the smallest F1, before others."""
    value = row.get("error", None if row.get("f1") is None else 1 - row["f1"])
    return value is None, -(value or 0.0)


def _picture(name: str, title: str, pictures: Mapping[str, Pictures], caption: str) -> str:
    light, dark = pictures[name]
    with Image.open(BytesIO(light)) as opened:
        widest = round(opened.width / PIXELS)
    return section(name, title, chart(light, dark, title, caption, kind="image/png", widest=widest))
