"""Distributed training without `find_unused_parameters`: no network of ours has a parameter that nothing uses."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as processes
from citizens import SMALL, images
from torch.nn.parallel import DistributedDataParallel

from elastic_cnn import create_model, elasticize

DEEPLAB = {**SMALL["resnext50_elastic"], "layers": (2, 1, 1, 3)}  # DeepLab's last stage has three blocks
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *SMALL.items(),
    ("deeplabv3", {"backbone": "resnext50_elastic", **DEEPLAB}),
    ("dla60x_elastic_seg", SMALL["dla60x_elastic"]),
    ("test_efficientnet", {}),  # made elastic below
]
STEPS = 2  # an unused parameter stops the second one


def train(rank: int, port: int, folder: str) -> None:
    """One process of two: trains every network on its own images and writes the weights."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    for name, kwargs in NETWORKS:
        torch.manual_seed(rank)
        network = create_model(name, num_classes=3, **kwargs)
        if name.startswith("test_"):
            network = elasticize(network)
        trained = DistributedDataParallel(network, find_unused_parameters=False)
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            trained(images(2, 3, 64, 65) + rank).pow(2).mean().backward()
            optimizer.step()
        torch.save({key: value.detach() for key, value in network.named_parameters()}, f"{folder}/{name}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_every_network_trains_on_two_processes(tmp_path: Path) -> None:
    """Both processes end with the same weights, though they saw other images and began with other weights."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes.spawn(train, (port, str(tmp_path)), nprocs=2)
    for name, kwargs in NETWORKS:
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        torch.manual_seed(0)
        fresh = create_model(name, num_classes=3, **kwargs)
        start = dict((elasticize(fresh) if name.startswith("test_") else fresh).named_parameters())
        assert any(not torch.equal(first[key], start[key]) for key in first), f"{name} did not learn"
