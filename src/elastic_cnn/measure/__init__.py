"""How figures are taken and told: what they hold for, timing in turns, intervals, tables.

`machine` describes what was measured on, `turns` times things against each other, `medians` and `paired` say how sure
medians and differences over seeds are, `proportions` and `correlations` compare networks on the same images, `tables`
writes text and Markdown. Studies, the demo, `elastic benchmark` and the scripts of `benchmarks/` measure with these.
"""

__all__: list[str] = []  # its modules are imported by name
