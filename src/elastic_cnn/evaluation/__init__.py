"""A test worth reading: what a network answers on every photo of a split, and a report of it with intervals."""

from elastic_cnn.evaluation.collect import Answers, collect_answers
from elastic_cnn.evaluation.report import Report, write_report

__all__ = ["Answers", "Report", "collect_answers", "write_report"]
