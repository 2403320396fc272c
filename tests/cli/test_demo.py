"""`elastic demo` on the command line."""

import json

from elastic_cnn.cli import main


def test_end_to_end(tmp_path, capsys):
    out = tmp_path / "out"
    small = ["--images", "32", "--epochs", "1", "--seeds", "1", "--processes", "0"]
    assert main(["demo", "-o", str(out), *small, "--seed", "1", "--no-progress"]) == 0
    printed = capsys.readouterr().out
    assert "ResNeXt small + Elastic" in printed
    assert "multiply-adds" in printed
    assert f"report: {out}/report.html" in printed
    assert json.loads((out / "results.json").read_text())["command"] == (
        "elastic demo --seed 1 --seeds 1 --epochs 1 --images 32"
    )
    assert "elastic demo --seed 1" in (out / "report.html").read_text()

    assert "One seed decides nothing" in printed or "Neither network has learnt enough" in printed
    assert main(["demo", "-o", str(out), *small]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "exists already" in error


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "out"), "--data", str(tmp_path / "missing")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("elastic: error: there is no folder")
    assert error.count("\n") == 1
    assert main(["demo", "-o", str(tmp_path / "out"), "--images", "3"]) == 2
    assert "--images 3" in capsys.readouterr().err
    assert main(["demo", "-o", str(tmp_path / "out"), "--processes", "-1"]) == 2
    assert "--processes must be 0 or more" in capsys.readouterr().err


def test_writes_the_digits_as_photos(tmp_path, capsys):
    root = tmp_path / "digits"
    assert main(["demo", "--write-digits", str(root), "--images", "6"]) == 0
    assert len(list(root.glob("train/*/*.png"))) == 6
    assert len(list(root.glob("val/*/*.png"))) == 2
    assert len((root / "sizes.csv").read_text().splitlines()) == 9
    assert main(["demo", "--write-digits", str(root), "--images", "6"]) == 2
    assert "exists already" in capsys.readouterr().err
