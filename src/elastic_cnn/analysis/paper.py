"""The paper's figures for its networks (Tables 2 and 8 to 11), to print ours beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One network of the paper.

    network: our name. title: the paper's. depths: blocks a stage (DLA: levels). parameters in millions, macs in
    billions (the paper's FLOPs), errors in per cent on ImageNet val, single crop; None where the paper gives none.
    released_macs, released_parameters: the same counted on the released code (convolutions and linear layers only).
    """

    network: str
    title: str
    family: str
    depths: str
    parameters: float
    macs: float
    top1_error: float | None
    top5_error: float | None
    released_macs: float | None = None
    released_parameters: float | None = None
    note: str = ""


_DEAD = "the paper counts projections that nothing depends on; ours does not have them"

PAPER_ROWS = (
    PaperRow("resnext50", "ResNeXt50", "ResNeXt", "3,4,6,3", 25.0, 4.2, 22.23, 6.25, 4.230),
    PaperRow("resnext50_selastic", "ResNeXt50+sElastic", "ResNeXt", "3,4,6,3", 25.0, 3.4, 22.03, 6.07, 3.352),
    PaperRow("resnext50_elastic", "ResNeXt50+Elastic", "ResNeXt", "6,8,5,3", 25.2, 4.2, 21.56, 5.83, 4.177),
    PaperRow("resnext101", "ResNeXt101", "ResNeXt", "3,4,23,3", 44.2, 8.0, 21.18, 5.83, 7.970),
    PaperRow("resnext101_elastic", "ResNeXt101+Elastic", "ResNeXt", "12,14,20,3", 44.3, 7.9, 20.83, 5.41, 7.889),
    PaperRow("resnext50x2_elastic", "ResNeXt50x2+Elastic", "ResNeXt", "6,8,5,3", 45.6, 7.9, 20.86, 5.52, 7.874),
    PaperRow("se_resnext50", "SE-ResNeXt50", "SE-ResNeXt", "3,4,6,3", 27.6, 4.2, 21.87, 5.93),
    PaperRow("se_resnext50_elastic", "SE-ResNeXt50+Elastic", "SE-ResNeXt", "6,8,5,3", 27.8, 4.2, 21.38, 5.86, 4.179),
    PaperRow("densenet201", "DenseNet201", "DenseNet", "6,12,48,32", 20.0, 4.4, 22.25, 6.26, 4.291),
    PaperRow("densenet201_elastic", "DenseNet201+Elastic", "DenseNet", "10,20,40,30", 19.5, 4.3, 22.07, 6.00, 4.266),
    PaperRow("dla60x", "DLA-X60", "DLA", "1,1,1,2,3,1", 17.6, 3.6, 21.92, 6.03, 3.594, 17.65, _DEAD),
    PaperRow("dla60x_elastic", "DLA-X60+Elastic", "DLA", "1,1,1,2,3,1", 17.6, 3.2, 21.25, 5.71, 3.110, 17.65, _DEAD),
    PaperRow("dla102x", "DLA-X102", "DLA", "1,1,1,3,4,1", 26.8, 6.0, 21.5, None, 5.976, None, _DEAD),
    PaperRow("dla102x_selastic", "DLA-X102+sElastic", "DLA", "1,1,1,3,4,1", 26.8, 5.0, 21.0, 5.66, 4.965, None, _DEAD),
    PaperRow("dla102x_elastic", "DLA-X102+Elastic", "DLA", "1,1,3,3,3,1", 24.9, 6.0, 20.71, 5.38, 5.946, None, _DEAD),
    PaperRow("resnet101", "ResNet101", "ResNet", "3,4,23,3", 44.5, 7.8, None, None),
)


def paper_row(network: str) -> PaperRow | None:
    """The paper's row for one of our names, None where the paper has none."""
    return next((row for row in PAPER_ROWS if row.network == network), None)
