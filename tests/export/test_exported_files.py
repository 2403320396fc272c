"""Exported files compute what the network does, at sizes and batches they were not captured with, and say how to use
them."""

import json
import re
import shutil
import socket
import threading

import onnx
import onnxruntime
import openvino
import pytest
import torch
from random_norms import random_norms

from elastic_cnn import create_model, load_checkpoint
from elastic_cnn.cli import main
from elastic_cnn.export import export_checkpoint, load_exported
from elastic_cnn.export.formats import FORMATS
from elastic_cnn.export.onnx_file import OPSET
from elastic_cnn.export.openvino_file import compile_model, convert, write_openvino
from elastic_cnn.zoo.checkpoint import NetworkCard, save_checkpoint

SHAPES = [(1, 3, 33, 33), (3, 3, 97, 66), (2, 3, 64, 131), (5, 3, 48, 64)]
# Float32 in another order of sums and with norms folded into weights: 1e-6 seen, of the largest logit.
TOLERANCE = 2e-5


def agree(run, network, shapes):
    for shape in shapes:
        images = torch.randn(shape)
        with torch.no_grad():
            expected = network(images)
        output = run(images)
        assert output.shape == expected.shape
        assert (output - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("format", FORMATS)
def test_any_size_and_batch(files, checkpoint, format):
    run, _ = load_exported(files[format])
    agree(run, load_checkpoint(checkpoint)[0], SHAPES)


@pytest.mark.parametrize("format", FORMATS)
def test_the_card_travels(files, checkpoint, format):
    assert load_exported(files[format])[1] == load_checkpoint(checkpoint)[1]


def test_onnx_runtime_reads_names_and_normalisation_without_this_package(files, tmp_path):
    alone = shutil.copy(files["onnx"], tmp_path)  # weights and all are in one file
    session = onnxruntime.InferenceSession(str(alone), providers=["CPUExecutionProvider"])
    values = session.get_modelmeta().custom_metadata_map
    assert json.loads(values["classes"]) == ["bee", "ant", "Käfer"]
    assert json.loads(values["mean"]) == [0.4, 0.5, 0.6]
    assert json.loads(values["std"]) == [0.2, 0.3, 0.4]
    assert json.loads(values["input_size"]) == [48, 64]
    assert values["task"] == "classification"
    assert session.get_inputs()[0].name == "images"
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3]


def test_every_free_axis_of_an_onnx_file_bears_a_name_that_means_something(files):
    """Those within are computed of the input's: no symbol of the exporter's own is left in any tensor."""
    graph = onnx.load(files["onnx"]).graph
    texts = {
        dim.dim_param
        for value in [*graph.input, *graph.value_info, *graph.output]
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    assert {word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text)} == {"batch", "height", "width"}


def test_openvino_reads_names_without_this_package(files):
    model = openvino.Core().read_model(str(files["openvino"]))
    assert json.loads(model.get_rt_info(["elastic_cnn", "classes"]).astype(str)) == ["bee", "ant", "Käfer"]
    assert [side.is_dynamic for side in model.inputs[0].partial_shape] == [True, False, True, True]


def test_the_optimized_form_is_inside(files):
    model = onnx.load(files["onnx"])
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization"})
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]


def test_norms_behind_converted_convolutions_fold_too(convolutions_checkpoint, tmp_path):
    """A norm that follows the sum of an elastic convolution's branches goes into the weights of all of them."""
    exported = export_checkpoint(convolutions_checkpoint, tmp_path / "net.onnx", fixed_size=(33, 40))
    assert all(check.error < TOLERANCE for check in exported.checks)
    graph = onnx.load(exported.path).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_segmentation_at_any_size(segmentation_checkpoint, tmp_path):
    """Logits of every pixel: DLA-Up's decoder crops at each level, to odd and to even sizes; in both runtimes."""
    exported = export_checkpoint(segmentation_checkpoint, tmp_path / "seg.onnx")
    assert exported.sizes.multiple == 1
    run, card = load_exported(exported.path)
    assert card.task == "segmentation"
    network, _ = load_checkpoint(segmentation_checkpoint)
    agree(run, network, SHAPES)
    agree(compile_model(convert(exported.path)), network, SHAPES)


def test_branches_joined_for_processors_with_a_matrix_unit(tmp_path, capsys):
    """The command's `--target amx`: one last convolution a block, behind a concatenation; the same answers."""
    torch.manual_seed(0)
    network = random_norms(create_model("resnext_small_elastic", num_classes=3))
    saved = save_checkpoint(
        tmp_path / "net.safetensors", network, NetworkCard("resnext_small_elastic", {"num_classes": 3})
    )
    file = tmp_path / "amx.onnx"
    words = ["export", str(saved), "-o", str(file), "--target", "amx", "--fixed-size", "33x40"]
    assert main(words) == 0, capsys.readouterr()
    blocks = sum(type(module).__name__ == "ElasticResidual" for module in network.modules())
    assert f"the branches of {blocks} blocks joined" in capsys.readouterr().out
    joined = [node for node in onnx.load(file).graph.node if node.op_type == "Concat" and node.attribute[0].i == 1]
    assert len(joined) == blocks > 0  # along the channels; sizes may be put together, too
    agree(load_exported(file)[0], network.eval(), [(2, 3, 33, 40)])


def test_a_target_that_changes_nothing_is_told(checkpoint, tmp_path, capsys):
    words = ["export", str(checkpoint), "-o", str(tmp_path / "n.pt2"), "--target", "amx", "--fixed-size", "33x40"]
    assert main(words) == 0
    assert "no block of this network has branches to join" in capsys.readouterr().out


def test_one_size_alone(checkpoint, tmp_path):
    """The graph of a fixed size still takes any batch."""
    exported = export_checkpoint(checkpoint, tmp_path / "fixed.pt2", fixed_size=(50, 41))
    assert str(exported.sizes) == "50x41 alone"
    run, _ = load_exported(exported.path)
    agree(run, load_checkpoint(checkpoint)[0], [(1, 3, 50, 41), (4, 3, 50, 41)])
    with pytest.raises(Exception, match="50"):
        run(torch.zeros(1, 3, 51, 41))


def test_openvino_files_are_made_without_a_word_to_anybody(files, tmp_path, monkeypatch):
    """OpenVINO's own converter counts its users: it calls a server and keeps a number in the home directory."""
    called = []

    def refuse(*arguments: object, **_: object) -> None:
        called.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # where it is silent by itself
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    before = threading.enumerate()
    write_openvino(tmp_path / "net.xml", convert(files["onnx"]), {"network": "x"})
    for thread in set(threading.enumerate()) - set(before):
        thread.join(10)
    assert called == []
    assert list((tmp_path / "home").iterdir()) == []
    assert (tmp_path / "net.bin").exists()
