"""Analyses of networks: complexity beside the paper's tables, tests at other resolutions, segmentation pictures."""
