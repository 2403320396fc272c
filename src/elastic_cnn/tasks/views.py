"""Test-time views: a photo is shown mirrored and at other sizes too, and the probabilities of all are averaged."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo.checkpoint import NetworkCard

LEAST, MOST = 0.25, 4.0  # of the input's side


def parse_views(text: str) -> tuple[bool, tuple[float, ...]]:
    """Whether to mirror, and factors on the input's size (1 among them), from `flip`, `0.8,1.25` or `flip,1.25`.

    `ValueError` for anything else.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    flip, scales = "flip" in words, {1.0}
    for word in words:
        if word == "flip":
            continue
        try:
            scale = float(word)
        except ValueError:
            scale = 0.0
        if not LEAST <= scale <= MOST:
            raise ValueError(
                f"tta={text!r}: {word!r} is neither `flip` nor a size in {LEAST}..{MOST} of the input's side"
            )
        scales.add(scale)
    if not flip and scales == {1.0}:
        raise ValueError(f"tta={text!r} shows the photo as it is alone: name `flip`, or sizes as 0.8,1.25")
    return flip, tuple(sorted(scales))


class Views(nn.Module):
    """A network that answers with the mean probability over several views of its input, as logits."""

    def __init__(self, network: nn.Module, card: NetworkCard, text: str) -> None:
        """`ValueError` for a task of pixels, and for mirroring where the recipe trained without."""
        super().__init__()
        self.network, self.spec = network, task_spec(card.task)
        self.flip, self.scales = parse_views(text)
        if self.spec.per_pixel:
            raise ValueError(f"tta is for answers about images, this checkpoint is for {card.task}")
        recipe = card.info.get("recipe")
        options = recipe.get("options") if isinstance(recipe, dict) else None
        if self.flip and isinstance(options, dict) and options.get("hflip") == 0:
            raise ValueError("tta=flip would mirror photos, and the network was trained without (options.hflip=0)")

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        height, width = images.shape[-2:]
        total, count = torch.zeros((), device=images.device), 0
        for scale in self.scales:
            size = [max(1, round(height * scale)), max(1, round(width * scale))]
            view = images
            if scale != 1:
                view = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            for seen in (view, view.flip(3)) if self.flip else (view,):
                total = total + self.spec.code("probabilities")(self.network(seen).float())
                count += 1
        mean = total / count
        return torch.logit(mean, eps=1e-7) if self.spec.several else mean.clamp_min(1e-12).log()
