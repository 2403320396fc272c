"""Reading data: samples as dicts, in an order and with augmentations that depend on (seed, epoch, index) alone."""
