"""Reading data: samples as dicts, in an order and with augmentations that depend on (seed, epoch, index) alone."""

__all__: list[str] = []  # its modules are imported by name
