"""`python -m elastic_cnn` is the same as `elastic`."""

import sys

from elastic_cnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
