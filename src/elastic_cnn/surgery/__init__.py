"""Surgery on trained networks: `elasticize` and the rules it follows."""

from elastic_cnn.surgery.elasticize import apply_surgery, describe_surgery, elasticize
from elastic_cnn.surgery.report import BlockOutcome, SurgeryReport

__all__ = ["BlockOutcome", "SurgeryReport", "apply_surgery", "describe_surgery", "elasticize"]
