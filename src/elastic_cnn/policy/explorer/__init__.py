"""The interactive explorer of scale policies: one folder of HTML that opens from disk, and a small local server."""

from elastic_cnn.policy.explorer.build import ExplorerOptions, ExplorerReport, build_explorer

__all__ = ["ExplorerOptions", "ExplorerReport", "build_explorer"]
