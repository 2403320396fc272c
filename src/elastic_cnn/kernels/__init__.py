"""Native kernels: custom operators that compute what several layers of a network would, in fewer passes over memory.

CPU kernels are C++ (`cpu/`), compiled when the package is installed from source or on first use (`build.py`), loaded by
`native.py`; where they cannot be had the plain PyTorch form of the same function serves, and `doctor.py` says why.
"""

__all__: list[str] = []  # its modules are imported by name
