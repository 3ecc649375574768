"""`python -m desmatch`, the same as `desmatch`."""

import sys

from desmatch.cli import main

sys.exit(main())
