"""`python -m power_collector`: the command."""

import sys

from power_collector.cli import main

sys.exit(main())
