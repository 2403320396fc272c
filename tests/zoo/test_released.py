"""Released tensors in our networks give the released code's own numbers.

Twice: against the arrays that the released code itself computed (the reference folder, where it is there), and, for
every network of the paper at small widths, against `released_code`, an independent account of the same mathematics.
"""

import functools
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from elastic_cnn import create_model
from elastic_cnn.policy import scores
from elastic_cnn.zoo.released import recognise, strip, translate, unused

sys.path.insert(0, str(Path(__file__).parent))
import released_code

# Float32 sums in another order: the networks agree to about 1e-6 of the largest value.
TOLERANCE = 1e-5

REFERENCES = [
    "resnext50",
    "resnext50_elastic",
    "densenet201_elastic",
    "dla60x_elastic",
    "deeplab_resnext50_elastic",
    "dla60x_elastic_seg",
]


@functools.cache
def load_reference(folder, name):
    """(released tensors, arrays of the released code's outputs, images(batch, height, width))"""
    spec = importlib.util.spec_from_file_location("reference_fill", folder / "reference_fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return (
        module.fill(json.loads((folder / f"{name}.json").read_text())),
        np.load(folder / f"{name}.npz"),
        module.images,
    )


def relative_error(value, expected):
    value, expected = (torch.as_tensor(array).double() for array in (value, expected))
    assert value.shape == expected.shape
    return float((value - expected).abs().max() / expected.abs().max())


def load(released, **kwargs):
    """The recognised network with the released tensors, in eval mode, and the names that were ignored."""
    recognised = recognise(released)
    network = create_model(recognised.name, **recognised.kwargs, **kwargs).eval()
    translation = translate(released, network)
    network.load_state_dict(translation.state)
    return network, translation.ignored


@pytest.mark.parametrize("name", REFERENCES)
def test_outputs_and_scale_policy_equal_the_released_code(shared, name):
    released, expected, images = load_reference(shared / "reference", name)
    network, _ = load(released)
    sizes = [key.removeprefix("output_") for key in expected.files if key.startswith("output_")]
    assert sizes
    for size in sizes:
        x = images(2, *map(int, size.split("x")))
        with torch.no_grad():
            if "seg" in name or "deeplab" in name:
                output = network.released_output(x)  # (2, 21, H, W)
                assert tuple(output.shape) == tuple(expected[f"shape_{size}"])
                output = output[:, :, ::8, ::8]
            else:
                output = network(x)  # (2, 1000)
            assert relative_error(output, expected[f"output_{size}"]) <= TOLERANCE, size
            if f"scale_policy_{size}" in expected.files:
                policy = scores.scale_policy(network, x)  # (2, elastic blocks)
                assert relative_error(policy, expected[f"scale_policy_{size}"]) <= TOLERANCE, size


PLANES = (32, 32, 64, 96)
CHANNELS = (8, 16, 32, 64, 96, 128)
RESNET = {"channels": PLANES}
DENSENET = {"growth_rate": 8}
DLA = {"channels": CHANNELS}
R50, R50E, R101, R101E = (3, 4, 6, 3), (6, 8, 5, 3), (3, 4, 23, 3), (12, 14, 20, 3)
X60, X102, X102E = (1, 1, 1, 2, 3, 1), (1, 1, 1, 3, 4, 1), (1, 1, 3, 3, 3, 1)
resnext, densenet, dla, dla_seg = (getattr(released_code, n) for n in ("resnext", "densenet", "dla", "dla_seg"))

# name: (oracle, its arguments between images and number of classes, its options, our network's widths)
NETWORKS = {
    "resnext50": (resnext, (R50, PLANES), {}, RESNET),
    "resnext50_elastic": (resnext, (R50E, PLANES), {"elastic": True}, RESNET),
    "se_resnext50": (resnext, (R50, PLANES), {"se": True}, RESNET),
    "se_resnext50_elastic": (resnext, (R50E, PLANES), {"se": True, "elastic": True}, RESNET),
    "resnext101": (resnext, (R101, PLANES), {}, RESNET),
    "resnext101_elastic": (resnext, (R101E, PLANES), {"elastic": True}, RESNET),
    "resnext50x2_elastic": (resnext, (R50E, PLANES), {"elastic": True, "cardinality": 64}, RESNET),
    "resnet101": (resnext, (R101, PLANES), {"cardinality": 1, "branches": 1}, RESNET),
    "densenet201": (densenet, ((6, 12, 48, 32), 8), {}, DENSENET),
    "densenet201_elastic": (densenet, ((10, 20, 40, 30), 8), {"elastic": True}, DENSENET),
    "dla60x": (dla, (X60, CHANNELS), {}, DLA),
    "dla60x_elastic": (dla, (X60, CHANNELS), {"branches": 2}, DLA),
    "dla102x": (dla, (X102, CHANNELS), {"root_shortcut": True}, DLA),
    "dla102x_selastic": (dla, (X102, CHANNELS), {"root_shortcut": True, "branches": 2}, DLA),
    "dla102x_elastic": (dla, (X102E, CHANNELS), {"root_shortcut": True, "branches": 2, "cardinality": 50}, DLA),
    "deeplabv3_resnext50": (resnext, (R50, PLANES), {"deeplab": True}, RESNET),
    "deeplabv3_resnext50_elastic": (resnext, (R50E, PLANES), {"deeplab": True, "elastic": True}, RESNET),
    "deeplabv3_resnext101": (resnext, (R101, PLANES), {"deeplab": True}, RESNET),
    "deeplabv3_resnext101_elastic": (resnext, (R101E, PLANES), {"deeplab": True, "elastic": True}, RESNET),
    "dla60x_seg": (dla_seg, (X60, CHANNELS), {}, DLA),
    "dla60x_elastic_seg": (dla_seg, (X60, CHANNELS), {"branches": 2}, DLA),
}


def compute(name, x, classes):
    """(the released code's tensors at small widths, what it computes from `x`), by the independent account"""
    oracle, arguments, options, _ = NETWORKS[name]
    tensors = released_code.Tensors()
    with torch.no_grad():
        return tensors, oracle(tensors, x, *arguments, classes, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_paper_is_recognised_and_equal(name):
    x = torch.randn(2, 3, 69, 43) if name.endswith("_seg") or "resn" in name else torch.randn(2, 3, 64, 96)
    tensors, expected = compute(name, x, 7)
    recognised = recognise({"state_dict": {f"module.{key}": value for key, value in tensors.state.items()}})
    assert (recognised.name, recognised.kwargs) == (name, {"num_classes": 7})
    network, ignored = load(tensors.state, **NETWORKS[name][3])
    with torch.no_grad():
        output = network.released_output(x) if hasattr(network, "released_output") else network(x)
    assert relative_error(output, expected) <= TOLERANCE
    assert bool(ignored) == ("dla" in name), "DLA alone holds tensors of no use"


def test_the_tensors_of_a_base_and_its_selastic_are_the_same():
    x = torch.randn(1, 3, 45, 64)
    tensors = released_code.Tensors()
    with torch.no_grad():
        expected = resnext(tensors, x, R50, PLANES, 7, elastic=True)
    recognised = recognise(tensors.state)
    assert (recognised.name, recognised.also) == ("resnext50", ("resnext50_selastic",))
    network = create_model("resnext50_selastic", num_classes=7, **RESNET).eval()
    network.load_state_dict(translate(tensors.state, network).state)
    with torch.no_grad():
        assert relative_error(network(x), expected) <= TOLERANCE


@pytest.fixture(scope="module")
def dla60x():
    return compute("dla60x_elastic", torch.randn(1, 3, 64, 64), 7)[0].state


def test_what_is_ignored_does_not_change_the_output(dla60x):
    layers = {name.rpartition(".")[0] for name in unused(dla60x)}
    assert layers == {f"{tree}.project.{i}" for tree in ("level3", "level4", "level4.tree1") for i in (0, 1)}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = dla(released_code.Tensors(dla60x), x, X60, CHANNELS, 7, branches=2)
        noise = {name: torch.rand(dla60x[name].shape) for name in unused(dla60x)}
        after = dla(released_code.Tensors({**dla60x, **noise}), x, X60, CHANNELS, 7, branches=2)
    assert torch.equal(before, after)


def test_absent_batch_counters_start_at_zero(dla60x):
    old = {name: tensor for name, tensor in dla60x.items() if not name.endswith("num_batches_tracked")}
    network, _ = load(old, **DLA)
    assert {int(v) for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")} == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("level2.tree2.conv2_d.weight"), "missing: level2.tree2.branches.low.0.transform.conv2.weight"),
        (lambda s: s.pop("level5.tree1.conv2_d.weight"), "lack level5.tree1.conv2_d.weight"),
        (lambda s: s.pop("level5.tree1.conv2.weight"), "lack level5.tree1.conv2.weight"),
        (lambda s: s.update({"level2.tree3.weight": torch.zeros(1)}), "left over: level2.tree3.weight"),
        (lambda s: s.update({"level2.tree2.conv4.weight": torch.zeros(1)}), "unknown layer conv4"),
        (lambda s: s.update({"fc.bias": torch.zeros(8)}), r"fc.bias is \(8,\) instead of \(7,\)"),
        (lambda s: s.update({"fc.bias": torch.zeros(7, dtype=torch.int64)}), "fc.bias is torch.int64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(dla60x, change, message):
    released = dict(dla60x)
    change(released)
    network = create_model("dla60x_elastic", num_classes=7, **DLA)
    with pytest.raises(ValueError, match=message):
        translate(released, network)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no state dict"),
        ({"state_dict": {"epoch": 3}}, "no state dict"),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "twice"),
    ],
)
def test_what_is_no_state_dict_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        strip(state)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"not a network of the paper.*depths=\(2, 2, 2, 2\)"):
        recognise(create_model("resnet18", num_classes=3).state_dict())
    with pytest.raises(ValueError, match=r"not a network of the paper.*conv_stem"):
        recognise(create_model("mobilenetv3_small_050").state_dict())
