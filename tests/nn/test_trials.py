"""Examples of a network's input, trial runs that leave no trace, and the comparison of two networks."""

import math
import threading

import pytest
import timm
import torch
from torch import nn

from elastic_cnn.nn.compare import compare, relative_error
from elastic_cnn.nn.complexity import count
from elastic_cnn.nn.example import Example, make_tensor
from elastic_cnn.nn.trial import CannotRun, copy_structure, run_trial


def fixed(channels: int, side: int) -> nn.Module:
    """A network of one input size: a linear layer reads the whole map."""
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * side * side, 2))


class Lengths(nn.Module):
    """Reads a number on the way, which the meta device does not have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, images, scale=1):
        return self.conv(images) * (1 + int(images.abs().sum().item() > 0)) * scale


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (timm.create_model("resnet18", in_chans=1, device="meta"), (1, 1, 224, 224)),
        (timm.create_model("cs3darknet_focus_s", device="meta"), (1, 3, 256, 256)),  # its first convolution has 12
        (fixed(3, 32), (1, 3, 32, 32)),
        (fixed(1, 28), (1, 1, 28, 28)),
        (Lengths(), (1, 2, 224, 224)),
    ],
)
def test_the_network_tells_what_it_takes(network, shape):
    example, _ = run_trial(network)
    assert tuple(example.args[0].shape) == shape


def test_what_does_not_run_says_what_to_pass():
    with pytest.raises(CannotRun, match=r"not run on an input of \(1, 3, 224, 224\).*pass what it takes as example="):
        run_trial(nn.Linear(5, 5))
    with pytest.raises(CannotRun, match=r"does not run on the example of \(1, 9, 4, 4\)"):
        run_trial(fixed(3, 32), (9, 4, 4))
    with pytest.raises(ValueError, match=r"example must be a tensor, .* got 'resnet'"):
        Example.of("resnet")


@pytest.mark.parametrize(
    "given",
    [
        torch.zeros(2, 1, 5, 6),
        (torch.zeros(1, 2), torch.ones(3, dtype=torch.bool), 2.5, None, "mode"),
        {"images": [torch.zeros(3, 4, 5), torch.zeros(3, 6, 7)], "sizes": (1, 2)},
        [torch.zeros(3, 4, 5, dtype=torch.uint8)],
        (3, 20, 30),
    ],
)
def test_examples_survive_their_description(given):
    example = Example.of(given)
    again = Example.from_description(example.describe())
    assert again.describe() == example.describe()
    assert [t.shape for t in again.tensors()] == [t.shape for t in example.tensors()]
    assert [type(value) for value in again.args] == [type(value) for value in example.args]
    assert list(again.kwargs) == list(example.kwargs)


@pytest.mark.parametrize(
    "description",
    [
        3,
        {},
        {"args": [1], "kwargs": {}},
        {"args": [{"tensor": [1], "dtype": "nn"}], "kwargs": {}},
        {"args": [{"tensor": [2**40], "dtype": "float32"}], "kwargs": {}},
    ],
)
def test_other_descriptions_are_refused(description):
    with pytest.raises(ValueError, match="not the description of an example"):
        Example.from_description(description)


def test_a_trial_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    fired: list[int] = []
    network[0].register_forward_hook(lambda *_: fired.append(1))
    torch.nn.utils.parametrizations.weight_norm(network[0])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    run_trial(network, (3, 8, 8), meta=False)
    count(network, (3, 8, 8))
    assert not fired
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    assert len(network[0]._forward_hooks) == 1
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    twin = copy_structure(network)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in network.parameters()}, "weights were copied"
    old = nn.utils.spectral_norm(nn.Conv2d(3, 4, 1))  # a hook that computes the weight stays
    assert copy_structure(old)(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)


def test_what_cannot_be_copied_is_said():
    network = fixed(3, 32)
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"Sequential cannot be copied.*lock"):
        copy_structure(network)
    with pytest.raises(ValueError, match="lazy layers that never ran"):
        copy_structure(nn.Sequential(nn.LazyConv2d(4, 3)))


def test_comparison_tells_faults_from_rounding():
    torch.manual_seed(0)
    base = timm.create_model(
        "resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=3, zero_init_last=False
    ).eval()
    example = Example.of((3, 32, 32))
    other = copy_structure(base)
    assert compare(other, base, example).error == 0
    faulty = copy_structure(base)
    faulty.layer2[0].act1 = nn.LeakyReLU(0.01)
    found = compare(faulty, base, example)
    assert not found
    assert "relative error" in found.problem
    assert "outputs of another" in compare(nn.Conv2d(3, 3, 1), base, example).problem
    broken = copy_structure(base)
    broken.fc = None
    assert "TypeError" in compare(broken, base, example).problem
    # an ill-conditioned norm: float32 rounding is far above its tolerance, and no fault
    shaky = nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3, eps=0))
    with torch.no_grad():
        shaky[0].weight.mul_(1e-4)
        shaky[0].bias.fill_(100)
    nudged = copy_structure(shaky)
    nudged[0] = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity())
    nudged[0][0].weight, nudged[0][0].bias = shaky[0].weight, nn.Parameter(torch.zeros(3))
    nudged[0][1] = type("Add", (nn.Module,), {"forward": lambda self, x: x + 300 - 200})()
    images = make_tensor((1, 3, 8, 8))
    assert relative_error(nudged(images), shaky(images)) > 1e-4
    assert compare(nudged, shaky, Example.of(images))


def test_errors_see_every_tensor_of_an_output():
    a, b = torch.ones(2), torch.zeros(2)
    assert relative_error({"x": [a, (b,)]}, {"x": [a, (b,)]}) == 0
    assert relative_error({"x": [a, (b + 1,)]}, {"x": [a, (b,)]}) == 1
    assert relative_error(a, (a, b)) == math.inf
    assert relative_error(torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan])) == 0
    assert relative_error(torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])) == math.inf
    assert relative_error(torch.tensor([1]), torch.tensor([2])) == math.inf
