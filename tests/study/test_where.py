"""The page of pictures: what is said for each question, from records that are made up."""

import re
from dataclasses import replace

import pytest
from made_up_study import TEXT, write_made_up

from elastic_cnn.cli import main
from elastic_cnn.measure.paired import paired_difference
from elastic_cnn.study.grid import load_study
from elastic_cnn.study.pictures import _family, _limits
from elastic_cnn.study.questions import QUESTIONS
from elastic_cnn.study.report import gather
from elastic_cnn.study.results import read_record, write_record
from elastic_cnn.study.tables import Compared
from elastic_cnn.study.where import answer, write_pictures

RECIPE = "{recipe: digits_demo, views: 64, overrides: [schedule.warmup_epochs=0.1]}"


@pytest.fixture
def folder(tmp_path):
    return write_made_up(tmp_path)


def answers(folder) -> dict[str, str]:
    """What is said for each question that has comparisons, without drawing."""
    (section,), _ = gather(folder / "results")
    found = {question: question.find(section.study, section.cells) for question in QUESTIONS}
    return {question.name: answer(question, series) for question, series in found.items() if series}


def change(folder, **values) -> None:
    """Write the study with parts of its text replaced."""
    text = TEXT
    for before, after in values.values():
        assert before in text
        text = text.replace(before, after)
    (folder / "made_up.yaml").write_text(text)


def test_the_page_answers_what_the_study_measured_and_names_the_rest(folder, capsys):
    page = folder / "where_it_helps.md"
    assert main(["study", "report", "--results", str(folder / "results"), "-o", str(folder / "page.md")]) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert "generated with [page.md](page.md)" in text
    assert "(page.md#made-up) (9 of 9 runs)" in text
    pictures = re.findall(r"!\[[^]]*\]\(images/where_it_helps/([^)]+)\.png\)", text)
    assert pictures == ["data", "size", "resolution"]
    assert sorted(path.stem for path in (folder / "images" / "where_it_helps").iterdir()) == sorted(pictures)
    left_out = text.partition("## Not measured")[2]
    for question in QUESTIONS:
        assert (question.title in left_out) == (question.name not in pictures)
    (folder / "other.md").write_text("")
    again = write_pictures(folder / "results", folder / "page.md")
    assert (again[0], page.read_text()) == (page, text)


def test_another_page_is_not_replaced(folder, capsys):
    """Neither somebody's own nor that of another report beside it, and nothing is written then."""
    arguments = ["study", "report", "--results", str(folder / "results"), "-o"]
    for content in ("mine", "This page of pictures is generated with [other.md](other.md)"):
        (folder / "where_it_helps.md").write_text(content)
        assert main([*arguments, str(folder / "page.md")]) == 2
        assert "does not belong to page.md" in capsys.readouterr().err
        assert (folder / "where_it_helps.md").read_text() == content
    assert not (folder / "page.md").exists()
    assert main([*arguments, str(folder / "page.md"), "--overwrite"]) == 0


def test_sentences_are_computed(folder):
    said = answers(folder)
    assert said["data"] == (
        "**Better in 1 of 3 comparisons, not decided in 2.** Better: elastic - the base +10.00 [+9.00, +11.00]."
    )
    assert said["size"].startswith(
        "**Small objects gain more than large ones in 1 of 2 comparisons, small and large objects are not told "
        "apart in 1; better in 1 of 4 points, not decided in 3.** Small objects gain more than large ones: elastic - "
        "the base by +20.00 [+19.00, +21.00]. Better: elastic - the base at 8-14.5 px +20.00 [+19.00, +21.00]."
    )
    assert said["resolution"].startswith("**The gain at the largest resolution is not told apart")
    assert "elastic - the base at 24 px +10.00" in said["resolution"]
    for seed in (0, 1, 2):  # base and elastic change places
        names = [folder / "results" / "made_up" / f"{name}-seed{seed}.json" for name in ("base", "elastic")]
        base, elastic = (read_record(path) for path in names)
        write_record(names[0], replace(base, values=elastic.values))
        write_record(names[1], replace(elastic, values=base.values))
    assert "Worse: elastic - the base -10.00 [-11.00, -9.00]; other" in answers(folder)["data"]


def test_few_pairs_and_missing_ones_are_counted(folder):
    for name in ("other-seed1", "other-seed2"):
        (folder / "results" / "made_up" / f"{name}.json").unlink()
    told = "not decided in 2 (1 of them on fewer than 3 pairs)"  # the pool has four
    assert f"better in 1 of 3 comparisons, {told}" in answers(folder)["data"].lower()
    (folder / "results" / "made_up" / "other-seed0.json").unlink()
    said = answers(folder)["data"]
    assert "no pair of runs yet for 1 more comparison.**" in said
    assert said.endswith("No pair yet: other - the base.")


def test_a_study_without_sizes_and_other_resolutions_leaves_them_out(folder):
    change(folder, sizes=("small_metric: error_small\nlarge_metric: error_large\nstress: [24]\n", ""))
    assert list(answers(folder)) == ["data"]


def test_budgets_are_recipes_that_differ_in_their_views(folder):
    longer = RECIPE.replace("64", "128")
    change(folder, recipe=(f"recipe: {RECIPE}", f"recipes:\n  short: {RECIPE}\n  long: {longer}"))
    for path in sorted((folder / "results" / "made_up").glob("*.json")):
        record = read_record(path)
        for name, gain in (("short", 0.0), ("long", 0.05 + 0.001 * record.seed)):
            better = gain if record.network == "elastic" else 0.0
            values = {**record.values, "top1_error": record.values["top1_error"] - better}
            cell = f"{record.network}-{name}"
            changed = replace(record, recipe=name, cell=cell, values=values)
            write_record(path.with_name(f"{cell}-seed{record.seed}.json"), changed)
        path.unlink()
    said = answers(folder)
    assert list(said) == ["budget"]
    assert "gain is larger under the largest budget than under the smallest in 1 of 2 comparisons" in said["budget"]
    assert "elastic - the base by +5.10 [+5.00, +5.20]" in said["budget"]
    assert "elastic - the base at 128 views +15.10" in said["budget"]


@pytest.mark.parametrize(
    ("spec", "name"),
    [("spec: {upsample: nearest}", "resampling"), ("spec: {shares: [0.75, 0.25]}", "shares"),
     ("spec: {1: {upsample: nearest}}", "shares")],
)  # fmt: skip
def test_divisions_of_layers_are_told_by_the_spec(folder, spec, name):
    change(
        folder,
        other=("other: {network: resnext_small}", f"other: {{network: resnext_small_selastic, kwargs: {{{spec}}}}}"),
    )
    said = answers(folder)
    assert list(said) == [name]
    assert said[name].startswith("**Better in 1 of 2 comparisons")


def test_equal_time_stands_beside_the_same_networks_at_equal_views(folder):
    timed = "other: {network: resnext_small_elastic, equal_time_to: base}"
    change(folder, other=("other: {network: resnext_small}", timed), pools=(", pooled: both", ""))
    said = answers(folder)
    assert said["time"].startswith(
        "**Not decided in the one comparison; the same networks at equal views: better in the one comparison.** "
        "Better at equal views: elastic - the base +10.00"
    )
    assert said["data"].startswith("**Better in the one comparison.**")


def test_rivals_are_marked(folder):
    change(folder, other=("other: {network: resnext_small}", "other: {network: resnext_small, rival: true}"))
    assert list(answers(folder)) == ["rivals"]


def test_clutter_is_told_by_the_names_of_metrics(folder):
    for path in sorted((folder / "results" / "made_up").glob("*.json")):
        record = read_record(path)
        error = record.values["top1_error"]
        values = {**record.values, "top1_error_plain": 0.1, "top1_error_cluttered": error}
        write_record(path, replace(record, values=values))
    assert "It gains more in clutter: elastic - the base by +10.00 [+9.00, +11.00]." in answers(folder)["clutter"]


def test_panels_name_what_their_metrics_have_in_common():
    names = ("error_small", "miou_small", "f1_overall_small", "map_at_48", "top1_error")
    assert [_family(name) for name in names] == ["error", "mIoU", "f1 overall", "mAP", "top-1 error"]


def test_intervals_of_few_pairs_do_not_set_the_axis(folder):
    def limits(*differences: float) -> tuple[float, float]:
        found = paired_difference(differences, [0.0] * len(differences))
        return _limits([Compared("a", "b", "only", "only", "top1_error", found, False)])

    low, high = limits(0.0, 0.1)  # Student's t of two pairs goes from -58 to +68 points
    assert (low, high) == pytest.approx((-0.6, 10.6))
    assert limits(0.0, 0.1, 0.05)[1] == pytest.approx(100 * paired_difference([0, 0.1, 0.05], [0] * 3).t_high, rel=0.1)
    assert load_study(folder / "made_up.yaml").networks["base"].rival is False
