"""Every registered operator called with one argument made wrong: it raises, or takes it, and does the same when traced;
it never reads or writes what is not its own.

    python tests/kernels/fuzz_operators.py [--seed 0] [OPERATOR ...]

Each tensor's memory ends at a page that may not be touched, and an operator's calls run in a process of their own,
which may die of a step beyond it. Faults are printed, a line each. For tests: `test_operator_arguments.py`.
"""

import argparse
import ctypes
import mmap
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from operator_examples import PLAIN, examples, in_bfloat16
from torch import Tensor

from elastic_cnn.kernels import build, native

PAGE = mmap.PAGESIZE
NUMBERS = (-1, 0, 1, 2, 3, 7, 2**16, 2**16 + 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63))
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
REFUSALS = (
    ValueError,
    TypeError,
    RuntimeError,
)  # torch's own: NotImplementedError, of other devices, is a RuntimeError


def guarded(x: Tensor) -> Tensor:
    """`x` again, its strides too, the last byte of its memory right before a page that may not be touched."""
    if x.device.type != "cpu" or x.numel() == 0:
        return x
    size = (sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) + 1) * x.element_size()
    pages = -(-size // PAGE)
    start = LIBC.mmap(None, (pages + 1) * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, 0x22, -1, 0)
    LIBC.mprotect(start + pages * PAGE, PAGE, 0)
    memory = (ctypes.c_uint8 * size).from_address(start + pages * PAGE - size)
    y = torch.frombuffer(memory, dtype=x.dtype).as_strided(x.shape, x.stride())
    y.as_strided((size // x.element_size(),), (1,)).zero_()
    if all(x.stride()) or x.dim() == 0:
        y.copy_(x)
    return y


def wrong_tensors(x: Tensor) -> Iterator[tuple[str, Any]]:
    """(what is wrong, the argument)."""
    format = torch.channels_last if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else None
    for dim, size in enumerate(x.shape):
        for other in sorted({0, 1, size - 1, size + 3, size * 64} - {size, -1}):
            shape = [*x.shape[:dim], other, *x.shape[dim + 1 :]]
            y = torch.ones(shape, dtype=x.dtype)
            yield (
                f"size {other} in place of {size} in dimension {dim}",
                y.contiguous(memory_format=format) if format else y,
            )
    yield "another dtype", x.double() if x.dtype is torch.float32 else x.float()
    narrow = torch.float64 if x.dtype is torch.bfloat16 else torch.bfloat16
    yield str(narrow), x.to(narrow)
    yield "half precision", x.half()
    yield "a number", torch.tensor(1).to(x.dtype)
    yield "nothing in it", torch.empty(0, dtype=x.dtype)
    yield "one dimension more", x[None].contiguous()
    yield "the meta device", x.to("meta")
    yield "None", None
    if x.dim() >= 2:
        yield "other strides", x.transpose(0, -1).contiguous().transpose(0, -1)
    yield "one element repeated", torch.zeros((), dtype=x.dtype).expand(x.shape)


def wrong_numbers(plan: list[int]) -> Iterator[tuple[str, Any]]:
    """Plans with some numbers changed, left out or added; which, the seed of torch decides."""
    draw = random.Random(torch.initial_seed())
    for other in ([], [1], plan[:-1], plan + plan, [*plan, 0]):
        yield f"a plan of {len(other)} numbers", other
    for _ in range(120):
        other = list(plan)
        for _ in range(draw.choice((1, 1, 2, 3))):
            other[draw.randrange(len(plan))] = draw.choice((*NUMBERS, draw.choice(plan)))
        yield f"the plan {other}", other


def wrong_arguments(arguments: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """(what is wrong, all arguments), one wrong at a time."""
    for at, argument in enumerate(arguments):
        others: Iterator[tuple[str, Any]] = iter(())
        if isinstance(argument, Tensor):
            others = wrong_tensors(argument)
        elif isinstance(argument, list) and argument and isinstance(argument[0], Tensor):
            swapped = [
                (t, [*argument[:i], y, *argument[i + 1 :]]) for i, x in enumerate(argument) for t, y in wrong_tensors(x)
            ]
            others = iter([*swapped, ("no tensors", []), ("twice the tensors", argument + argument)])
        elif isinstance(argument, list):
            others = wrong_numbers(argument)
        elif isinstance(argument, int) and not isinstance(argument, bool):
            others = iter([(f"{n} in place of {argument}", n) for n in (0, -1, 3, 2**31, 2**62)])
        elif isinstance(argument, float):
            others = iter([(f"{n} in place of {argument}", n) for n in (0.0, -1.0, float("nan"))])
        for what, other in others:
            yield f"argument {at}: {what}", [*arguments[:at], other, *arguments[at + 1 :]]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    return [mapped(item, change) for item in value] if isinstance(value, list) else value


def on_meta(x: Tensor) -> Tensor:
    """Of the same strides too, where `to` would lay it out anew."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def lies_on_cpu(arguments: list[Any]) -> Iterator[bool]:
    return (argument.device.type == "cpu" for argument in arguments if isinstance(argument, Tensor))


def outcome(operator: Any, arguments: list[Any]) -> Any:
    """The sizes and dtypes of the results, or "refused"."""
    try:
        results = operator(*arguments)
    except REFUSALS:
        return "refused"
    results = results if isinstance(results, (tuple, list)) else [results]
    return [(tuple(r.shape), r.dtype, r.stride()) for r in results if isinstance(r, Tensor)]


def try_all(name: str, arguments: list[Any], tell: Callable[[str], None]) -> None:
    """All wrong calls of an operator; `tell` is given what is tried next, and faults."""
    operator = getattr(torch.ops.elastic_cnn, name)
    arguments = mapped(arguments, guarded)
    for what, wrong in wrong_arguments(arguments):
        tell(f"next {what}")
        real, traced = outcome(operator, mapped(wrong, guarded)), outcome(operator, mapped(wrong, on_meta))
        if real != traced and "meta device" not in what:
            tell(f"fault {what}: {real}, traced {traced}")
        if "meta device" in what and real != "refused" and any(lies_on_cpu(wrong)):
            tell(f"fault {what}: {real}")
    tell("next done")


def faults_of(name: str, arguments: list[Any]) -> list[str]:
    """What goes wrong with an operator, a line each; empty where nothing does."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        signal.alarm(100)
        with os.fdopen(writing, "w", buffering=1) as pipe:
            try:
                try_all(name, arguments, lambda line: print(line, file=pipe, flush=True))
            except BaseException as error:
                print(f"fault {type(error).__name__}: {error}".splitlines()[0], file=pipe, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    status = os.waitpid(process, 0)[1]
    found = [line.removeprefix("fault ") for line in lines if line.startswith("fault ")]
    if os.WIFSIGNALED(status):
        last = [line.removeprefix("next ") for line in lines if line.startswith("next ")][-1:]
        found.append(f"{signal.Signals(os.WTERMSIG(status)).name} at {' '.join(last)}")
    return [f"{name}: {fault}" for fault in found]


def main() -> int:
    """Exit code 1 where there is a fault, 2 where there are no kernels."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("names", metavar="OPERATOR", nargs="*", help="by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the values and of the wrong plans (default: 0)")
    args = parser.parse_args()
    for part in build.PARTS:
        if not (loaded := native.load(part)):
            print(f"no {part} kernels here: {loaded.reason}")
            return 2
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    faults = 0
    given = list(examples().items())
    if torch.ops.elastic_cnn.train_bf16_level():
        given += [(name, in_bfloat16(arguments)) for name, arguments in given if name in PLAIN]
    for name, arguments in given:
        if not args.names or name in args.names:
            found = faults_of(name, arguments)
            faults += len(found)
            print(
                "\n".join(found) or f"{name}: {sum(1 for _ in wrong_arguments(arguments))} wrong calls, no fault",
                flush=True,
            )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
