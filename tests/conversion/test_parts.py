"""The parts of a conversion against formulas written out: the ridge, the order, what a block does to the answers."""

import itertools

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from elastic_cnn import convert, elasticize, set_blend
from elastic_cnn.conversion import influence
from elastic_cnn.conversion import ridge as ridge_module
from elastic_cnn.conversion.order import arrange
from elastic_cnn.conversion.ridge import RIDGES, NormalEquations, best_ridge


def equations(features, missing, constant=False):
    columns = F.pad(features, (0, 1), value=1.0) if constant else features
    found = NormalEquations.empty(1, features.shape[1], constant, missing.shape[1], torch.device("cpu"))
    found.add(columns[None].double(), missing[None].double())
    return found


@pytest.mark.parametrize(("samples", "noise"), [(30, 0.1), (30, 3.0), (300, 0.5)])
def test_the_ridge_is_the_best_one_for_photos_held_out(samples, noise):
    """Against numpy: the error on other samples of ridge regressions with each of the ridges."""
    generator = torch.Generator().manual_seed(samples)
    mixing = torch.randn(40, 40, generator=generator) * torch.logspace(0, -2, 40)
    true = torch.randn(40, 3, generator=generator) * 0.3

    def draw(count):
        features = torch.randn(count, 40, generator=generator) @ mixing
        return features, features @ true + noise * torch.randn(count, 3, generator=generator)

    (x, y), (held_x, held_y) = draw(samples), draw(400)
    errors = []
    for ridge in RIDGES:
        pull = ridge * float(x.square().sum()) / 40 * np.eye(40)
        weights = np.linalg.solve(x.T.double().numpy() @ x.double().numpy() + pull, (x.T @ y).double().numpy())
        errors.append(float(np.square(held_y.double().numpy() - held_x.double().numpy() @ weights).sum()))
    fit, held = equations(x, y), equations(held_x, held_y)
    chosen = best_ridge(fit, held)
    assert errors[RIDGES.index(chosen)] == pytest.approx(min(errors), rel=1e-3)
    gained = float(held_y.double().square().sum()) - min(errors)
    assert held.draft().gain(fit.solve(chosen).float()) == pytest.approx(gained, rel=1e-3)


def test_equations_of_many_features_are_added_up_in_strips(monkeypatch):
    """Against the normal equations in one product; two groups, with a constant."""
    monkeypatch.setattr(ridge_module, "STRIP", 4)
    x, y = torch.randn(2, 60, 10).double(), torch.randn(2, 60, 3).double()
    x[..., -1] = 1
    found = NormalEquations.empty(2, 9, True, 3, torch.device("cpu"))
    for part in (slice(0, 25), slice(25, None)):
        found.add(x[:, part], y[:, part])
    pull = 0.2 * x[..., :9].square().sum((1, 2)) / 9
    for group in range(2):
        matrix = x[group].T @ x[group] + torch.diag(pull[group] * torch.tensor([1.0] * 9 + [0.0]).double())
        expected = torch.linalg.solve(matrix, x[group].T @ y[group])
        torch.testing.assert_close(found.solve(0.2)[group], expected)


def test_nothing_pulls_the_constant():
    x, y = torch.randn(50, 4), torch.randn(50, 2) + 7
    change = equations(x, y, constant=True).solve(1e9)[0]
    assert torch.allclose(change[-1], y.double().mean(0), atol=1e-3)
    assert change[:-1].abs().max() < 1e-3


@pytest.mark.parametrize(("units", "size"), [(6, 1), (4, 2)])
def test_channels_are_kept_that_take_most_of_the_error_away(units, size):
    channels = units * size
    draw = [np.random.default_rng(seed).normal for seed in range(3)]
    errors = draw[0](size=(60, channels)) @ draw[1](size=(channels, channels))
    reading = draw[2](size=(5, channels))
    moment, weight = errors.T @ errors / 60, reading.T @ reading

    def left(kept):
        """What a least-squares fit on the errors of the kept units leaves of the error of what is read."""
        columns = [unit * size + i for unit in kept for i in range(size)]
        if not columns:
            return np.trace(weight @ moment)
        fitted = errors[:, columns] @ np.linalg.lstsq(errors[:, columns], errors, rcond=None)[0]
        return np.square((errors - fitted) @ reading.T).sum() / 60

    order, spared = arrange(torch.tensor(moment), torch.tensor(weight), units)
    order = order.tolist()
    assert sorted(order) == list(range(units))
    for count in range(units):
        assert left(order[:count]) == pytest.approx(float(spared[count:].sum()), rel=1e-3, abs=1e-4)
        others = [left([*order[:count], unit]) for unit in range(units) if unit not in order[:count]]
        assert left(order[: count + 1]) == pytest.approx(min(others), rel=1e-3, abs=1e-4)
    best = min(left(kept) for kept in itertools.combinations(range(units), units // 2))
    assert left(order[: units // 2]) <= 1.5 * best
    as_they_stand, spared = arrange(torch.tensor(moment), torch.tensor(weight), units, move=False)
    assert as_they_stand.tolist() == list(range(units))
    assert float(spared[1:].sum()) == pytest.approx(left([0]), rel=1e-3)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_influence_is_the_divergence_of_the_answers(task, monkeypatch):
    """Against the divergence itself, of a network in which one block alone runs at its resolutions."""
    network = timm.create_model("resnet26", num_classes=7, layers=(2, 1, 1, 1), channels=(8, 8, 16, 16)).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.buffers():
        if tensor.dim() == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.3)
    images = F.interpolate(torch.randn(24, 3, 12, 12, generator=generator), (48, 40), mode="bilinear")
    elastic = elasticize(network).eval()
    names = elastic.elastic_report.converted
    monkeypatch.setattr(influence, "DRAWS", 60)
    found = influence.influences(elastic, names, images.split(16), task, 0)
    with torch.no_grad():
        expected = network(images)
        for name in names:
            set_blend(elastic, 0)
            set_blend(elastic.get_submodule(name), 1)
            own = elastic(images)
            if task == "multilabel":
                moved = F.binary_cross_entropy_with_logits(own, expected.sigmoid(), reduction="sum")
                moved -= F.binary_cross_entropy_with_logits(expected, expected.sigmoid(), reduction="sum")
                moved /= len(images)
            else:
                moved = F.kl_div(own.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean")
            assert found[name] == pytest.approx(float(moved), rel=0.35), name
    assert len(names) == 2


class _Odd(nn.Module):
    """Two convolutions that `forward` runs in its own way, by `how`."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x):
        return self.how(self.body, x)


def _mapped(body, x):
    return torch.vmap(body)(torch.stack([x, x.flip(3)])).mean(dim=(0, 3, 4))


def _gradient(body, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(body(x).square().sum(), x)[0].mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("how", "message"),
    [(_mapped, r"body.* runs under torch\.vmap"), (_gradient, r"takes a gradient inside forward")],
)
def test_networks_that_cannot_be_measured_are_refused_in_words(how, message):
    with pytest.raises(ValueError, match=message):
        convert(_Odd(how).eval(), torch.randn(12, 3, 16, 16), budget=0.9)
