"""The forms that a network is timed in, each turned into a call without arguments."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.extras import MissingExtra
from elastic_cnn.fast import compile_for_inference, optimize_for_inference
from elastic_cnn.fast.forms import join_last_convolutions
from elastic_cnn.fast.native import is_native
from elastic_cnn.fast.training import optimize_for_training
from elastic_cnn.kernels.native import has_matrix_unit
from elastic_cnn.kernels.ops import NativeKernelsMissing
from elastic_cnn.nn import channels_last
from elastic_cnn.surgery import recalibrate
from elastic_cnn.zoo import create_model, load_checkpoint
from elastic_cnn.zoo.checkpoint import means_checkpoint
from elastic_cnn.zoo.factory import is_known

Run = Callable[[], object]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INFERENCE = {
    "eager": "as built, channels_last",
    "optimized": "optimize_for_inference without the native kernels, eager",
    "compiled": "the same compiled with its weights frozen",
    "native": "the native CPU kernels, and what they leave compiled",
    "onnxruntime": "ONNX Runtime on the exported optimized form",
    "openvino": "OpenVINO on the exported optimized form (bfloat16 on a processor with AMX: that of --target amx)",
}
TRAINING = {
    "eager": "as built, channels_last",
    "optimized": "optimize_for_training, eager",
    "compiled": "as built, torch.compile",
}
TAKEN = {  # dtypes; where it computes in bfloat16, inputs and outputs are float32 all the same
    "native": ("float32", "bfloat16"),
    "onnxruntime": ("float32",),
    "openvino": ("float32", "bfloat16"),  # bfloat16: as it comes, where the processor has it
}
ALONE = ("native", "onnxruntime", "openvino")  # their threads keep spinning for a while after a call


class Unavailable(Exception):
    """A form that cannot be had here, with the reason."""


@dataclass(frozen=True)
class Subject:
    """One thing to time. network: a name, checkpoint or run folder; job: `inference` or `training`."""

    network: str
    form: str
    job: str
    batch: int
    size: int
    dtype: str = "float32"
    threads: int = 1
    device: str = "cpu"


def obstacle(subject: Subject) -> str:
    """Why a form cannot be had whatever the network; empty where it may."""
    if subject.form in ALONE and (subject.dtype not in TAKEN[subject.form] or subject.device != "cpu"):
        return f"{' and '.join(TAKEN[subject.form])} on the CPU alone"
    return "it does not train" if subject.job == "training" and subject.form not in TRAINING else ""


def prepare(subject: Subject) -> Run:
    """The call to time: one forward pass, or one step of training with SGD. `Unavailable` with the reason where the
    form does not exist for this network, dtype or machine; `ValueError` for an unknown network."""
    if reason := obstacle(subject):
        raise Unavailable(reason)
    network = build(subject.network)
    channels = _channels(network)
    images = torch.randn(subject.batch, channels, subject.size, subject.size, generator=_generator())
    with contextlib.suppress(ValueError):  # a network without batch norms keeps its activations in range by itself
        recalibrate(network, [images[:1].expand(2, -1, -1, -1)])
    mixed = subject.job == "training" and subject.dtype == "bfloat16"
    dtype = DTYPES["float32" if subject.form in ALONE or mixed else subject.dtype]
    channels_last(network.to(subject.device, dtype))
    images = images.to(subject.device, dtype, memory_format=torch.channels_last)
    run = (
        training_run(network, subject.form, images, autocast=mixed)
        if subject.job == "training"
        else inference_run(network, subject, images)
    )
    return _synchronized(run) if subject.device == "cuda" else run


def build(source: str) -> nn.Module:
    """A network by name (random weights, seed 0), or from a checkpoint or run folder; in eval mode."""
    torch.manual_seed(0)
    if means_checkpoint(source):
        return load_checkpoint(source)[0]
    return create_model(source).eval()


def check_source(source: str) -> None:
    """`ValueError` where `build` knows no such network, or the checkpoint is broken: before a process is started."""
    if means_checkpoint(source):
        load_checkpoint(source)
    elif ":" not in source and not is_known(source):
        create_model(source)  # says which names are near


def inference_run(network: nn.Module, subject: Subject, images: Tensor) -> Run:
    """One forward pass of `network`, of the subject's dtype and in channels-last form, in the subject's form."""
    if subject.form in ("onnxruntime", "openvino"):
        return _runtime(network, subject, images)
    if subject.form == "native":
        fast = _native(network, images, DTYPES[subject.dtype])
    elif subject.form == "eager":
        fast = network.eval()
    else:
        fast = optimize_for_inference(network, images, native=False)
        if subject.form == "compiled":
            fast = compile_for_inference(fast)

    def run() -> object:
        with torch.inference_mode():
            return fast(images)

    return run


def _native(network: nn.Module, images: Tensor, dtype: torch.dtype) -> nn.Module:
    try:
        fast = optimize_for_inference(network, images, native=True, compile=True, dtype=dtype)
    except NativeKernelsMissing as error:
        raise Unavailable(str(error)) from error
    if not is_native(fast):
        raise Unavailable("the native kernels compute none of its blocks")
    return fast


def _runtime(network: nn.Module, subject: Subject, images: Tensor) -> Run:
    """ONNX Runtime or OpenVINO on a file for this size alone, in which a graph is plainest."""
    from elastic_cnn.export.onnx_file import INPUT, session, write_onnx
    from elastic_cnn.export.openvino_file import compile_model, convert
    from elastic_cnn.export.program_file import capture

    size = (images.shape[-2], images.shape[-1])
    try:
        fast = optimize_for_inference(network, channels_last=False, native=False)
        if subject.form == "openvino" and subject.dtype == "bfloat16" and has_matrix_unit():
            join_last_convolutions(fast)  # as `elastic export --target amx` does
        program, _ = capture(fast, images.shape[1], size, fixed=size)
        array = images.contiguous().numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_onnx(path, program, {})
            if subject.form == "openvino":
                model = compile_model(convert(path), subject.threads, exact=subject.dtype == "float32")
                tensor = torch.from_numpy(array)
                return lambda: model(tensor)
            opened = session(path, subject.threads)
        return lambda: opened.run(None, {INPUT: array})
    except (ValueError, MissingExtra) as error:
        raise Unavailable(str(error)) from error


def training_run(network: nn.Module, form: str, images: Tensor, autocast: bool = False) -> Run:
    """One step: forward in training mode, cross-entropy of class 0, backward, SGD with momentum. autocast: the forward
    pass under autocast to bfloat16, weights and their gradients float32."""
    network.train().requires_grad_(True)
    if form == "optimized":
        report = optimize_for_training(network)
        if not report.fused:
            raise Unavailable(report.reason or "none of the blocks has a training form")
    forward = torch.compile(network, dynamic=False) if form == "compiled" else network
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)

    def run() -> object:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            logits = forward(images).float()
        targets = torch.zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.long, device=logits.device)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return run


def _synchronized(run: Run) -> Run:
    def synchronized() -> object:
        result = run()
        torch.cuda.synchronize()
        return result

    return synchronized


def _channels(network: nn.Module) -> int:
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
