"""``python -m rproxy``, and the entry of the single file rproxy.pyz."""

import sys

from rproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
