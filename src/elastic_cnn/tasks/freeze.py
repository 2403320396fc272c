"""Parts of a network that stay as they are while the rest learns: their weights, and the statistics of their norms."""

from typing import Literal

from timm.models import group_parameters
from torch import nn

from elastic_cnn.tasks.strict import concerning

Freeze = int | Literal["backbone"]


class Frozen:
    """The first parts of a network, frozen.

    freeze: how many, counted from the input in timm's coarse groups (of a ResNet: stem, four stages, classifier), or
    `backbone` for all but the classifier. `ValueError` where the network tells no parts, or none would be left.
    """

    def __init__(self, network: nn.Module, freeze: Freeze) -> None:
        names = _names(network, freeze) if freeze else set()
        for name, parameter in network.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        self.norms = [
            module
            for module in network.modules()
            if getattr(module, "running_mean", None) is not None
            and any(True for _ in module.parameters(recurse=False))
            and not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        ]
        self.parameters = len(names)

    def keep_still(self) -> None:
        """After `network.train()`: norms of frozen parts go on with the statistics that they have."""
        for norm in self.norms:
            norm.eval()


@concerning("freeze")
def _names(network: nn.Module, freeze: Freeze) -> set[str]:
    """The names of the parameters to freeze."""
    what = f"freeze={freeze}: {type(network).__name__}"
    if freeze == "backbone":
        classifier = getattr(network, "get_classifier", lambda: None)()
        own = {id(parameter) for parameter in classifier.parameters()} if isinstance(classifier, nn.Module) else set()
        if not own:
            raise ValueError(f"{what} has no classifier that could learn alone")
        return {name for name, parameter in network.named_parameters() if id(parameter) not in own}
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise ValueError(f"{what} does not tell its stages: leave freeze out")
    groups = group_parameters(network, matcher(coarse=True))  # {number from the input on: names}
    if freeze >= len(groups):
        raise ValueError(f"{what} has {len(groups)} parts with its classifier: freeze fewer")
    return {name for number in sorted(groups)[:freeze] for name in groups[number]}
