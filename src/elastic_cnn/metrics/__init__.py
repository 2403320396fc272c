"""Metrics that torchmetrics lacks, one module a subject: `multilabel` (F1 by class and by object size).

The modules need the extra `train` (torchmetrics); import them by name, this package imports none of them.
"""

__all__: list[str] = []  # its modules are imported by name
