"""`python -m tests.vendor prepare`: fills .rehearsal/vendor/ for the rehearsal (run at the top of the checkout).

POWER_VENDOR_DEBS=DIR names a folder with vendors' .deb files (influxdb2, influxdb2-cli, grafana) to use first.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.virtual_pi.host import VirtualPiError

from .errors import VendorError
from .prepare import prepare


def main() -> int:
    """Run the command line; 0 done, 1 a fault that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.vendor", description=__doc__)
    parser.add_argument("command", choices=["prepare"])
    parser.add_argument("--state", type=Path, default=Path(".rehearsal/vendor"), help="the folder to fill")
    arguments = parser.parse_args()
    try:
        sources = prepare(arguments.state, os.environ)
    except (VendorError, VirtualPiError) as error:
        print(f"vendor packages: {error}", file=sys.stderr)
        return 1
    for source in sources:
        print(source.says)
    return 0


if __name__ == "__main__":
    sys.exit(main())
