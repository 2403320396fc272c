"""The smallest feature pyramid that tests of segmentation build: arguments of `smp_fpn`."""

TINY_FPN = {
    "backbone": "resnet10t",
    "encoder_depth": 3,
    "decoder_pyramid_channels": 16,
    "decoder_segmentation_channels": 32,
}
