"""Time-matched elastic networks: parameters within 2% of the base's, at most its multiply-adds, at most its time.

The paper's depths spend what Elastic saves on blocks of high resolution, where memory is the bound: equal multiply-adds
then take longer than the base. Here the same budget goes to blocks of low resolution instead. Depths, shares and stages
were found by `benchmarks/depth_search`; docs/performance/time_matched.md tells how, and what was measured.
None of them is in the paper.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.zoo import elastic_resnext
from elastic_cnn.zoo.config import pretrained_config

EVEN = ElasticSpec()  # half the channels at each resolution, the paper's choice
LOW = ElasticSpec(shares=(0.25, 0.75))  # more at the low resolution; paper, DLA-X60: 21.44% top-1 error, even 21.25%

default_cfgs = generate_default_cfgs(
    {
        "resnext50_elastic_fast": pretrained_config(),
        "resnext101_elastic_fast": pretrained_config(),
        "resnext_small_elastic_fast": pretrained_config(input_size=(3, 128, 128), pool_size=(4, 4)),
    }
)


@register_model
def resnext50_elastic_fast(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The time-matched partner of `resnext50`: depths 2, 4, 10, 2 for the base's 3, 4, 6, 3, stages 1 to 3 elastic.

    One block each of the highest and the lowest resolution exchanged for four of stage 3; 14 of its 18 blocks are
    elastic, half and half. Parameters 0.997, multiply-adds 0.838 of the base's.
    """
    return elastic_resnext._build(
        "resnext50_elastic_fast", pretrained, True, {"layers": (2, 4, 10, 2), "spec": EVEN}, kwargs
    )


@register_model
def resnext101_elastic_fast(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The time-matched partner of `resnext101`: depths 3, 4, 27, 2 for the base's 3, 4, 23, 3, stages 1 to 3 elastic.

    One block of the lowest resolution exchanged for four of stage 3; 32 of its 36 blocks are elastic, half and half.
    Parameters 1.000, multiply-adds 0.755 of the base's.
    """
    return elastic_resnext._build(
        "resnext101_elastic_fast", pretrained, True, {"layers": (3, 4, 27, 2), "spec": EVEN}, kwargs
    )


@register_model
def resnext_small_elastic_fast(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The time-matched partner of `resnext_small`, for inputs of 64 to 128 pixels.

    11 blocks instead of 9: depths 1, 2, 7, 1 for the base's 2, 2, 3, 2, with one block each of the highest and the
    lowest resolution exchanged for four of stage 3. Stages 2 and 3 are elastic, stage 3 a quarter at full resolution.
    Found by measuring every block's training step at 64 pixels and adding up; then whole networks were measured: a step
    of 64 images takes 0.98 of the base's time (median of 41 pairs, quartiles 0.94 to 1.00; one core of an AMD Zen 4,
    plain form, channels_last). Parameters 0.998, multiply-adds 0.90 of the base's.
    """
    arguments = {"layers": (1, 2, 7, 1), "spec": {2: EVEN, 3: LOW}, **elastic_resnext.SMALL}
    return elastic_resnext._build("resnext_small_elastic_fast", pretrained, True, arguments, kwargs)
