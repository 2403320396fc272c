"""The zoo: the paper's networks in timm's registry, segmentation networks, and checkpoints.

Importing this package registers every classification network with timm.
"""

from elastic_cnn.zoo import elastic_resnext  # noqa: F401  (registers)
