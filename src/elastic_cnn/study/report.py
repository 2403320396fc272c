"""The page of results, generated from the records: every number with its command, commit, seeds, hardware, spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_cnn.files import refuse_unwritable, refuse_unwritable_folder, write_text
from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.study.grid import Study, load_study
from elastic_cnn.study.plots import cell_title, draw_study
from elastic_cnn.study.results import collect, read_table
from elastic_cnn.study.sections import budget_lines, explain, gain_by_size, join, stress_table
from elastic_cnn.study.tables import FEW_PAIRS, Cell, CellKey, Compared, compare, make_cells, names_of
from elastic_cnn.study.units import metric_title, show_difference, show_interval, show_spread

PICTURES = "where_it_helps.md"  # the page of pictures, beside a report
GENERATED = "This page is generated"  # how a page of ours is told from another file
HEAD = """# Results of studies

{generated}: change the studies, and run `elastic study report` again, not this file.

```sh
elastic study {command}
elastic study report{report}
```

[{pictures}]({pictures}) shows the same records by question, a picture each.
{folders}Every run's configuration, training curve, results, commit, versions and hardware lie in
`{results}/STUDY/RUN.json`, all numbers in `{results}/results.parquet`.

{scope}

**How to read it.** Compared are runs of the same seed, recipe and data, whose last weights are tested. `±` is the
standard deviation over seeds, the number of seeds in brackets. Differences are paired by seed: their mean and a 95%
percentile bootstrap over the pairs; as a bootstrap of a few pairs is too narrow, Student's t interval stands beside it,
and "better" or "worse" is written only where **both** leave out 0. Seconds are the processor's, with the final test;
ratios of step times were measured in turns.
"""


@dataclass(frozen=True)
class Section:
    """A study with what was found."""

    study: Study
    cells: dict[CellKey, Cell]
    compared: list[Compared]
    rows: list[dict[str, Any]]


def write_report(
    results: str | Path, page: str | Path, overwrite: bool = False, studies: Sequence[Study] = ()
) -> list[Path]:
    """Collect the records anew and write the page with one picture a study beside it; returns the files.

    studies: those to report on; by default all that have records, whose YAML files then lie beside the folder of
    results. A page that it wrote is replaced, another file only where `overwrite` is set. Raises `ValueError` where
    there are no records, or a study of theirs has no file there.
    """
    results, page = Path(results), Path(page)
    check_page(page, overwrite)
    sections, missing = gather(results, studies)
    pictures = page.parent / "images" / "studies"
    written: list[Path] = []
    named = "".join(f" {study.path}" for study in studies)
    text = [
        _head(sections, results, f"{named} -o {page.as_posix()}"),
        "## In short",
        "",
        *summary(sections),
        "",
        *not_run(sections, missing),
    ]
    for section in sections:
        files = draw_study(section.study, section.cells, section.compared, pictures / section.study.name)
        written += files
        text += section_lines(section, results, files[0].relative_to(page.parent).as_posix())
    write_text(page, "\n".join(text).rstrip() + "\n")
    return [page, results / "results.parquet", *written]


def gather(results: str | Path, studies: Sequence[Study] = ()) -> tuple[list[Section], list[str]]:
    """Collect the records anew: the studies that have some, and the paths of those without.

    Arguments and errors as of `write_report`.
    """
    results = Path(results)
    refuse_unwritable_folder(results)
    rows = read_table(collect(results))
    if studies:
        rows = [row for row in rows if row["study"] in {study.name for study in studies}]
        if not rows:
            raise ValueError(
                f"{results} holds no results of {', '.join(study.path for study in studies)}: run it first"
            )
    sections = make_sections(rows, studies or find_studies(rows, results.parent))
    missing = [study.path for study in studies if study.name not in {section.study.name for section in sections}]
    return sections, missing if studies else _without_records(sections, results.parent)


def check_page(page: str | Path, overwrite: bool) -> None:
    """`ValueError` where the page cannot be written, or something else would be lost."""
    page = refuse_unwritable(page)
    if page.exists() and not overwrite and GENERATED.encode() not in page.read_bytes()[:400]:
        raise ValueError(f"{page} exists and is no page of results: choose another path, or pass --overwrite")
    refuse_unwritable_folder(page.parent / "images" / "studies")


def _head(sections: Sequence[Section], results: Path, report: str) -> str:
    folders = sorted({data.folder for section in sections for data in section.study.data_sets.values() if data.folder})
    named = f"`DIR` holds the folders that the studies name: {', '.join(f'`{name}`' for name in folders)}. "
    command = " ".join(section.study.path for section in sections) + (" --data DIR" if folders else "")
    rows = [row for section in sections for row in section.rows if row["study"] == section.study.name]
    return HEAD.format(
        generated=GENERATED, pictures=PICTURES, command=command, report=report, results=results.as_posix(),
        folders=named if folders else "", scope=scope_of(rows),
    )  # fmt: skip


def scope_of(rows: Sequence[dict[str, Any]]) -> str:
    """How many runs on what hardware, and how long they were."""
    runs = {(row["study"], row["cell"], row["seed"]): row for row in rows}.values()
    hardware = sorted({row["hardware"] for row in runs})
    views = _range([row["views"] for row in runs])
    text = f"**Scope.** {_counted(len(runs), 'run')} on {'; '.join(hardware)}, of {views} views"
    if seconds := [row["processor_seconds"] for row in runs if row["processor_seconds"] is not None]:
        text += f" and {_range([round(value) for value in seconds])} seconds of the processor each"
    return f"{text}. What they show holds for such budgets and sizes."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def find_studies(rows: Sequence[dict[str, Any]], folder: Path) -> list[Study]:
    """The studies of the rows, from the YAML files of a folder. `ValueError` where one is missing there."""
    names = sorted({row["study"] for row in rows})
    try:
        return [load_study(folder / f"{name}.yaml") for name in names]
    except ValueError as error:
        raise ValueError(f"{error}; studies that lie elsewhere are named: elastic study report STUDY.yaml") from error


def _without_records(sections: Sequence[Section], folder: Path) -> list[str]:
    known = {section.study.name for section in sections}
    return [path.as_posix() for path in sorted(folder.glob("*.yaml")) if path.stem not in known]


def make_sections(rows: list[dict[str, Any]], studies: Sequence[Study]) -> list[Section]:
    """Those of the studies that have results, in their order."""
    sections = []
    for study in studies:
        cells = make_cells(rows, study.name)
        if not cells:
            continue
        order = {(run.network, run.recipe, run.data): place for place, run in enumerate(reversed(study.runs()))}
        cells = dict(sorted(cells.items(), key=lambda entry: -order.get(entry[0], -1)))
        sections.append(Section(study, cells, compare(study, cells, study.metric), rows))
    return sorted(sections, key=lambda section: (section.study.order, section.study.name))


def summary(sections: Sequence[Section]) -> list[str]:
    """One line a comparison, and the count of what was decided."""
    lines = []
    for section in sections:
        for found in section.compared:
            lines.append(
                [
                    f"[{section.study.title}](#{anchor(section.study.title)})",
                    names_of(section.study, found.network, found.against, found.label),
                    metric_title(found.metric),
                    show_difference(found.metric, found.difference),
                    str(found.difference.count),
                    _emphasis(found.verdict),
                ]
            )
    head = ["study", "compared", "metric", "difference", "pairs", "verdict"]
    return [markdown_table(head, lines)]


def not_run(sections: Sequence[Section], missing: Sequence[str]) -> list[str]:
    """How many runs the page rests on, and which studies have none."""
    done, asked = runs_done(sections)
    few = sum(found.difference.count < FEW_PAIRS for section in sections for found in section.compared)
    line = f"{done} of the {asked} runs of these studies are done."
    if few:
        line += f" **Fewer than three pairs stand behind {few} of the comparisons above.**"
    if missing:
        line += f" Not run at all: {', '.join(f'`{path}`' for path in missing)}."
    return [line, ""]


def runs_done(sections: Sequence[Section]) -> tuple[int, int]:
    """How many runs have a record, and how many there are to be."""
    done = sum(len(cell.seeds) for section in sections for cell in section.cells.values())
    return done, sum(len(section.study.runs()) for section in sections)


def section_lines(section: Section, results: Path, picture: str) -> list[str]:
    """The part of the page on one study."""
    study, cells = section.study, section.cells
    lines = [f"## {study.title}", ""]
    if study.question:
        lines += [study.question, ""]
    data = " --data DIR" if any(data.folder for data in study.data_sets.values()) else ""
    lines += [f"```sh\nelastic study {study.path}{data}\n```", ""]
    lines += [*budget_lines(study, cells), ""]
    lines += [*_cell_table(study, cells), ""]
    lines += [f"![{study.title}]({picture})", ""]
    if section.compared:
        lines += [*_comparison_table(study, section.compared), ""]
    lines += join(gain_by_size(study, cells))
    lines += join(stress_table(study, cells))
    lines += join(explain(study, cells, section.compared, results))
    for remark in study.remarks:
        lines += [remark, ""]
    return lines


def _cell_table(study: Study, cells: dict[CellKey, Cell]) -> list[str]:
    metrics = [study.metric, *study.tables]
    head = ["network", "parameters", "multiply-adds", "views", "processor s", *map(metric_title, metrics)]
    lines = []
    for key, cell in cells.items():
        cost = [f"{cell.parameters / 1e6:.3f}M", f"{cell.macs / 1e6:.1f}M", f"{cell.views:,}"]
        seconds = "" if cell.processor_seconds is None else f"{cell.processor_seconds.mean:.0f}"
        spreads = [show_spread(metric, cell.spread(metric)) for metric in metrics]
        lines.append([cell_title(study, key), *cost, seconds, *spreads])
    return [markdown_table(head, lines)]


def _comparison_table(study: Study, compared: Sequence[Compared]) -> list[str]:
    head = [f"difference in {metric_title(study.metric)}", "mean, bootstrap 95%", "t 95%", "pairs above 0", "verdict"]
    lines = []
    for found in compared:
        difference = found.difference
        lines.append(
            [
                names_of(study, found.network, found.against, found.label),
                show_difference(found.metric, difference),
                show_interval(found.metric, difference.t_low, difference.t_high),
                f"{difference.positive} of {difference.count}",
                _emphasis(found.verdict),
            ]
        )
    return [markdown_table(head, lines)]


def _emphasis(verdict: str) -> str:
    return verdict if verdict == "not decided" else f"**{verdict}**"


def anchor(title: str) -> str:
    """The anchor that Markdown readers make of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
