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
from elastic_cnn.study.tables import Cell, CellKey, Compared, compare, make_cells, title_of
from elastic_cnn.study.units import metric_title, show_difference, show_interval, show_spread

HEAD = """# Results: base networks against Elastic

This page is generated; edit the studies and run `elastic study report`, not this file.

```sh
elastic study {command} --data DIR
elastic study report
```

`DIR` holds the folders that the studies name (`imagenette`, `coco_person`, `camvid`). Every run's configuration,
training curve, results, commit, versions and hardware lie in `{results}/STUDY/RUN.json`, all numbers in
`{results}/results.parquet`. [studies.md](studies.md) tells how to write and run a study.

{scope}

**How to read it.** Networks of one study have the same recipe, data, budget of views (images trained on, repeats
included) and seeds; no recipe was tuned for one side. The last weights of a run are tested, never the best. `±` is
the standard deviation over seeds, the number of seeds in brackets. Differences are paired by seed: their mean and a
95% percentile bootstrap over the pairs; as a bootstrap of three to five pairs is too narrow, Student's t interval
stands beside it, and "better" or "worse" is written only where **both** leave out 0. Times are those of the
processor, with the final test, on a machine shared with other work, so the seconds are rough; ratios of step times
were measured in turns.
"""


WITHOUT_GPU = """**Small and short.** All runs below were made without a GPU, on small pictures, in budgets of half a
minute to three minutes a network, from scratch unless said otherwise: far from what these networks reach when trained
for long. They say which network learns more in such a budget, and nothing about ImageNet-sized
training. Studies with full budgets are in `studies/full`; they were not run."""


@dataclass(frozen=True)
class Section:
    """A study with what was found."""

    study: Study
    cells: dict[CellKey, Cell]
    compared: list[Compared]
    rows: list[dict[str, Any]]


def write_report(results: str | Path, page: str | Path, overwrite: bool = False) -> list[Path]:
    """Collect the records anew and write the page with one picture a study beside it; returns the files.

    A page that it wrote is replaced, another file only where `overwrite` is set. The studies are the YAML files beside
    the folder of results. Raises `ValueError` where there are no records, or a study of theirs has no file there.
    """
    results, page = Path(results), Path(page)
    _check_page(page, overwrite)
    refuse_unwritable_folder(results)
    rows = read_table(collect(results))
    sections = make_sections(rows, results.parent)
    pictures = page.parent / "images" / "studies"
    written: list[Path] = []
    scope = (
        WITHOUT_GPU if all("thread" in row["hardware"] for row in rows) else "Hardware and budget stand at each study."
    )
    command = " ".join(section.study.path for section in sections)
    text = [HEAD.format(command=command, results=results.as_posix(), scope=scope)]
    text += ["## In short", "", *summary(sections), "", *not_run(sections, results.parent)]
    for section in sections:
        files = draw_study(section.study, section.cells, section.compared, pictures / section.study.name)
        written += files
        text += section_lines(section, results, files[0].relative_to(page.parent).as_posix())
    write_text(page, "\n".join(text).rstrip() + "\n")
    return [page, results / "results.parquet", *written]


def _check_page(page: Path, overwrite: bool) -> None:
    """`ValueError` where the page cannot be written, or something else would be lost."""
    refuse_unwritable(page)
    title = HEAD.partition("\n")[0].encode()
    if page.exists() and not overwrite and not page.read_bytes().startswith(title):
        raise ValueError(f"{page} exists and is no page of results: choose another path, or pass --overwrite")
    refuse_unwritable_folder(page.parent / "images" / "studies")


def make_sections(rows: list[dict[str, Any]], folder: Path) -> list[Section]:
    """The studies with results, in their order. `ValueError` where a study's file is missing."""
    sections = []
    for name in sorted({row["study"] for row in rows}):
        study = load_study(folder / f"{name}.yaml")
        cells = make_cells(rows, name)
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
                    f"[{section.study.title}](#{_anchor(section.study.title)})",
                    _names(section.study, found),
                    metric_title(found.metric),
                    show_difference(found.metric, found.difference),
                    str(found.difference.count),
                    _emphasis(found.verdict),
                ]
            )
    head = ["study", "compared", "metric", "difference", "pairs", "verdict"]
    return [markdown_table(head, lines)]


def not_run(sections: Sequence[Section], folder: Path) -> list[str]:
    """How many runs the page rests on, and which studies of the folder have none."""
    done = sum(len(cell.seeds) for section in sections for cell in section.cells.values())
    asked = sum(len(section.study.runs()) for section in sections)
    known = {section.study.name for section in sections}
    missing = [path for path in sorted(folder.glob("*.yaml")) if path.stem not in known]
    lines = [f"{done} of the {asked} runs of these studies are done."]
    if done < asked or missing:
        lines[0] += " **What has fewer than three pairs decides nothing**; the commands below run what is missing."
    if missing:
        lines[0] += f" Not run at all: {', '.join(f'`{path.as_posix()}`' for path in missing)}."
    return [*lines, ""]


def section_lines(section: Section, results: Path, picture: str) -> list[str]:
    """The part of the page on one study."""
    study, cells = section.study, section.cells
    lines = [f"## {study.title}", ""]
    if study.question:
        lines += [study.question, ""]
    lines += [f"```sh\nelastic study {study.path} --data DIR\n```", ""]
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
                _names(study, found),
                show_difference(found.metric, difference),
                show_interval(found.metric, difference.t_low, difference.t_high),
                f"{difference.positive} of {difference.count}",
                _emphasis(found.verdict),
            ]
        )
    return [markdown_table(head, lines)]


def _names(study: Study, found: Compared) -> str:
    name = title_of(study, found.network)
    text = f"{name} - {title_of(study, found.against)}" if found.against else f"{name}"
    return f"{text} ({found.label})" if found.label else text


def _emphasis(verdict: str) -> str:
    return verdict if verdict == "not decided" else f"**{verdict}**"


def _anchor(title: str) -> str:
    """The anchor that Markdown readers make of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
