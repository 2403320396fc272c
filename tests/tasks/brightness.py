"""A task of one's own in one file: the brightness of a photo, one number. Photos are named by it: `0.25_a.png`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError

from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.study.grid import Data
from elastic_cnn.study.kinds import DataKind
from elastic_cnn.study.stores import Store, StoreBatches
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.spec import TaskSpec, register_task
from elastic_cnn.tasks.task import Batch, Job, Task
from elastic_cnn.tasks.weights import make_network
from elastic_cnn.zoo.checkpoint import NetworkCard

CLASSES = ("brightness",)  # the network's one output


@dataclass(frozen=True)
class Options:
    """beta: below this error the loss is quadratic."""

    beta: float = 0.1


class Levels:
    """Samples `{"image": (3, H, W), "target": brightness in 0..1}`, and what a policy table asks of photos."""

    def __init__(self, data: str, split: str, transform: Any) -> None:
        self.root, self.transform = data, transform
        self.files = sorted((Path(data) / split).glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        level = float(self.files[index].name.split("_")[0])
        return {"image": self.transform(read_rgb(self.files[index])), "target": level}

    def path(self, index: int) -> str:
        return self.files[index].relative_to(self.root).as_posix()

    def label(self, index: int, target: float | None = None) -> str | None:
        return None if target is None else f"{target:.1f}"

    def object_sizes(self, index: int) -> None:
        return None

    def photo(self, index: int) -> Any:
        return read_rgb(self.files[index])


class Brightness(Task):
    """Smooth L1; `metric` is the mean absolute error."""

    metric, maximise = "mae", False

    def __init__(self, network: nn.Module, options: Options) -> None:
        super().__init__(network)
        self.options, self.error = options, MeanAbsoluteError()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return functional.smooth_l1_loss(self(batch["image"])[:, 0], batch["target"].float(), beta=self.options.beta)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.error.update(self(batch["image"])[:, 0].float(), batch["target"].float())

    def validation_results(self) -> dict[str, Any]:
        results = {"mae": float(self.error.compute())}
        self.error.reset()
        return results


def build(recipe: Recipe, data: str, settings: Settings) -> Job:
    network, card = make_network(recipe, CLASSES, crop_mode="squash", crop_pct=1.0)
    samples = [Levels(data, split, _transform(card)) for split in ("train", "val")]
    return Job(Brightness(network, task_options(recipe)), card, *samples)


def build_test(
    network: nn.Module, card: NetworkCard, data: str, split: str, options: TestOptions
) -> tuple[Task, Levels]:
    return Brightness(network, Options()), Levels(data, split, _transform(card))


def _transform(card: NetworkCard) -> Any:
    spec = card.input
    return eval_transform(spec.size, spec.mean, spec.std, crop_mode=spec.crop_mode)


def photos(data: str, split: str, classes: Sequence[str], transform: Any, places: Any) -> Levels:
    return Levels(data, split, transform)


def unchanged(logits: Tensor) -> Tensor:
    return logits


def rounded(values: Tensor, classes: Sequence[str], threshold: float) -> str:
    return f"{float(values[0]):.1f}"


def close(output: Tensor, expected: Tensor) -> float:
    return float(((output - expected).abs() < 0.05).float().mean())


class StoredBrightness(StoreBatches, Brightness):
    """The same on pictures in memory."""


def load(data: Data, folder: Path, image_size: int, options: Options) -> tuple[Store, Store]:
    """For studies: `train` and `val`, squashed to the size."""
    transform = eval_transform((image_size,) * 2, (0.0,) * 3, (1.0,) * 3, crop_mode="squash")
    stores = []
    for split, most in (("train", data.train), (data.test_split, data.test)):
        levels = Levels(str(folder), split, transform)
        samples = [levels[index] for index in range(len(levels))[:most]]
        images = torch.stack([(255 * sample["image"]).round().byte() for sample in samples])
        targets = {"target": torch.tensor([sample["target"] for sample in samples])}
        stores.append(Store(split, images, targets, CLASSES))
    return stores[0], stores[1]


LEVELS = DataKind(
    load,
    lambda network, store, options: StoredBrightness(network, options),
    lambda store, side, options: None,
    card=(("crop_mode", "squash"),),
)
TASK = register_task(
    TaskSpec(
        "brightness",
        options=Options,
        build=build,
        build_test=build_test,
        activation="nothing: the output is the brightness, 0..1;",
        probabilities=unchanged,
        answer=rounded,
        agreement=close,
        photos=photos,
        scores=(("mae", "mean absolute error"), ("mae", "mean absolute error")),
        pipeline="other",
        studies=(("levels", LEVELS),),
    )
)
