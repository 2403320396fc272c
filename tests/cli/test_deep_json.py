"""JSON nested so deeply that Python's reader gives up, and values of another type, in files that this package wrote."""

import pytest
import torch
from bad_runs import Shell
from safetensors.torch import save_file

from elastic_cnn.conversion.keep import Keep
from elastic_cnn.export import program_file
from elastic_cnn.policy.table import PolicyInfo
from elastic_cnn.tasks.run_folder import RunFolder

DEEP = "[" * 100_000


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.mark.parametrize("text", [DEEP, '{"data": 5}', '{"data": null}', '{"data": "\\ud800"}', "{", "[]"])
def test_where_the_data_of_a_run_lies(text, tiny, tmp_path, shell):
    run = tmp_path / "run"
    train = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", run, "--workers", "0", "--no-progress")
    assert shell.run(*train, "--accelerator", "cpu") == 0
    (run / "data.json").write_text(text)
    with pytest.raises(ValueError, match="does not say where its data lies"):
        RunFolder(run).data()
    shell.refuses("eval", run, "--workers", "0", named="--data DIR", says="the data is missing")


def test_the_description_of_a_policy_table():
    with pytest.raises(ValueError, match="not one of a policy table"):
        PolicyInfo.from_json(DEEP)


def test_what_is_kept_of_a_conversion(tmp_path):
    network = torch.nn.Linear(2, 2)
    keep = Keep(tmp_path, network, [], "what")
    save_file(network.state_dict(), keep.path, {"blocks": DEEP})
    with pytest.raises(ValueError, match="cannot be read"):
        keep.load(network)


@pytest.mark.parametrize("text", [DEEP, "{"])
def test_the_description_in_an_exported_program(tmp_path, text):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "net.pt2", extra_files={program_file.METADATA_FILE: text})
    with pytest.raises(ValueError, match=r"net.pt2: its description is no JSON"):
        program_file.read(tmp_path / "net.pt2", None)
