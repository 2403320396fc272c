"""Compilation for inference: `torch.compile` with the weights frozen into the program."""

import inspect
from typing import Any

import torch
from torch import nn


class CompiledNetwork(nn.Module):
    """`network` compiled at the first call of each kind of input (size, dtype); weights are constants of the program.

    network: the module that was compiled, which shares its weights and must not be changed any more.
    """

    def __init__(self, network: nn.Module, **options: Any):
        super().__init__()
        self.network = network
        self.optimization_report = getattr(network, "optimization_report", None)
        if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
            options = {"isolate_recompiles": True, **options}  # else programs of one class stand in one list
        self._run = torch.compile(network, **options)

    def forward(self, *inputs: Any) -> Any:
        import torch._inductor.config as inductor  # heavy, and of use only here

        with torch.no_grad(), inductor.patch(freezing=True):
            return self._run(*inputs)


def compile_for_inference(network: nn.Module, **options: Any) -> CompiledNetwork:
    """`network` compiled with its weights frozen, so that the compiler may lay them out for the processor.

    options: `torch.compile`'s. The first call of each size takes up to minutes; a second size compiles one for
    all sizes (`dynamic=False`: one for each). Set `TORCHINDUCTOR_CACHE_DIR` to keep programs between processes.
    """
    return CompiledNetwork(network.eval(), **options)
