"""`make test`: every part in turn, and a table of what ran.

A part that this machine cannot run is named as left out; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    target: str
    what: str
    needs_root: bool = False


PARTS = (
    Part("lint", "ruff, mypy --strict, yamllint, ansible-lint (production), shellcheck"),
    Part("unit", "collector, vendor substitutes, dashboards, virtual Pi: tests without a machine"),
    Part("machine", "the virtual Pi: up, reboot, power cut, down, nothing left behind", needs_root=True),
    Part("fault-run", "six minutes of dying devices, databases and collectors; afterwards set against set"),
    Part(
        "molecule",
        "default: blank card, site.yml, idempotence, site check, reboot, drift, service, power cut, verify; "
        "restore: a day of history, backup, another blank card, one command, all compared; "
        "powercut: site.yml cut four times and mended, upgrade; "
        "offline: bundle, blank card without internet; "
        "move: a card set up by hand, its history on a new one",
        needs_root=True,
    ),
)


def main() -> int:
    in_ci = os.environ.get("CI") == "true"
    is_root = os.geteuid() == 0
    rows = []
    failed = False
    for part in PARTS:
        started = time.monotonic()
        if part.needs_root and not is_root:
            outcome = "left out: needs root"
            failed = failed or in_ci
        else:
            print(f"\n===== make {part.target}", flush=True)
            code = subprocess.run(["make", "--no-print-directory", part.target], check=False).returncode
            outcome = "passed" if code == 0 else f"FAILED (exit {code})"
            failed = failed or code != 0
        rows.append((part.target, outcome, f"{time.monotonic() - started:.0f} s", part.what))

    print("\n===== what ran")
    for target, outcome, seconds, what in rows:
        print(f"{target:10} {outcome:22} {seconds:>7}  {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
