"""``python -m taskrunner``."""

import sys

from taskrunner.cli import main

sys.exit(main())
