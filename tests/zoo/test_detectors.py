"""torchvision's detectors made elastic: the detector itself at blend 0, a training step, and a file of its backbone."""

import pytest
import torch
from torchvision.models import detection

import elastic_cnn

PHOTOS = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1])},
    {"boxes": torch.tensor([[20.0, 30.0, 90.0, 80.0]]), "labels": torch.tensor([2])},
]


@pytest.fixture(scope="module")
def pair():
    """A detector whose scores differ from box to box, and what it becomes."""
    torch.manual_seed(0)
    network = detection.ssdlite320_mobilenet_v3_large(num_classes=3, weights=None, weights_backbone=None)
    for name, parameter in network.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval(), elastic_cnn.elasticize(network.eval(), example=[PHOTOS[0]])


def test_the_same_boxes_at_blend_zero(pair):
    network, elastic = pair
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    assert any(block.converted for block in elastic.elastic_report.blocks)
    elastic_cnn.set_blend(elastic, 0.0)
    with torch.no_grad():
        found, expected = elastic(PHOTOS), network(PHOTOS)
    elastic_cnn.set_blend(elastic, 1.0)
    assert sum(len(each["boxes"]) for each in expected) > 0
    for one, other in zip(found, expected, strict=True):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-3)


def test_a_step_of_training_reaches_every_branch(pair):
    _, elastic = pair
    elastic.train()
    losses = elastic(PHOTOS, TARGETS)
    sum(losses.values()).backward()
    lacking = [name for name, p in elastic.backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    assert all(torch.isfinite(loss) for loss in losses.values())
    elastic.zero_grad()
    elastic.eval()


def test_the_backbone_is_exported(pair):
    _, elastic = pair
    images = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        expected = elastic.backbone(images)
        program = torch.export.export(elastic.backbone, (images,))
        found = program.module()(images)
    assert list(found) == list(expected)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
