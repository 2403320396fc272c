"""The page that shows where a network helps and where it does not: a picture and a computed sentence a question."""

from collections.abc import Sequence
from pathlib import Path

from elastic_cnn.files import refuse_unwritable, refuse_unwritable_folder, write_text
from elastic_cnn.measure.paired import PairedDifference
from elastic_cnn.study.grid import Study
from elastic_cnn.study.pictures import draw_question
from elastic_cnn.study.questions import EQUAL_VIEWS, QUESTIONS, Question, Series
from elastic_cnn.study.report import PICTURES, Section, anchor, gather, runs_done, scope_of
from elastic_cnn.study.tables import FEW_PAIRS, names_of
from elastic_cnn.study.units import show_difference

MARK = "This page of pictures is generated with [{report}]({report})"
HEAD = """# Where it helps, and where it does not

{mark}, from the same records and by the same command: change the studies, not this file.

**How to read it.** One picture a question. A point is the mean *gain* of the network named first over the other: their
difference in the study's metric, over runs paired by seed, turned so that above 0 the first is better. Thick is a
bootstrap's 95% interval (the one in brackets), thin Student's t; blue is better and orange worse, said only where
**both** intervals leave out 0, and grey is not decided. A hollow point rests on fewer than {few} pairs; an arrow says
that an interval goes on outside; a square is the same comparison at equal views.

{scope}
"""
VERDICTS = ("better", "worse", "not decided")
Case = tuple[PairedDifference, str, str]  # a gain, what it is of, its metric


def page_beside(report: str | Path) -> Path:
    """Where the page of a report's pictures lies."""
    return Path(report).with_name(PICTURES)


def check_pictures(report: str | Path, overwrite: bool) -> None:
    """`ValueError` where the page beside the report cannot be written, or something else would be lost."""
    page, mark = refuse_unwritable(page_beside(report)), MARK.format(report=Path(report).name)
    if page.exists() and not overwrite and mark.encode() not in page.read_bytes()[:400]:
        raise ValueError(
            f"{page} exists and does not belong to {Path(report).name}, whose pictures go there: choose another folder "
            "with -o, or pass --overwrite"
        )
    refuse_unwritable_folder(_folder(page))


def _folder(page: Path) -> Path:
    return page.parent / "images" / page.stem


def write_pictures(
    results: str | Path, report: str | Path, overwrite: bool = False, studies: Sequence[Study] = ()
) -> list[Path]:
    """Write the page beside `report`, with a picture for each question that the records answer; returns the files.

    Arguments and errors as of `write_report`.
    """
    report = Path(report)
    page = page_beside(report)
    check_pictures(report, overwrite)
    sections, _ = gather(results, studies)
    rows = [row for section in sections for row in section.rows if row["study"] == section.study.name]
    mark = MARK.format(report=report.name)
    lines = [HEAD.format(mark=mark, few=FEW_PAIRS, scope=scope_of(rows))]
    written, open_questions = [page], []
    for question in QUESTIONS:
        found = {section.study.name: question.find(section.study, section.cells) for section in sections}
        series = [one for members in found.values() for one in members]
        if not any(one.known for one in series):
            open_questions.append(_open(question, series))
            continue
        files = draw_question(series, _folder(page) / question.name)
        written += files
        picture = files[0].relative_to(page.parent).as_posix()
        lines += [f"## {question.title}", "", answer(question, series), "", f"![{question.title}]({picture})", ""]
        behind = [_source(section, report) for section in sections if found[section.study.name]]
        lines += [f"From {', '.join(behind)}.", ""]
    if open_questions:
        lines += ["## Not measured", "", *open_questions]
    write_text(page, "\n".join(lines).rstrip() + "\n")
    return written


def _source(section: Section, report: Path) -> str:
    done, asked = runs_done([section])
    return f"[{section.study.title}]({report.name}#{anchor(section.study.title)}) ({done} of {asked} runs)"


def _open(question: Question, series: Sequence[Series]) -> str:
    if series:
        return f"- {question.title} None of {_counted(len(series), 'comparison')} has a pair of runs yet."
    return f"- {question.title} No study here has {question.needs}."


def answer(question: Question, series: Sequence[Series]) -> str:
    """What a question's picture shows, in words: what is better, worse, not decided, and not there yet."""
    several = len({one.study.name for one in series}) > 1
    shown = [one for one in series if not one.note]
    told, details = [], []
    if question.ends is not None:
        ends = [(one.ends, f"{_name(one, several)} by", one.metric) for one in series if one.ends is not None]
        told.append(_tally(ends, question.ends, "comparison"))
        details.append(_decided(ends, question.ends))
    cases = _cases(shown, several)
    told.append(_tally(cases, VERDICTS, "comparison" if question.ends is None else "point"))
    details.append(_decided(cases, VERDICTS))
    if beside := _cases([one for one in series if one.note], several):
        told.append(f"the same networks {EQUAL_VIEWS}: {_tally(beside, VERDICTS, 'comparison')}")
        details.append(_decided(beside, tuple(f"{word} {EQUAL_VIEWS}" for word in VERDICTS)))
    if missing := [one for one in shown if not one.known]:
        told.append(f"no pair of runs yet for {_counted(len(missing), 'more comparison')}")
        details.append(f"No pair yet: {'; '.join(_name(one, several) for one in missing)}.")
    sentence = "; ".join(filter(None, told))
    return " ".join([f"**{sentence[0].upper()}{sentence[1:]}.**", *filter(None, details)])


def _name(one: Series, several: bool) -> str:
    names = names_of(one.study, one.network, one.against, one.label)
    return f"{names} ({one.study.name})" if several else names


def _cases(series: Sequence[Series], several: bool) -> list[Case]:
    return [
        (found.gain, f"{_name(one, several)}{f' at {label}' if label else ''}", found.metric)
        for one in series
        for label, found in one.known
    ]


def _tally(cases: Sequence[Case], words: Sequence[str], what: str) -> str:
    """`better in 1 of 3 comparisons, not decided in 2`. words: of a difference above 0, below, and not decided."""
    parts: list[str] = []
    for sign, word in zip((1, -1, 0), words, strict=True):
        members = [gain for gain, _, _ in cases if gain.decided == sign]
        if not members:
            continue
        number = str(len(members)) if parts else _of_all(len(members), len(cases), what)
        few = sum(gain.count < FEW_PAIRS for gain in members)
        who = "" if len(members) == 1 else "all of them " if few == len(members) else f"{few} of them "
        parts.append(f"{word} in {number}" + (f" ({who}on fewer than {FEW_PAIRS} pairs)" if few else ""))
    return ", ".join(parts)


def _of_all(number: int, of: int, what: str) -> str:
    if of == 1:
        return f"the one {what}"
    return f"{'each of the' if number == of else f'{number} of'} {of} {what}s"


def _decided(cases: Sequence[Case], words: Sequence[str]) -> str:
    """The decided ones by name, with their intervals."""
    parts = []
    for sign, word in zip((1, -1), words, strict=False):
        names = [f"{name} {show_difference(metric, gain)}" for gain, name, metric in cases if gain.decided == sign]
        parts += [f"{word[0].upper()}{word[1:]}: {'; '.join(names)}."] if names else []
    return " ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
