"""`python -m rnngrad` is the command `rnngrad`."""

import sys

from rnngrad.cli import main

sys.exit(main())
