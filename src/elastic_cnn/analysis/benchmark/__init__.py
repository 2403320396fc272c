"""How long networks take: every form of one beside the same form of its base, run in turns.

`benchmark` measures, `format_table` prints. Networks run in child processes: eager, optimized and compiled ones in one
together, every runtime that keeps threads spinning in one of its own, halted while another is being timed.
"""

from elastic_cnn.analysis.benchmark.breakdown import break_down
from elastic_cnn.analysis.benchmark.measure import Request, benchmark
from elastic_cnn.analysis.benchmark.table import format_table

__all__ = ["Request", "benchmark", "break_down", "format_table"]
