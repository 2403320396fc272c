"""What the paper's released networks compute, as plain functions on named tensors: an independent oracle.

Every function walks a network once, on images. `Tensors` makes each tensor that is asked for and remembers it, so that
after one pass it is the network's released state dict. Names, shapes and order are those of the released code's
manifests; the mathematics is written from the paper. Widths are free, so that the oracles run fast.
"""

import zlib

import torch
import torch.nn.functional as F


class Tensors:
    """Released tensors by name, made when they are first asked for."""

    def __init__(self, state=None):
        self.state = dict(state or {})

    def get(self, name, *shape):
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if name not in self.state:
            if name.endswith("num_batches_tracked"):
                value = torch.tensor(7)
            elif len(shape) > 1:
                value = torch.randn(shape, generator=generator) / torch.Size(shape[1:]).numel() ** 0.5
            elif name.endswith(("running_var", "weight")):
                value = torch.rand(shape, generator=generator) / 2 + 0.5
            else:
                value = torch.randn(shape, generator=generator) * 0.1
            self.state[name] = value
        assert tuple(self.state[name].shape) == shape, name
        return self.state[name]

    def conv(self, name, x, out, kernel=1, stride=1, dilation=1, groups=1, bias=False):
        weight = self.get(f"{name}.weight", out, x.shape[1] // groups, kernel, kernel)
        shift = self.get(f"{name}.bias", out) if bias else None
        return F.conv2d(x, weight, shift, stride, dilation * (kernel // 2), dilation, groups)

    def norm(self, name, x):
        weight, bias, mean, var = (
            self.get(f"{name}.{leaf}", x.shape[1]) for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        self.get(f"{name}.num_batches_tracked")
        return F.batch_norm(x, mean, var, weight, bias)

    def linear(self, name, x, out):
        return F.linear(x, self.get(f"{name}.weight", out, x.shape[1]), self.get(f"{name}.bias", out))


def halve(x):
    """Mean over 2 x 2; the last row or column of an odd size is repeated first."""
    return F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate"), 2)


def double(x, like):
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x[:, :, : like.shape[2], : like.shape[3]]


def bottleneck_sum(t, name, x, width, out, groups, stride, dilation, elastic, branches):
    """The sum of the branches' 1x1 outputs; `width` and `groups` are a branch's."""

    def branch(suffix, x):
        x = t.norm(f"{name}.bn1{suffix}", t.conv(f"{name}.conv1{suffix}", x, width)).relu()
        x = t.conv(f"{name}.conv2{suffix}", x, width, 3, stride, dilation, groups)
        return t.conv(f"{name}.conv3{suffix}", t.norm(f"{name}.bn2{suffix}", x).relu(), out)

    y = branch("", x)
    if branches == 2:
        low = branch("_d", halve(x) if elastic else x)
        y = y + (double(low, y) if elastic else low)
    return y


def resnext(t, x, depths, planes, classes, *, cardinality=32, branches=2, elastic=False, se=False, deeplab=False):
    """ResNet family: logits `(N, classes)`, or for `deeplab` `(N, classes, H, W)`."""
    size = x.shape[-2:]
    x = t.norm("bn1", t.conv("conv1", x, 64, 7, 2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (depth, plane) in enumerate(zip(depths, planes, strict=True), 1):
        for index in range(depth):
            name, out = f"layer{stage}.{index}", 4 * plane
            dilation = 2 * (1, 2, 4)[index] if deeplab and stage == 4 else 1
            stride = 2 if index == 0 and stage > 1 and dilation == 1 else 1
            low = elastic and stage < 4 and stride == 1
            width = plane * cardinality // 32 if branches == 2 else plane
            y = bottleneck_sum(t, name, x, width, out, cardinality // branches, stride, dilation, low, branches)
            y = t.norm(f"{name}.bn3", y)
            if se:
                gate = y.mean((2, 3), keepdim=True)
                gate = t.conv(f"{name}.selayer.conv1", gate, out // 16, bias=True).relu()
                y = y * t.conv(f"{name}.selayer.conv2", gate, out, bias=True).sigmoid()
            if index == 0:
                x = t.norm(f"{name}.downsample.1", t.conv(f"{name}.downsample.0", x, out, stride=stride))
            x = (x + y).relu()
    if not deeplab:
        return t.linear("fc", x.mean((2, 3)), classes)
    arms = [t.conv("aspp.aspp1", x, 256)]
    arms += [t.conv(f"aspp.aspp{i}", x, 256, 3, dilation=6 * (i - 1)) for i in (2, 3, 4)]
    arms += [t.conv("aspp.aspp5", x.mean((2, 3), keepdim=True), 256)]
    arms = [t.norm(f"aspp.aspp{i}_bn", arm).relu().expand(-1, -1, *x.shape[-2:]) for i, arm in enumerate(arms, 1)]
    x = t.norm("aspp.bn2", t.conv("aspp.conv2", torch.cat(arms, 1), 256)).relu()
    return F.interpolate(t.conv("aspp.conv3", x, classes, bias=True), size, mode="bilinear", align_corners=True)


def densenet(t, x, depths, growth, classes, *, elastic=False):
    """DenseNet: logits `(N, classes)`."""
    x = F.max_pool2d(t.norm("features.norm0", t.conv("features.conv0", x, 2 * growth, 7, 2)).relu(), 3, 2, 1)
    width = 2 * growth if elastic else 4 * growth
    for block, depth in enumerate(depths, 1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            inner = t.norm(f"{name}.norm1", x).relu()

            def branch(suffix, h, name=name):
                h = t.norm(f"{name}.norm2{suffix}", t.conv(f"{name}.conv1{suffix}", h, width)).relu()
                return t.conv(f"{name}.conv2{suffix}", h, growth, 3)

            new = branch("", inner)
            if elastic:
                new = new + (double(branch("_d", halve(inner)), new) if block < 4 else branch("_d", inner))
            x = torch.cat((x, new), 1)
        if block < len(depths):
            name = f"features.transition{block}"
            x = t.conv(f"{name}.conv", t.norm(f"{name}.norm", x).relu(), x.shape[1] // 2)
            x = F.avg_pool2d(x, 2)
    return t.linear("classifier", t.norm("features.norm_final", x).relu().mean((2, 3)), classes)


def dla_levels(t, x, levels, channels, *, base="", cardinality=32, branches=1, root_shortcut=False):
    """DLA-X: the outputs of its levels 0 to 5. `branches=2` is elastic."""

    def block(name, x, out, stride, shortcut):
        width = out * cardinality // 32 // branches
        elastic = branches == 2 and stride == 1 and out < channels[-1]
        y = bottleneck_sum(t, name, x, width, out, cardinality // branches, stride, 1, elastic, branches)
        return (t.norm(f"{name}.bn3", y) + shortcut).relu()

    def tree(name, x, depth, out, stride, children):
        bottom = F.max_pool2d(x, stride, stride, ceil_mode=True)
        shortcut = bottom
        if bottom.shape[1] != out:  # computed at every depth there, of use at depth 1 alone
            shortcut = t.norm(f"{name}.project.1", t.conv(f"{name}.project.0", bottom, out))
        if depth == 1:
            first = block(f"{name}.tree1", x, out, stride, shortcut)
            second = block(f"{name}.tree2", first, out, 1, first)
            y = t.norm(f"{name}.root.bn", t.conv(f"{name}.root.conv", torch.cat((second, first, *children), 1), out))
            return (y + second if root_shortcut else y).relu()
        first = tree(f"{name}.tree1", x, depth - 1, out, stride, [])
        return tree(f"{name}.tree2", first, depth - 1, out, 1, [*children, first])

    x = t.norm(f"{base}base_layer.1", t.conv(f"{base}base_layer.0", x, channels[0], 7)).relu()
    x = t.norm(f"{base}level0.1", t.conv(f"{base}level0.0", x, channels[0], 3)).relu()
    outputs = [x]
    x = t.norm(f"{base}level1.1", t.conv(f"{base}level1.0", x, channels[1], 3, 2)).relu()
    outputs.append(x)
    for level in range(2, 6):
        children = [F.max_pool2d(x, 2, 2, ceil_mode=True)] if level > 2 else []
        x = tree(f"{base}level{level}", x, levels[level], channels[level], 2, children)
        outputs.append(x)
    return outputs


def dla(t, x, levels, channels, classes, **options):
    """DLA-X: logits `(N, classes)`."""
    x = dla_levels(t, x, levels, channels, **options)[-1]
    return t.conv("fc", x.mean((2, 3), keepdim=True), classes, bias=True).flatten(1)


def dla_seg(t, x, levels, channels, classes, **options):
    """DLA-Up: log-probabilities without the last row and column."""
    maps = dla_levels(t, x, levels, channels, base="base.", **options)[1:]
    t.get("base.fc.weight", 1000, channels[-1], 1, 1)
    t.get("base.fc.bias", 1000)
    for row in range(len(maps) - 1):
        first = len(maps) - 2 - row
        out = maps[first].shape[1]
        y = maps[first]
        for i, low in enumerate(maps[first + 1 :], 1):
            name = f"dla_up.ida_{row}"
            low = t.norm(f"{name}.proj_{i}.1", t.conv(f"{name}.proj_{i}.0", low, out)).relu()
            low = F.conv_transpose2d(low, t.get(f"{name}.up_{i}.weight", out, 1, 4, 4), None, 2, 1, groups=out)
            y = torch.cat((y, low[:, :, : y.shape[2], : y.shape[3]]), 1)
            y = t.norm(f"{name}.node_{i}.1", t.conv(f"{name}.node_{i}.0", y, out, 3)).relu()
            maps[first + i] = y
    y = t.conv("fc.0", maps[-1], classes, bias=True)
    y = F.conv_transpose2d(y, t.get("up.weight", classes, 1, 4, 4), None, 2, 1, groups=classes)
    return y.log_softmax(1)[:, :, :-1, :-1]
