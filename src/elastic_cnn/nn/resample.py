"""The resamplings D_r and U_r of Equation 3: change a map's resolution by an integer factor, for any height and width.

Downsampling a map `(N, C, H, W)` by r gives `(N, C, ceil(H / r), ceil(W / r))`; upsampling by r gives
`(N, C, r H', r W')`, which the caller crops to the high-resolution branch's size. All kinds keep the memory format.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWNSAMPLE_KINDS = ("area", "nearest", "bilinear", "trained", "dilated", "dilated_area", "identity")
UPSAMPLE_KINDS = ("bilinear", "nearest", "trained", "identity")

# Kinds that keep the full resolution: the branch sees more context by dilating its own convolutions (Table 6).
FULL_RESOLUTION_KINDS = ("dilated", "dilated_area", "identity")


def pad_to_multiple(x: Tensor, factor: int) -> Tensor:
    """Replicate the last row and column until height and width are multiples of `factor`; `(N, C, H, W)`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % factor, 0, -height % factor), mode="replicate")


def captures_symbols(height: int, width: int) -> bool:
    """Whether `torch.export` is capturing a graph in which these sizes are symbols, so that it holds for many sizes."""
    if not torch.compiler.is_compiling() or torch.compiler.is_dynamo_compiling():
        return False
    return not (isinstance(height, int) and isinstance(width, int))


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first `height` rows and `width` columns of `(N, C, H, W)`.

    A slice is captured as one that leaves out something, or as one that does not, and so the graph would hold for odd
    sizes or for even ones alone. Padding by a negative amount, which may be none, holds for both.
    """
    if torch.jit.is_scripting():
        return x[..., :height, :width]
    elif torch.compiler.is_dynamo_compiling() or captures_symbols(height, width):  # noqa: RET505 (not scripted so)
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
    return x[..., :height, :width]


class AreaDownsample(nn.Module):
    """Mean over r x r windows. A window that reaches over the edge takes the mean of what lies inside.

    At r = 2 this equals replicate-padding an odd size by one row or column before pooling, as the paper's code does.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 (not scripted so)
            if captures_symbols(x.shape[-2], x.shape[-1]):
                return self._of_unknown_size(x)
        return F.avg_pool2d(x, self.factor, self.factor, ceil_mode=True, count_include_pad=False)

    def _of_unknown_size(self, x: Tensor) -> Tensor:
        """The same for an export with dynamic sizes: it cannot prove where `ceil_mode` lets the last window start."""
        padding = (0, self.factor - 1, 0, self.factor - 1)
        inside = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), padding), self.factor)  # part of each window inside
        return F.avg_pool2d(F.pad(x, padding), self.factor) / inside

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class CeilMaxPool(nn.MaxPool2d):
    """The maximum over r x r windows; a window that reaches over the edge takes that of what lies inside."""

    def __init__(self, factor: int):
        super().__init__(factor, factor, ceil_mode=True)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 (not scripted so)
            if captures_symbols(x.shape[-2], x.shape[-1]):
                padded = F.pad(x, (0, self.factor - 1, 0, self.factor - 1), value=float("-inf"))
                return F.max_pool2d(padded, self.factor)
        return F.max_pool2d(x, self.factor, self.factor, ceil_mode=True)


class NearestDownsample(nn.Module):
    """Every r-th row and column."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.factor, :: self.factor]

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class BilinearDownsample(nn.Module):
    """Bilinear interpolation at the centres of the r x r windows (half-pixel). Equals the area kind at r = 2."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, self.factor)
        return F.interpolate(x, scale_factor=1.0 / self.factor, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class TrainedDownsample(nn.Conv2d):
    """A strided depthwise convolution, initialised to the mean over the window (Table 6, "trained filter")."""

    def __init__(self, channels: int, factor: int, device=None, dtype=None):
        super().__init__(channels, channels, factor, factor, groups=channels, bias=False, device=device, dtype=dtype)
        nn.init.constant_(self.weight, 1 / factor**2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_to_multiple(x, self.stride[0]))


class SmoothAtFullResolution(nn.Module):
    """Mean over a (2 r - 1)-wide window at every position: average pooling for a branch that keeps its resolution."""

    def __init__(self, factor: int):
        super().__init__()
        self.window = 2 * factor - 1

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, 1, self.window // 2, count_include_pad=False)

    def extra_repr(self) -> str:
        return f"window={self.window}"


class Upsample(nn.Module):
    """Interpolation by an integer factor; `bilinear` is half-pixel (corners not aligned), as in the paper."""

    def __init__(self, factor: int, mode: str):
        super().__init__()
        self.factor = float(factor)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "nearest":
            return F.interpolate(x, scale_factor=self.factor, mode="nearest")
        return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}, mode={self.mode!r}"


class TrainedUpsample(nn.Module):
    """A strided transposed depthwise convolution, initialised to bilinear interpolation, borders included."""

    def __init__(self, channels: int, factor: int, device=None, dtype=None):
        super().__init__()
        self.factor = factor
        kernel = 2 * factor - factor % 2
        self.padding = (kernel - factor) // 2 + factor  # the second term crops what padding the input by one pixel adds
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel, device=device, dtype=dtype))
        offsets = torch.arange(kernel, device=self.weight.device, dtype=self.weight.dtype) - (kernel - 1) / 2
        tent = 1 - offsets.abs() / factor  # (kernel,), bilinear weights by distance from the centre
        with torch.no_grad():
            self.weight.copy_((tent[:, None] * tent[None, :]).expand_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(x, self.weight, None, self.factor, self.padding, 0, self.weight.shape[0])

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, factor={self.factor}"


class Widened(nn.Module):
    """A downsampling for a convolution that takes `margin` (rows, columns) off each side of its map: the low map is
    widened by its border, so that what comes out covers what the convolution puts out at full resolution."""

    def __init__(self, down: nn.Module, factor: int, margin: tuple[int, int]):
        super().__init__()
        self.down = down
        self.rows, self.columns = (pixels - pixels // factor for pixels in margin)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.down(x), (self.columns, self.columns, self.rows, self.rows), mode="replicate")

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}"


class Shifted(nn.Module):
    """The upsampling that belongs to `Widened`: begins where the convolution's output at full resolution begins."""

    def __init__(self, up: nn.Module, factor: int, margin: tuple[int, int]):
        super().__init__()
        self.up = up
        self.rows, self.columns = (pixels % factor for pixels in margin)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.up(x), (-self.columns, 0, -self.rows, 0))

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}"


def make_downsample(kind: str, factor: int, channels: int, device=None, dtype=None) -> nn.Module:
    """D_r for maps of `channels` channels. `ValueError` for an unknown kind."""
    if factor == 1 or kind in ("dilated", "identity"):
        return nn.Identity()
    if kind == "area":
        return AreaDownsample(factor)
    if kind == "nearest":
        return NearestDownsample(factor)
    if kind == "bilinear":
        return BilinearDownsample(factor)
    if kind == "trained":
        return TrainedDownsample(channels, factor, device=device, dtype=dtype)
    if kind == "dilated_area":
        return SmoothAtFullResolution(factor)
    raise ValueError(f"unknown downsampling {kind!r}; choose from {', '.join(DOWNSAMPLE_KINDS)}")


def make_upsample(kind: str, factor: int, channels: int, device=None, dtype=None) -> nn.Module:
    """U_r for maps of `channels` channels. `ValueError` for an unknown kind."""
    if factor == 1 or kind == "identity":
        return nn.Identity()
    if kind in ("bilinear", "nearest"):
        return Upsample(factor, kind)
    if kind == "trained":
        return TrainedUpsample(channels, factor, device=device, dtype=dtype)
    raise ValueError(f"unknown upsampling {kind!r}; choose from {', '.join(UPSAMPLE_KINDS)}")
