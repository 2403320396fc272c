"""Branches with one squeeze-and-excitation for all of them.

A squeeze-and-excitation inside a block sees all channels, also those of other branches. It squeezes each branch at the
branch's own resolution; the gate is computed once from all of them, and each branch takes its part of it:

    y = sum_i U_i( P_i( g_i * T_i(D_i(x)) ) ),    g = gate( [mean T_1(D_1(x)), mean T_2(D_2(x)), ...] )
"""

from typing import Final

import torch
from torch import Tensor, nn

from elastic_cnn.nn.branches import PartedBranches
from elastic_cnn.nn.resample import crop


class GatedBranches(PartedBranches):
    """`(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    gate: (N, channels of all branches, 1, 1) means -> gates of that shape, the module within a squeeze-and-excitation.
    gated_channels: how many channels each branch hands to the gate.
    ungated_layers: how many layers of each branch's transform run before the gate.
    """

    parts: list[int]  # said again: TorchScript reads a class's own annotations
    ungated_layers: Final[int]
    gated_channels: list[int]

    def __init__(self, branches: PartedBranches, gate: nn.Module, gated_channels: list[int], ungated_layers: int):
        super().__init__(branches, branches.parts, branches.concatenates)
        self.gate = gate
        self.gated_channels = list(gated_channels)
        self.ungated_layers = ungated_layers

    def forward(self, x: Tensor) -> Tensor:
        blend = float(self.low[0].blend)  # type: ignore[arg-type]
        if blend >= 1:
            return self._run(x, False)
        if blend <= 0:
            return self._run(x, True)
        return torch.lerp(self._run(x, True), self._run(x, False), blend)

    def _run(self, x: Tensor, full_resolution: bool) -> Tensor:
        """One pass; `full_resolution` leaves out D and U. Loops stand as TorchScript takes them."""
        inputs = torch.split(x, self.parts, dim=1) if len(self.parts) > 0 else [x] * (1 + len(self.low))
        high = inputs[0]
        for i, layer in enumerate(self.high.transform):
            if i < self.ungated_layers:
                high = layer(high)
        inner = [high]  # (N, gated_channels[i], H_i, W_i) each
        for b, branch in enumerate(self.low):
            low = inputs[b + 1] if full_resolution else branch.down(inputs[b + 1])  # type: ignore[operator]
            for i, layer in enumerate(branch.transform):  # type: ignore[arg-type]
                if i < self.ungated_layers:
                    low = layer(low)
            inner.append(low)
        means = torch.cat([maps.mean((2, 3), keepdim=True) for maps in inner], 1)  # (N, gated channels, 1, 1)
        gates = torch.split(self.gate(means), self.gated_channels, 1)
        high = inner[0] * gates[0]
        for i, layer in enumerate(self.high.transform):
            if i >= self.ungated_layers:
                high = layer(high)
        outputs = [high]
        height, width = high.shape[-2:]
        for b, branch in enumerate(self.low):
            low = inner[b + 1] * gates[b + 1]
            for i, layer in enumerate(branch.transform):  # type: ignore[arg-type]
                if i >= self.ungated_layers:
                    low = layer(low)
            outputs.append(low if full_resolution else crop(branch.up(low), height, width))  # type: ignore[operator]
        return self._joined(outputs)
