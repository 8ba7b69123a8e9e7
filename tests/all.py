"""`make test`: every part in turn, and a table of what ran.

A part that this machine cannot run is named as left out; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A target of the Makefile. One that mostly waits runs beside the next, and is shown after it."""

    target: str
    what: str
    needs_root: bool = False
    waits: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a part."""

    part: Part
    says: str
    passed: bool
    seconds: float
    output: str | None = None


PARTS = (
    Part("lint", "ruff, mypy --strict, yamllint, ansible-lint (production), shellcheck"),
    Part(
        "fault-run",
        "six minutes of dying devices, databases and collectors; afterwards set against set",
        waits=True,
    ),
    Part("unit", "collector, vendor substitutes, dashboards, virtual Pi: tests without a machine"),
    Part("machine", "the virtual Pi: up, reboot, power cut, down, nothing left behind", needs_root=True),
    Part(
        "molecule",
        "default: blank card, site.yml, site check, a second run, reboot, drift, service, power cut, verify; "
        "restore: a day of history, backup, another blank card, one command, all compared; "
        "powercut: site.yml cut four times and mended, upgrade; "
        "offline: bundle, blank card without internet; "
        "move: a card set up by hand, its history on a new one; "
        "kiosk: the page on the Pi's own screen",
        needs_root=True,
    ),
)


def run(part: Part) -> Outcome:
    """Make a part, and hold back what it prints when another is being shown."""
    started = time.monotonic()
    done = subprocess.run(
        ["make", "--no-print-directory", part.target],
        stdout=subprocess.PIPE if part.waits else None,
        stderr=subprocess.STDOUT if part.waits else None,
        text=True,
        errors="replace",
        check=False,
    )
    says = "passed" if done.returncode == 0 else f"FAILED (exit {done.returncode})"
    return Outcome(part, says, done.returncode == 0, time.monotonic() - started, done.stdout)


def outcomes() -> list[Outcome]:
    """Make all parts in turn."""
    found: list[Outcome] = []
    beside: list[Future[Outcome]] = []
    with ThreadPoolExecutor() as pool:
        for part in PARTS:
            if part.needs_root and os.geteuid() != 0:
                found.append(Outcome(part, "left out: needs root", os.environ.get("CI") != "true", 0))
            elif part.waits:
                beside.append(pool.submit(run, part))
            else:
                print(f"\n===== make {part.target}", flush=True)
                found.append(run(part))
                for one in [each.result() for each in beside]:
                    print(f"\n===== make {one.part.target}\n{one.output}", flush=True)
                    found.append(one)
                beside.clear()
    return found


def main() -> int:
    found = outcomes()
    print("\n===== what ran")
    for one in found:
        print(f"{one.part.target:10} {one.says:22} {one.seconds:>5.0f} s  {one.part.what}")
    return 0 if all(one.passed for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
