"""Compile every Triton kernel for two GPUs, neither of which need be there; prints one JSON line a kernel.

Run as a program, in a process in which Triton does not interpret. Sizes are those of a bfloat16 map in channels_last.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from elastic_cnn.kernels.triton import backward, forward

INTEGERS = ("cells", "C", "H", "W", "h", "w", "blocks", "programs")
FLOATS = ("scale", "bias", "k1", "k2", "k3", "centre", "counts", "means", "squares", "sums", "products")
TILE = {"CL": True, "ACC": tl.float32, "BLOCK_P": 16, "BLOCK_C": 64}
KERNELS = [
    (forward.tail_kernel, {"SCALE": True, "BIAS": True, "SHORTCUT": True, "RELU": True, "POOL": True}),
    (forward.stats_kernel, {}),
    (forward.pool_kernel, {}),
    (backward.sums_kernel, {"RELU": True, "GRAD_OUT": True, "GRAD_POOLED": True}),
    (
        backward.grad_kernel,
        {"RELU": True, "GRAD_OUT": True, "GRAD_POOLED": True, "SCALE": True, "STATISTICS": True, "SHORTCUT": True},
    ),
    (backward.upsample_grad_kernel, {}),
    (backward.pool_grad_kernel, {}),
]


def signature(name: str, constants: dict[str, object]) -> str:
    if name in constants:
        return "constexpr"
    return "i32" if name in INTEGERS else "*fp32" if name in FLOATS else "*bf16"


def compile_kernel(kernel: triton.JITFunction, flags: dict[str, object], architecture: int) -> dict[str, object]:
    constants = {**TILE, **flags}
    names = kernel.arg_names
    types = {name: signature(name, constants) for name in names}
    aligned = [
        i for i, name in enumerate(names) if types[name].startswith("*") or name == "C"
    ]  # as torch's tensors are
    source = ASTSource(
        kernel,
        types,
        {(names.index(name),): value for name, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 4})
    loads = re.findall(r"ld\.global\S*", compiled.asm["ptx"])
    return {
        "kernel": kernel.__name__,
        "architecture": architecture,
        "loads": len(loads),
        "wide_loads": sum(".v4" in load for load in loads),
        **resources(compiled.asm["cubin"]),
    }


def resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of stack and local memory, which spilled registers would need."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {key: int(re.findall(rf"{key}:(\d+)", text)[-1]) for key in ("REG", "STACK", "LOCAL")}


if __name__ == "__main__":
    for architecture in map(int, sys.argv[1:]):
        for function, options in KERNELS:
            print(json.dumps(compile_kernel(function, options, architecture)))
