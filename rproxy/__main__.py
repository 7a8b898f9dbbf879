"""``python -m rproxy``, and the entry of the single file rproxy.pyz."""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 -- this file must be readable for all of them
    sys.exit("rproxy needs Python 3.9 or newer; this is Python %d.%d" % sys.version_info[:2])  # noqa: UP031

from rproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
