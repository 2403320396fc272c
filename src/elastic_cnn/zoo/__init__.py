"""The zoo: the paper's networks in timm's registry, segmentation networks, and checkpoints.

Importing this package registers every network.
"""

from elastic_cnn.zoo import (  # noqa: F401  (registers)
    any_backbone,
    elastic_densenet,
    elastic_dla,
    elastic_fast,
    elastic_resnet_v1,
    elastic_resnext,
    hub,
    rivals,
    segmentation,
    small_networks,
)
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, read_card, save_checkpoint
from elastic_cnn.zoo.factory import create_model

__all__ = ["InputSpec", "NetworkCard", "create_model", "load_checkpoint", "read_card", "save_checkpoint"]
