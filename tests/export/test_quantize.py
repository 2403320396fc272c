"""8-bit files: smaller, in both runtimes, close to the network, calibrated on photos."""

import onnx
import pytest
import torch

from elastic_cnn import load_checkpoint
from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.data.photo_files import draw
from elastic_cnn.export import export_checkpoint, job, load_exported
from elastic_cnn.export.check import same_best, same_signs
from elastic_cnn.export.photos import open_split, read_images, top1
from elastic_cnn.export.quantize import quantize_onnx
from elastic_cnn.zoo.checkpoint import InputSpec


@pytest.fixture(scope="module")
def exported(checkpoint, photos, tmp_path_factory):
    """The whole way to an OpenVINO file."""
    out = tmp_path_factory.mktemp("int8") / "small.xml"
    return export_checkpoint(checkpoint, out, int8=job.Int8(str(photos), 6), test=job.Test(str(photos)))


@pytest.fixture(scope="module")
def quantized(files, checkpoint, photos, tmp_path_factory):
    """The float32 ONNX file with 8 bits."""
    out = tmp_path_factory.mktemp("int8") / "small.onnx"
    spec = load_checkpoint(checkpoint)[1].input
    quantize_onnx(files["onnx"], out, read_images(find_pictures(photos), spec, LeftOut()), "percentile")
    return out


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_close_to_the_network(exported, quantized, checkpoint, format):
    """8 bits an activation and 13 layers: a few per cent of the largest logit."""
    network, card = load_checkpoint(checkpoint)
    run, read = load_exported(quantized if format == "onnx" else exported.path)
    assert read == card
    for shape in ((2, 3, 48, 64), (1, 3, 65, 33)):
        images = torch.rand(shape)
        with torch.no_grad():
            expected = network(images)
        error = (run(images) - expected).abs().max() / expected.abs().max()
        assert 1e-5 < error < 0.2  # not float32, and not nonsense


def test_weights_are_stored_in_8_bits(quantized, files):
    model = onnx.load(quantized)
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}
    assert quantized.stat().st_size < files["onnx"].stat().st_size
    assert {"classes", "elastic_cnn"} <= {entry.key for entry in model.metadata_props}


def test_report(exported):
    assert exported.calibrated + exported.compared == 11  # of 12 photos one is broken
    assert exported.checks == []
    assert 0.5 <= exported.agreement <= 1
    assert all(0 <= value <= 1 for value in exported.top1)


def test_agreement_and_top1_by_hand(photos):
    output, expected = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert same_best(output, expected) == 0.5
    assert same_signs(output, expected) == pytest.approx(2 / 4)
    maps = torch.zeros(1, 2, 2, 2)
    other = maps.clone()
    other[0, 1, 0, 0] = 1
    assert same_best(other, maps) == 0.75

    def always_first(images):
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(images), 3)

    folder, left_out = open_split(str(photos), "val", ("bee", "ant", "Käfer"), InputSpec((32, 32))), LeftOut()
    [share] = top1([always_first], folder, 100, left_out)
    assert share == pytest.approx(4 / 11)
    assert len(left_out.paths) == 1


def test_photos_are_drawn_by_seed_and_do_not_overlap(photos):
    found = find_pictures(photos)
    assert len(found) == 12
    calibration, others = draw(found, 5, 0)
    assert draw(found, 5, 0) == (calibration, others)
    assert draw(found, 5, 1) != (calibration, others)
    assert len(calibration) == len(others) == 5
    assert not set(calibration) & set(others)


def test_folders_without_photos(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        find_pictures(tmp_path / "missing")
    (tmp_path / "x.txt").write_text("no photo")
    with pytest.raises(ValueError, match=r"holds no images \(1 \.txt\)"):
        find_pictures(tmp_path)


def test_bad_requests(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        job.Int8("x", 0)
    with pytest.raises(ValueError, match=r"unknown calibration method 'magic'; choose from minmax"):
        job.Int8("x", method="magic")
    with pytest.raises(ValueError, match="not pt2"):
        export_checkpoint(checkpoint, tmp_path / "net.pt2", int8=job.Int8("x"))
