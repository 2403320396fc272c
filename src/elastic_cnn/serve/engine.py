"""A network in the fastest form of this machine, asked about photos as they come in files."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.nn.compare import require_finite
from elastic_cnn.policy.answers import THRESHOLD, interpret
from elastic_cnn.policy.explorer.predict import Refused, read_photo
from elastic_cnn.policy.run import Subject, load_subject
from elastic_cnn.tasks.spec import task_spec

BATCH = 8  # photos in one run of the network


@dataclass(frozen=True)
class ServeOptions:
    """What `elastic serve` decides, as plain values that reach every worker process.

    checkpoint: file or run folder. hosts: names that requests may give the server; `*` for any. top: classes a photo,
    where a request does not say. max_bytes: of a photo. max_photos: in a request. max_waiting: requests at a time.
    threads: of torch in each worker, 0 for its own choice. compile, bfloat16: see `optimize_for_inference`.
    """

    checkpoint: str
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    top: int = 5
    max_bytes: int = 20 * 2**20
    max_photos: int = 16
    max_waiting: int = 16
    threads: int = 0
    compile: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "max_bytes", "max_photos", "max_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.threads < 0:
            raise ValueError(f"threads must not be negative, got {self.threads}")


class Engine:
    """The network of a checkpoint, made fast. `ValueError` where it is broken, or answers for pixels."""

    def __init__(self, options: ServeOptions) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self.options = options
        self.subject: Subject = load_subject(options.checkpoint)
        self.spec = task_spec(self.subject.task)
        if self.spec.per_pixel:
            raise ValueError(f"{options.checkpoint} segments photos: use `elastic segment`, which writes masks")
        self.prepare = eval_transform(**self.subject.preparation)
        height, width = self.subject.preparation["size"]
        example = torch.zeros(1, len(self.subject.preparation["mean"]), height, width)
        dtype = torch.bfloat16 if options.bfloat16 else None
        self.network: nn.Module = optimize_for_inference(
            self.subject.network.eval(), example, compile=options.compile, dtype=dtype
        )
        self._lock = threading.Lock()
        with torch.inference_mode():
            answer = self.network(example)  # compiled and laid out before the first request
        require_finite(answer, options.checkpoint)

    def about(self) -> dict[str, Any]:
        """The network and what it takes, as JSON holds it."""
        height, width = self.subject.preparation["size"]
        return {
            "network": self.subject.name,
            "task": self.subject.task,
            "classes": list(self.subject.classes),
            "input": {"height": height, "width": width},
            "precision": "bfloat16" if self.options.bfloat16 else "float32",
            "limits": {"bytes": self.options.max_bytes, "photos": self.options.max_photos},
        }

    def answer(self, photos: Sequence[bytes], top: int, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
        """For each photo file `{"classes": [{"class", "probability"}], "width", "height"}`, or `{"error"}` where it is
        no photo that is read. Of several labels a photo, `labels` are those above the threshold."""
        results: list[dict[str, Any]] = [{} for _ in photos]
        images: dict[int, Tensor] = {}
        for number, data in enumerate(photos):
            try:
                photo = read_photo(data, self.prepare.reading)
            except Refused as refused:
                results[number] = {"error": str(refused)}
                continue
            height, width = photo.shape[-2:] if isinstance(photo, Tensor) else photo.size[::-1]
            results[number] = {"width": width, "height": height}
            images[number] = self.prepare(photo)  # (C, H, W)
        numbers = list(images)
        for start in range(0, len(numbers), BATCH):
            chunk = numbers[start : start + BATCH]
            self._ask(chunk, torch.stack([images[number] for number in chunk]), results, top, threshold)
        return results

    def _ask(
        self, numbers: Sequence[int], images: Tensor, results: list[dict[str, Any]], top: int, threshold: float
    ) -> None:
        """Fill in the answers for images (N, C, H, W); one batch at a time."""
        with self._lock, torch.inference_mode():
            logits = self.network(images)
        subject = self.subject
        answers = interpret(
            logits, subject.task, subject.classes, threshold=threshold, top=top, whose=subject.checkpoint
        )
        for number, answer in zip(numbers, answers, strict=True):
            results[number]["classes"] = [{"class": name, "probability": value} for name, value in answer.ranked]
            if self.spec.several:
                results[number]["labels"] = list(answer.prediction)
