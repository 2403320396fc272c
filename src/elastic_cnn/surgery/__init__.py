"""Surgery on trained networks: `elasticize`, its undoing, and the rules it follows."""

from elastic_cnn.surgery.elasticize import elasticize
from elastic_cnn.surgery.recalibrate import recalibrate
from elastic_cnn.surgery.replay import apply_surgery, describe_surgery
from elastic_cnn.surgery.report import BlockOutcome, SurgeryReport
from elastic_cnn.surgery.restore import restore

__all__ = [
    "BlockOutcome",
    "SurgeryReport",
    "apply_surgery",
    "describe_surgery",
    "elasticize",
    "recalibrate",
    "restore",
]
