"""The page of results from records that are made up, so that every number is known."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_study import ERRORS, TEXT, write_made_up
from scipy import stats

from elastic_cnn.cli import main
from elastic_cnn.files import write_json
from elastic_cnn.measure.paired import paired_difference
from elastic_cnn.study.grid import load_study
from elastic_cnn.study.report import make_sections, write_report
from elastic_cnn.study.results import PARQUET, collect, read_record, read_table, write_record
from elastic_cnn.study.tables import compare, lower_is_better, make_cells
from elastic_cnn.study.units import metric_title, show_difference


@pytest.fixture
def folder(tmp_path):
    return write_made_up(tmp_path)


def test_cells_and_differences_are_those_of_the_records(folder):
    rows = read_table(collect(folder / "results"))
    study = load_study(folder / "made_up.yaml")
    cells = make_cells(rows, "made_up")
    spread = cells["base", "only", "only"].spread("top1_error")
    assert (spread.mean, spread.deviation, spread.count) == pytest.approx((0.32, np.std(ERRORS["base"], ddof=1), 3))
    assert cells["base", "only", "only"].spread("train_loss_end").mean == 1.0
    found = {one.network: one for one in compare(study, cells, "top1_error")}
    difference = np.subtract(ERRORS["elastic"], ERRORS["base"])
    assert found["elastic"].difference.mean == pytest.approx(difference.mean())
    student = stats.ttest_1samp(difference, 0).confidence_interval()
    assert found["elastic"].difference.t_low == pytest.approx(student.low)
    assert found["elastic"].verdict == "better"  # lower is better
    assert found["other"].verdict == "not decided"
    assert found["both"].difference.count == 6


def test_pairs_are_matched_by_seed(folder):
    (folder / "results" / "made_up" / "base-seed1.json").unlink()
    cells = make_cells(read_table(collect(folder / "results")), "made_up")
    found = compare(load_study(folder / "made_up.yaml"), cells, "top1_error")[0]
    assert found.difference.count == 2
    assert found.difference.mean == pytest.approx((0.20 - 0.30 + 0.25 - 0.34) / 2)


def test_the_page_has_every_number_with_its_source(folder):
    page = folder / "docs" / "results.md"
    written = write_report(folder / "results", page)
    text = page.read_text()
    assert "| the base | 1.000M | 2.0M | 64 | 9 | 32.00 ± 2.00 (3) |" in text
    assert "-10.00 [" in text
    assert "**better**" in text
    assert "small gains more than large" in text
    assert "**(more)**" in text
    assert "42.00 ± 2.00 (3)" in text  # at 24 px
    assert "Commit: abc123" in text
    assert "A CPU, 1 thread of 2" in text
    assert "is not told apart from the base" in text
    assert "A remark of ours." in text
    assert "9 runs on A CPU, 1 thread of 2, of 64 views and 9 seconds of the processor each" in text
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (page.parent / target).is_file()
    assert all(Path(path).is_file() for path in written)
    again = write_report(folder / "results", page)
    assert (page.read_text(), written) == (text, again)


def test_the_direction_is_kept_at_other_resolutions(folder):
    """Of a metric of one's own, whose name does not say that less of it is better."""
    (folder / "made_up.yaml").write_text(TEXT.replace("top1_error", "distance"))
    study = load_study(folder / "made_up.yaml")
    assert [lower_is_better(study, name) for name in ("distance", "distance_at_24", "f1_at_24")] == [True, True, False]


def test_missing_runs_are_told(folder):
    (folder / "results" / "made_up" / "base-seed1.json").unlink()
    write_report(folder / "results", folder / "page.md")
    assert "1 run(s) not done yet" in (folder / "page.md").read_text()


def test_the_command_and_its_errors(folder, capsys):
    arguments = ["study", "report", "--results", str(folder / "results"), "-o", str(folder / "page.md")]
    assert main(arguments) == 0
    assert str(folder / "page.md") in capsys.readouterr().out
    (folder / "made_up.yaml").rename(folder / "made_upp.yaml")
    assert main(arguments) == 2
    assert "did you mean" in capsys.readouterr().err
    (folder / "results" / "made_up" / "base-seed1.json").write_text('{"study": 1}')
    assert main(arguments) == 2
    assert "base-seed1.json is not the record of a run" in capsys.readouterr().err


def test_a_table_of_something_else_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"study": ["a"]}), tmp_path / PARQUET)
    with pytest.raises(ValueError, match="lacks the columns cell"):
        read_table(tmp_path / PARQUET)


def test_units():
    assert metric_title("map_at_48") == "mAP at 48 px (%)"
    assert metric_title("iou_pole") == "iou pole (%)"
    assert show_difference("policy_mean_rho", paired_difference([0.5], [0.25])) == "+0.25"
    assert make_sections([], []) == []


def test_nothing_in_the_page_is_of_other_studies(folder):
    """No folder, hardware, budget or file that is not the study's own."""
    page = folder / "page.md"
    write_report(folder / "results", page)
    text = page.read_text()
    for word in ("imagenette", "coco", "camvid", "studies/full", "half a minute", "small pictures", "DIR", "GPU"):
        assert word not in text
    assert "ewer than three pairs" not in text
    study = load_study(folder / "made_up.yaml")
    assert study.question in text
    photos = TEXT.replace("{kind: digits}", "{kind: photos, folder: my_birds}").replace("digits_demo", "small_images")
    (folder / "made_up.yaml").write_text(photos)
    write_report(folder / "results", page)
    assert "`DIR` holds the folders that the studies name: `my_birds`." in page.read_text()


def test_one_pair_is_called_that(folder):
    for seed in (1, 2):
        (folder / "results" / "made_up" / f"other-seed{seed}.json").unlink()
    write_report(folder / "results", folder / "page.md")
    text = (folder / "page.md").read_text()
    assert "- other - the base: +1.00 under one seed, which decides nothing." in text
    assert "other is not told apart" not in text


def test_gains_are_those_of_one_recipe(folder):
    """With two recipes each row is of its own; their differences of gains differ."""
    one = "recipe: {recipe: digits_demo, views: 64, overrides: [schedule.warmup_epochs=0.1]}"
    recipes = "".join(f"  {name}: {one.removeprefix('recipe: ')}\n" for name in ("short", "long"))
    (folder / "made_up.yaml").write_text(TEXT.replace(one, f"recipes:\n{recipes.rstrip()}"))
    for path in sorted((folder / "results" / "made_up").glob("*.json")):
        record = read_record(path)
        for name, shift in (("short", 0.0), ("long", 0.1)):
            values = {**record.values, "error_small": record.values["error_small"] + shift * (record.network == "base")}
            cell = f"{record.network}-{name}"
            changed = replace(record, recipe=name, cell=cell, values=values)
            write_record(path.with_name(f"{cell}-seed{record.seed}.json"), changed)
        path.unlink()
    write_report(folder / "results", folder / "page.md")
    rows = [
        line.split(" | ") for line in (folder / "page.md").read_text().splitlines() if line.startswith("| elastic - ")
    ]
    gains = {row[0]: row[-1] for row in rows if "(more)" in row[-1]}
    assert gains["| elastic - the base (short)"].startswith("+20.00")
    assert gains["| elastic - the base (long)"].startswith("+30.00")


def test_few_pairs_are_counted(folder):
    for seed in (1, 2):
        (folder / "results" / "made_up" / f"other-seed{seed}.json").unlink()
    write_report(folder / "results", folder / "page.md")
    assert "Fewer than three pairs stand behind 1 of the comparisons above." in (folder / "page.md").read_text()


def test_a_report_of_named_studies_needs_no_file_beside_the_results(folder, tmp_path):
    """And holds those studies alone."""
    (tmp_path / "elsewhere").mkdir()
    path = (folder / "made_up.yaml").rename(tmp_path / "elsewhere" / "made_up.yaml")
    with pytest.raises(ValueError, match=r"elastic study report STUDY\.yaml"):
        write_report(folder / "results", folder / "page.md")
    write_report(folder / "results", folder / "page.md", studies=[load_study(path)])
    assert "**better**" in (folder / "page.md").read_text()
    (tmp_path / "elsewhere" / "other.yaml").write_text(TEXT)
    with pytest.raises(ValueError, match=r"no results of .*other\.yaml"):
        write_report(folder / "results", folder / "page.md", studies=[load_study(tmp_path / "elsewhere/other.yaml")])


def test_budgets_of_time_are_told_of_either_side(folder):
    write_json(
        folder / "results" / "made_up" / "other-timing.json", {"ratio": 0.8, "hardware": "A CPU", "base_ms": 1.0}
    )
    timed = TEXT.replace("other: {network: resnext_small}", "other: {network: resnext_small, equal_time_to: elastic}")
    (folder / "made_up.yaml").write_text(timed.replace("against: base, pooled: both}", "against: other}", 1))
    write_report(folder / "results", folder / "page.md")
    told = "A training step of other takes 0.80 times that of elastic, and its views were divided by that (A CPU)."
    assert (folder / "page.md").read_text().count(told) == 2


def test_the_template_is_a_study_that_runs_on_photos(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "new", "my_birds.yaml"]) == 0
    study = load_study("my_birds.yaml")
    assert study.data_sets["only"].folder == "my_birds"
    assert [len(study.runs()), len(study.comparisons)] == [12, 3]
    assert main(["study", "my_birds.yaml", "--list"]) == 0
    assert capsys.readouterr().out.count("missing  my_birds/") == 12
    for arguments, message in (
        (["new", "my_birds.yaml"], "exists already"),
        (["new", "birds"], "ends in .yaml"),
        (["new", "a b.yaml"], "letters, digits"),
        (["new"], "takes the name of one study"),
        (["new", "b.yaml", "--processes", "2"], "makes no use of --processes"),
        (["my_birds.yaml", "--list", "-o", "page.md"], "makes no use of -o"),
    ):
        assert main(["study", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["study", "new", "my_birds.yaml", "--overwrite"]) == 0
