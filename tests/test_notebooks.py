"""The notebooks of the documentation run from the first cell to the last: by nbclient where it is installed."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.settings import Settings

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))
REPORTS = {
    "first_steps": ("report/index.html", "explorer/page/index.html"),
    "convert_and_finetune": ("report/index.html",),
}


def test_notebooks_are_kept_without_outputs():
    assert {path.stem for path in NOTEBOOKS} == set(REPORTS)
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[2] / "src"), os.environ.get("PYTHONPATH", "")]))
    if all(find_spec(name) for name in ("ipykernel", "nbformat", "nbclient")):
        import nbformat
        from nbclient import NotebookClient

        NotebookClient(nbformat.read(path, 4), timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    else:
        _run_here(path)
    for name in REPORTS[path.stem]:
        assert (tmp_path / name).is_file(), name


def _run_here(path: Path) -> None:
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)


@pytest.mark.slow
def test_bars_are_shown_in_notebooks_without_a_terminal(tmp_path):
    """Asked in a real kernel, whose standard error is no terminal."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    asked = "from elastic_cnn.tasks.console import Console; print(Console().progress, Console(False).progress)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(asked)])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output["text"] for output in notebook.cells[0].outputs if output.get("name") == "stdout"]
    assert said == ["True False\n"]


def test_a_process_that_imports_a_kernel_is_no_notebook(monkeypatch):
    pytest.importorskip("ipykernel.kernelapp")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not Console().progress
    assert Console(Settings(progress=True).progress).progress
