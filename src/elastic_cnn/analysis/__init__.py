"""Analyses of networks: complexity beside the paper's tables, tests at other resolutions, segmentation pictures."""

__all__: list[str] = []  # its modules are imported by name
