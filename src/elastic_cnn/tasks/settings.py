"""How and where a run is carried out: what differs from machine to machine, and does not change what is learnt."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from elastic_cnn.tasks.geometry import Size, parse_size

LOGGERS = ("wandb", "mlflow")


def default_workers() -> int:
    """Processes that read images: one less than the processors this process may use, at most 8."""
    return max(0, min(8, len(os.sched_getaffinity(0)) - 1)) if hasattr(os, "sched_getaffinity") else 2


@dataclass(frozen=True)
class Settings:
    """accelerator: `auto`, `cpu`, `gpu` (Lightning's names); devices: processes on this machine; nodes: machines.

    strategy: Lightning's (`auto`, `ddp`, `ddp_find_unused_parameters_true`).
    workers: processes a process that read images.
    checkpoint_every: optimizer steps from one saved state to the next; 0 for the ends of epochs alone.
    allow_other_data: a resumed run may go on with other photos of the same classes.
    extend: a resumed run may have other values of `RunFolder.EXTENDABLE`, as more epochs.
    find_rate: begin with a range test, and train at the rate that it finds.
    loggers: which hear of the run besides its own logs: `wandb`, `mlflow`.
    strict: an unreadable image is an error. progress: show bars (by default, on a terminal).
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    checkpoint_every: int = 0
    progress: bool | None = None
    allow_other_data: bool = False
    extend: bool = False
    find_rate: bool = False
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("devices", 1), ("nodes", 1), ("workers", 0), ("checkpoint_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")

    @property
    def processes(self) -> int:
        """How many take part, whoever starts them."""
        devices, nodes = launched() or (self.devices, self.nodes)
        return devices * nodes


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """(processes a machine, machines) of the launcher that started this process; None without one.

    torchrun's variables, or those of SLURM's srun. `ValueError` where machines have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        count, local = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        machines = count // local
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        count, machines = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", "1"))
        local = count // machines
    else:
        return None
    if local * machines != count:
        raise ValueError(f"{count} processes are not the same number on each machine: start as many on every one")
    return local, machines


@dataclass(frozen=True)
class TestOptions:
    """How a checkpoint is tested. image_size: side in pixels, or height and width, in place of the checkpoint's own.

    tta: views whose probabilities are averaged: `flip`, factors on the input's side as `0.8,1.25`, or both; empty for
    the photo alone.
    annotations, images: the file and the folder of photos of data in COCO's format, where they are not in their usual
    places below the data folder.
    """

    __test__ = False  # no test case, for pytest

    image_size: Size | None = None
    batch_size: int = 64
    strict: bool = False
    annotations: str = ""
    images: str = ""
    tta: str = ""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", parse_size(self.image_size))
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")
