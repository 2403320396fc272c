"""A user's typed program: `make lint` checks it with mypy --strict and pyright; nothing runs it.

Lines that must be refused carry an ignore comment: both checkers report one that is not needed.
"""

from pathlib import Path
from typing import assert_type

import torch
from torch import nn

import elastic_cnn
from elastic_cnn import ElasticSpec, NetworkCard

network = elastic_cnn.elasticize(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), ElasticSpec(scales=(1, 2)))
assert_type(network, nn.Module)
elastic_cnn.set_blend(network, 0.5)
assert_type(elastic_cnn.scale_policy(network, torch.randn(2, 3, 64, 64)), torch.Tensor)
assert_type(elastic_cnn.optimize_for_inference(network, compile=True), nn.Module)
assert_type(elastic_cnn.restore(network), nn.Module)

card = NetworkCard("resnext_small_elastic", {"num_classes": 3}, classes=("ant", "bee", "cat"))
elastic_cnn.save_checkpoint(Path("birds.safetensors"), card.build(), card)
loaded, its_card = elastic_cnn.load_checkpoint("birds.safetensors")
assert_type(loaded, nn.Module)
assert_type(its_card, NetworkCard)

summary = elastic_cnn.train(elastic_cnn.load_recipe("small_images", ["epochs=1"]), "photos", "runs/typed")
print(summary.seconds + 1, elastic_cnn.evaluate("runs/typed", "photos")["top1_error"])
again = elastic_cnn.train("finetune", "photos", "runs/again", network="resnet18", epochs=2)
print(again.epochs_done + 1, elastic_cnn.evaluate("runs/again", report="report").folder.name)
print(elastic_cnn.explore("runs/typed").photos + 1)
for answer in elastic_cnn.predict("runs/typed", ["photo.jpg"]):
    print(answer.path.upper())
print(elastic_cnn.export_checkpoint("runs/typed", "network.onnx").path.name)

elastic_cnn.elastizise(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
elastic_cnn.elasticize(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
elastic_cnn.set_blend(network, "half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
