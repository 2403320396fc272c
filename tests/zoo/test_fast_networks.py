"""The time-matched networks: their budgets beside their bases', and that they are timm networks like the others."""

import pytest
import timm
import torch
from citizens import images
from random_norms import random_norms

from elastic_cnn import ElasticSpec
from elastic_cnn.nn.complexity import count

# name, base, multiply-adds of the base's, elastic blocks; counted by torch, not taken from the search
NETWORKS = [
    ("resnext_small_elastic_fast", "resnext_small", 0.90, 7),
    ("resnext50_elastic_fast", "resnext50", 0.84, 14),
    ("resnext101_elastic_fast", "resnext101", 0.755, 32),
]


@pytest.mark.parametrize(("name", "base", "macs", "blocks"), NETWORKS)
def test_budget(name, base, macs, blocks):
    """The base's parameters within 2%, at most its multiply-adds, for few classes as for many."""
    for classes in (10, 1000):
        fast, plain = (timm.create_model(n, num_classes=classes, device="meta") for n in (name, base))
        size = fast.pretrained_cfg["input_size"]
        assert size == plain.pretrained_cfg["input_size"]
        ours, theirs = count(fast, size), count(plain, size)
        assert abs(ours.parameters / theirs.parameters - 1) <= 0.02
        assert ours.macs / theirs.macs == pytest.approx(macs, abs=0.01)
        assert len(fast.elastic_report.converted) == blocks


@pytest.mark.parametrize("name", [name for name, *_ in NETWORKS[:2]])
def test_timm_entry(name):
    """Odd sizes, features of every stage, gradients to every parameter, a spec of one's own."""
    narrow = {"channels": (8, 16, 16, 16), "cardinality": 4, "base_width": 16, "stem_width": 8, "num_classes": 3}
    network = random_norms(timm.create_model(name, **narrow))
    x = images(2, 3, 65, 47)
    assert network(x).shape == (2, 3)
    extractor = timm.create_model(name, features_only=True, **narrow)
    assert [feature.shape[-2:] for feature in extractor(x)] == [
        torch.Size(size) for size in ((33, 24), (17, 12), (9, 6), (5, 3), (3, 2))
    ]
    network.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    one_stage = timm.create_model(name, **narrow, spec={3: ElasticSpec()})
    assert all(block.startswith("layer3.") for block in one_stage.elastic_report.converted)
