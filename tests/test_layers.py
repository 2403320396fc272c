"""The package's rooms: who may import whom, and that the core needs no extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "elastic_cnn"
FOR_ALL = {"elastic_cnn.tasks.spec"}  # what a task is; imports nothing
UTILITIES = {"extras", "files", "fonts", "hints", "text"}
MAY_IMPORT = {
    "nn": set(),
    "kernels": {"measure"},
    "surgery": {"nn"},
    "zoo": {"surgery", "nn", "measure"} | UTILITIES,
    "data": UTILITIES,
    "metrics": UTILITIES,
    "measure": UTILITIES,
    "tasks": {"zoo", "surgery", "nn", "data", "metrics", "fast"} | UTILITIES,
    "policy": {"nn", "data", "zoo", "metrics", "measure"} | UTILITIES,
    "analysis": {"zoo", "tasks", "policy", "surgery", "nn", "data", "metrics", "fast", "export", "kernels", "measure"}
    | UTILITIES,
    "evaluation": {"zoo", "tasks", "policy", "demo", "data", "metrics", "measure"} | UTILITIES,
    "demo": {"zoo", "tasks", "policy", "analysis", "nn", "data", "metrics", "measure", "conversion", "fast"}
    | UTILITIES,
    "study": {"tasks", "zoo", "analysis", "policy", "data", "nn", "surgery", "metrics", "fast", "measure"} | UTILITIES,
    "fast": {"nn", "surgery", "kernels"} | UTILITIES,
    "export": {"zoo", "fast", "data", "nn", "kernels"} | UTILITIES,
    "conversion": {"surgery", "nn", "data", "measure", "analysis", "policy"} | UTILITIES,
    "functions": {"evaluation", "tasks", "policy", "analysis"} | UTILITIES,
    "serve": {"policy", "data", "fast", "nn"} | UTILITIES,
    "extras": set(),
    "files": set(),
    "fonts": set(),
    "hints": set(),
    "text": set(),
}


def room(module: str) -> str:
    return module.split(".")[1] if module.startswith("elastic_cnn.") else ""


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module != "elastic_cnn" else {f"elastic_cnn.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("elastic_cnn.") and name != "elastic_cnn.__version__"}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_rooms_import_only_what_they_may(name):
    files = sorted((PACKAGE / name).rglob("*.py")) if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
    assert files
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in files
        for module in imports(file)
        if room(module) not in MAY_IMPORT[name] | {name} and module not in FOR_ALL
    ]
    assert not wrong


def test_what_all_may_import_imports_nothing():
    for module in FOR_ALL:
        assert not imports(PACKAGE / "tasks" / f"{module.rsplit('.', 1)[1]}.py")
        assert not imports(PACKAGE / "tasks" / "__init__.py")


def test_every_room_has_its_rule():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"cli", "__init__", "__main__"} == set(MAY_IMPORT)


def test_the_core_needs_no_extra():
    extras = (
        "lightning torchmetrics matplotlib pyarrow sklearn scipy tensorboard webdataset segmentation_models_pytorch "
        "onnx onnxscript onnxruntime openvino simplejpeg"
    )
    code = f"import sys, elastic_cnn; print([name for name in {extras.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
