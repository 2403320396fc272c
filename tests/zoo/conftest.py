"""Makes `citizens.py`, which several tests of this folder share, importable from them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
