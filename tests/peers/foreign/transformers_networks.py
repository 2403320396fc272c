"""Hugging Face transformers: its convolutional networks, small, from configurations."""

from collections.abc import Iterator

import transformers as hf
from foreign.checks import Case

hf.logging.set_verbosity_error()

RESNET = {"depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL_DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 10,
}
CLASSIFIERS = {  # name: (class stem, options of its configuration)
    "ResNet-50": ("ResNet", {}),
    "ResNet-18": ("ResNet", RESNET),
    "RegNet": ("RegNet", {"hidden_sizes": [48, 120, 336, 888], "depths": [2, 3, 3, 2], "groups_width": 24}),
    "ConvNeXt": ("ConvNext", {"depths": [2, 2, 4, 2], "hidden_sizes": [48, 96, 192, 384]}),
    "ConvNeXtV2": ("ConvNextV2", {"depths": [2, 2, 4, 2], "hidden_sizes": [40, 80, 160, 320]}),
    "EfficientNet": ("EfficientNet", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}),
    "MobileNetV1": ("MobileNetV1", {}),
    "MobileNetV1, plain padding": ("MobileNetV1", {"tf_padding": False}),
    "MobileNetV2": ("MobileNetV2", {}),
    "MobileNetV2, plain padding": ("MobileNetV2", {"tf_padding": False}),
    "BiT": ("Bit", {"depths": [1, 1, 2, 1]}),
    "BiT, bottlenecks": ("Bit", {"layer_type": "bottleneck", "depths": [1, 1, 2, 1]}),
    "CvT": ("Cvt", {"depth": [1, 1, 2], "embed_dim": [32, 64, 96]}),
    "PoolFormer": ("PoolFormer", {"depths": [1, 1, 2, 1]}),
    "HGNetV2": ("HGNetV2", {"depths": [1, 1, 2, 1]}),
    "FocalNet": ("FocalNet", {"depths": [1, 1, 2, 1], "embed_dim": 32}),
}


def _classifier(stem: str, options: dict):
    return getattr(hf, f"{stem}ForImageClassification")(getattr(hf, f"{stem}Config")(**options))


def _detr(stem: str, outputs: list[str]):
    config = getattr(hf, f"{stem}Config")(backbone_config=hf.ResNetConfig(**RESNET, out_features=outputs), **SMALL_DETR)
    return getattr(hf, f"{stem}ForObjectDetection")(config)


def _rt_detr():
    backbone = hf.RTDetrResNetConfig(**RESNET, embedding_size=64, out_features=STAGES[1:])
    options = {"d_model": 64, "decoder_layers": 1, "num_queries": 10, "decoder_in_channels": [64] * 3}
    widths = {"encoder_in_channels": [128, 256, 512], "encoder_hidden_dim": 64, "encoder_ffn_dim": 64}
    return hf.RTDetrForObjectDetection(hf.RTDetrConfig(backbone_config=backbone, **options, **widths))


def _upernet(backbone):
    return hf.UperNetForSemanticSegmentation(
        hf.UperNetConfig(backbone_config=backbone, hidden_size=64, use_auxiliary_head=False)
    )


def cases() -> Iterator[Case]:
    for name, (stem, options) in CLASSIFIERS.items():
        yield Case(name, lambda stem=stem, options=options: _classifier(stem, options), (3, 96, 96), (3, 97, 131))
    odd = (3, 97, 131)
    convnext = {"depths": [1, 1, 2, 1], "hidden_sizes": [32, 64, 128, 256], "out_features": STAGES}
    yield Case("UperNet on ConvNeXt", lambda: _upernet(hf.ConvNextConfig(**convnext)), (3, 96, 96), odd)
    yield Case("UperNet on ResNet", lambda: _upernet(hf.ResNetConfig(out_features=STAGES)), (3, 96, 96), odd)
    yield Case("DETR", lambda: _detr("Detr", STAGES[3:]), (3, 96, 96), odd, batch=1)
    yield Case("Deformable DETR", lambda: _detr("DeformableDetr", STAGES[1:]), (3, 96, 96), odd, batch=1)
    yield Case("RT-DETR", _rt_detr, (3, 128, 128), (3, 160, 192), batch=1)
    yield Case("D-FINE", lambda: hf.DFineForObjectDetection(hf.DFineConfig()), (3, 128, 128), None, batch=1)
    yield Case(
        "MobileNetV2 DeepLab",
        lambda: hf.MobileNetV2ForSemanticSegmentation(hf.MobileNetV2Config(output_stride=16)),
        (3, 96, 96),
        odd,
    )
    yield Case("SegFormer", lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig()), (3, 96, 96), odd)
    yield Case("GLPN", lambda: hf.GLPNForDepthEstimation(hf.GLPNConfig(depths=[1, 1, 1, 1])), (3, 96, 96), odd, batch=1)
    yield Case("LeViT", lambda: hf.LevitForImageClassification(hf.LevitConfig()), (3, 224, 224), None)
    yield Case("ViT", lambda: hf.ViTForImageClassification(hf.ViTConfig(num_hidden_layers=1)), (3, 224, 224), None)
    yield Case(
        "timm's resnet18, wrapped",
        lambda: hf.TimmWrapperForImageClassification(hf.TimmWrapperConfig(architecture="resnet18")),
        (3, 96, 96),
        odd,
    )
    yield Case(
        "SuperPoint",
        lambda: hf.SuperPointForKeypointDetection(hf.SuperPointConfig()),
        (3, 96, 96),
        (3, 104, 128),
        batch=1,
    )
    yield Case(
        "Swin2SR",
        lambda: hf.Swin2SRForImageSuperResolution(hf.Swin2SRConfig(depths=[1, 1], num_heads=[2, 2], embed_dim=32)),
        (3, 64, 64),
        None,
        batch=1,
    )
    yield Case(
        "MobileViT",
        lambda: hf.MobileViTForImageClassification(hf.MobileViTConfig(image_size=128)),
        (3, 128, 128),
        None,
        batch=1,
    )
