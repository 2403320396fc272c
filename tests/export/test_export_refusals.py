"""What must not be written or read: files that differ from the network, broken files, existing ones."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic_cnn import load_checkpoint
from elastic_cnn.export import check, export_checkpoint, job, load_exported
from elastic_cnn.export.description import Sizes
from elastic_cnn.export.formats import FORMATS
from elastic_cnn.export.program_file import _suggested


def test_a_file_that_differs_is_not_left(checkpoint, tmp_path, monkeypatch):
    def spoil(network, **options):
        network.fc.weight.data[0, 0] += 0.05
        return network.eval()

    monkeypatch.setattr(job, "optimize_for_inference", lambda network, **options: spoil(_copy(network)))
    with pytest.raises(ValueError, match=r"differs from the network at input 1x3x48x64.*no file was left"):
        export_checkpoint(checkpoint, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def _copy(network):
    import copy

    return copy.deepcopy(network)


@torch.no_grad()
def test_check_notices_shapes_and_nan(checkpoint):
    network, _ = load_checkpoint(checkpoint)
    shapes = [(1, 3, 40, 40)]
    assert check.check(network, network, shapes)[0].error == 0
    for wrong in (lambda x: network(x)[:, :2], lambda x: network(x) * float("nan")):
        with pytest.raises(ValueError, match="differs"):
            check.check(wrong, network, shapes)


def test_existing_files_stay(checkpoint, tmp_path):
    for name in ("net.onnx", "net.bin"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"net.onnx exists already"):
        export_checkpoint(checkpoint, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"net.bin exists already"):
        export_checkpoint(checkpoint, tmp_path / "net.xml")
    assert (tmp_path / "net.onnx").read_text() == (tmp_path / "net.bin").read_text() == "mine"


@pytest.mark.parametrize("format", FORMATS)
def test_broken_files_are_named(files, tmp_path, format):
    source = files[format]
    broken = tmp_path / source.name
    broken.write_bytes(source.read_bytes()[: source.stat().st_size // 3])
    if format == "openvino":
        with pytest.raises(ValueError, match=r"lacks its weights net.bin"):
            load_exported(broken)
        (tmp_path / "net.bin").write_bytes(source.with_suffix(".bin").read_bytes())
    with pytest.raises(ValueError, match=f"{source.name} is not a readable|is not a torch.export program"):
        load_exported(broken)


def test_files_without_a_card_and_of_unknown_kind(tmp_path):
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))
    torch.export.save(program, tmp_path / "bare.pt2")
    with pytest.raises(ValueError, match=r"bare.pt2 does not say how to use it"):
        load_exported(tmp_path / "bare.pt2")
    with pytest.raises(ValueError, match=r"ends in .onnx, .xml, .pt2"):
        load_exported(tmp_path / "net.txt")
    with pytest.raises(ValueError, match="there is no file"):
        load_exported(tmp_path / "net.onnx")


sides = st.integers(1, 600)


@given(sides, sides, st.integers(1, 64), st.sampled_from([1, 2, 16, 32]), st.booleans())
def test_near_sizes_are_taken(height, width, minimum, multiple, odd):
    sizes = Sizes(max(minimum, multiple) // multiple * multiple, multiple)
    near = sizes.near(height, width, odd)
    assert sizes.takes(*near)
    if odd and multiple == 1:
        assert near[0] % 2 == near[1] % 2 == 1
    if min(height, width) >= sizes.minimum:
        assert max(abs(near[0] - height), abs(near[1] - width)) <= max(1, multiple / 2)


def test_advice_of_torch_export_is_followed():
    head = "Constraints violated\nSuggested fixes:\n"
    assert _suggested(head + "  height = Dim('height', min=61)\n  width = Dim('width', min=40)\n") == Sizes(61)
    parts = "  _height = Dim('_height', max=oo)\n  height = 32*_height\n  width = 32*_width\n\nThe error"
    assert _suggested(head + parts) == Sizes(64, 32)
    assert _suggested(head + "  height = 160\n") is None
    assert _suggested("something else") is None


def test_networks_that_no_graph_can_hold_are_named(tmp_path, checkpoint, monkeypatch):
    class Whimsical(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    monkeypatch.setattr(job, "optimize_for_inference", lambda network, **options: Whimsical())
    with pytest.raises(ValueError, match=r"Whimsical cannot be captured as a graph; a fixed size may work"):
        export_checkpoint(checkpoint, Path(tmp_path) / "net.pt2")
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(ValueError, match=r"\(--fixed-size\), or torch 2.13 or newer \(this is 2.12.1\+cpu, which"):
        export_checkpoint(checkpoint, Path(tmp_path) / "net.pt2")
