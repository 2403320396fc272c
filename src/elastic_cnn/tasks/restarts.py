"""Processes that torchrun starts again must not read what those before them left.

torchrun keeps one store for all its attempts, in which processes look up each other's addresses. After a restart a
process may so find the address of one that is dead, and fail or wait for ever (pytorch/pytorch#135712). Here every
attempt has names of its own in that store.
"""

import os
from collections.abc import Mapping

import torch
from lightning import Fabric
from torch import distributed

SEPARATE_STORES = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def attempt(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name of this attempt of torchrun's, None where none is needed or all processes would not agree on one.

    With several machines each counts its own restarts, so the counts may differ: there torchrun itself must be told to
    open a store an attempt, by TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.
    """
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or environment.get("GROUP_WORLD_SIZE") != "1":
        return None
    return f"attempt {environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def join_attempt(fabric: Fabric) -> None:
    """Meet the other processes of this attempt, before Fabric's launch would; does nothing where there is none."""
    name = attempt()
    if name is None or int(os.environ["WORLD_SIZE"]) == 1 or distributed.is_initialized():
        return
    store, rank, size = next(distributed.rendezvous("env://"))
    backend = "nccl" if fabric.device.type == "cuda" else "gloo"
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)
    distributed.init_process_group(backend, store=distributed.PrefixStore(name, store), rank=rank, world_size=size)


def advice(environment: Mapping[str, str] = os.environ) -> str:
    """What to do about restarts over several machines that share a store, empty where all is well."""
    machines, restarts = (
        int(environment.get("GROUP_WORLD_SIZE", "1")),
        environment.get("TORCHELASTIC_MAX_RESTARTS", "0"),
    )
    if machines < 2 or restarts == "0" or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return ""
    return f"restarts on {machines} machines may not find each other: start torchrun with {SEPARATE_STORES}=1"
