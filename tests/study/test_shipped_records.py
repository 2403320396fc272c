"""The records in the repository are those of the studies beside them."""

from pathlib import Path

import pytest

from elastic_cnn.cli import main
from elastic_cnn.study.runner import _shown

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.mark.parametrize("study", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_records_are_of_the_configuration_that_the_study_describes(study, tmp_path, capsys):
    results = STUDIES / "results"
    assert main(["study", str(study), "--list", "--results", str(results), "--data", str(tmp_path)]) == 0
    done = capsys.readouterr().out.count(f"done     {study.stem}/")
    records = [path for path in (results / study.stem).glob("*.json") if not path.stem.endswith("-timing")]
    assert done == len(records)


def test_records_name_no_path_of_a_machine():
    wrong = [path.name for path in (STUDIES / "results").rglob("*.json") if "elastic study /" in path.read_text()]
    assert wrong == []
    assert _shown("/somewhere/checkout/studies/digits.yaml") == "studies/digits.yaml"
    assert _shown("studies/full/digits.yaml") == "studies/full/digits.yaml"
