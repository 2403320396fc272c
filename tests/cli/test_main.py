"""The command line as a whole: exit codes, one clear line an error, and `elastic summary`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import elastic_cnn
from elastic_cnn.cli import COMMANDS, main


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "elastic_cnn", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"elastic-cnn {elastic_cnn.__version__}\n"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="the system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_a_stream_is_named(unbuffered):
    """Also where text waits to be written when the command has ended; behind standard error, the exit code is left."""
    for word, stream in (("--version", "stdout"), ("nothing", "stderr")):
        with open("/dev/full", "w") as full:
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
            command = ["-c", "import sys; from elastic_cnn.cli import main; sys.exit(main())", word]
            environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
            done = subprocess.run([sys.executable, *command], env=environment, text=True, check=False, **streams)
        assert done.returncode == 2
        if stream == "stdout":
            assert done.stderr == "elastic: error: standard output could not be written (No space left on device)\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: elastic {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "required: COMMAND"),
        (["sumary"], "invalid choice: 'sumary'"),
        (["sumary"], "did you mean summary"),
        (["finetune", "--data", "x"], "; finetune is a recipe: elastic train finetune --data DIR -o RUN_DIR (see"),
        (["summary"], "name a network"),
        (["summary", "resnext50_elastik"], "did you mean resnext50_elastic"),
        (["summary", "--table1", "-c", "0"], "c=0"),
        (["summary", "resnext50", "--size", "0"], "--size"),
        (["summary", "missing.safetensors"], "no checkpoint at missing.safetensors"),
        (["summary", "\x1b[2Jx.safetensors"], "no checkpoint at \\x1b[2Jx.safetensors"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, word, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert word in error
    assert "Traceback" not in error
    assert "\x1b" not in error


def test_faults_of_the_program_are_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr("elastic_cnn.cli.summary.run", lambda args: 1 / 0)
    assert main(["summary", "resnext50"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["summary", "resnext50", "--traceback"])


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "paper"),
    [
        ("resnext50", "25.03M", "4.230G", "25.0M +4.2G"),
        ("resnext50_elastic", "25.25M", "4.177G", "25.2M +4.2G"),
        ("resnext50_selastic", "25.03M", "3.352G", "25.0M +3.4G"),
    ],
)
def test_summary_prints_ours_beside_the_papers(name, parameters, macs, paper, capsys):
    assert main(["summary", name]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{name} +{parameters} +{macs}", out)
    assert re.search(rf"paper: .* +{paper}", out)
    assert "not counted: " in out


def test_table_1_and_figure_4(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["summary", "--table1", "-n", "10", "-c", "2", "-k", "3", "-r", "1", "2"]) == 0
    assert re.search(r"Elastic +2,250 +0\.625 +36 +1\.000", capsys.readouterr().out)
    path = tmp_path / "figure4.svg"
    assert main(["summary", "--figure4", str(path)]) == 0
    assert "ResNeXt50+Elastic" in path.read_text() or path.stat().st_size > 10_000
    assert main(["summary", "--figure4", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "page"),
    [(["train", "small_images", "--data", "x", "-o", "y", "--set", "a=1"], "elastic train"), (["--sett"], "elastic")],
)
def test_a_wrong_argument_names_the_help_of_its_command(arguments, page, capsys):
    assert main(arguments) == 2
    assert f"(see `{page} --help`)" in capsys.readouterr().err
