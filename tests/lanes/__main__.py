"""Command line: python -m tests.lanes [SCENARIO ...]; without one, all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from tests.virtual_pi import host
from tests.virtual_pi.host import VirtualPiError
from tests.virtual_pi.state import CHECKOUT

from . import lane

LANES = 2
# The longest first: the lanes end at about the same time then.
LONGEST_FIRST = ("default", "restore", "powercut", "kiosk", "offline", "move")
BEGIN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGIN:5.0f} s] {text}", flush=True)


def scenarios() -> list[str]:
    """All of tests/molecule; one that is not known here comes first."""
    found = {file.parent.name for file in (CHECKOUT / "tests/molecule").glob("*/molecule.yml")}
    return sorted(found, key=lambda name: LONGEST_FIRST.index(name) if name in LONGEST_FIRST else -1)


def work(number: int, waiting: SimpleQueue[str]) -> list[str]:
    """Run one waiting scenario after another in a lane; those that failed."""
    failed = []
    with lane.checkout(number) as copy:
        while True:
            try:
                name = waiting.get_nowait()
            except Empty:
                return failed
            say(f"{name}: begun in lane {number}")
            began = time.monotonic()
            done = lane.run_in(number, copy, ["molecule", "test", "--scenario-name", name])
            print(f"\n===== {name}\n{done.stdout}", flush=True)
            if done.returncode:
                failed.append(name)
            say(f"{name}: {'FAILED' if done.returncode else 'passed'} in {time.monotonic() - began:.0f} s")


def run(names: Sequence[str]) -> list[str]:
    """Run scenarios in lanes; those that failed."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in names:
        waiting.put(name)
    numbers = range(min(LANES, os.cpu_count() or 1, len(names)))
    with lane.internet(), ThreadPoolExecutor() as pool:
        try:
            lanes = [pool.submit(work, number, waiting) for number in numbers]
            return [name for one in lanes for name in one.result()]
        except KeyboardInterrupt:
            while not waiting.empty():
                waiting.get()
            lane.stop()
            raise


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = sys.argv[1:] or scenarios()
    try:
        host.require(say)
        # What it installs on this host and keeps for all is there then, before two lanes want it at a time.
        subprocess.run([sys.executable, "-m", "tests.vendor", "prepare"], cwd=CHECKOUT, check=True)
        failed = run(names)
    except VirtualPiError as error:
        print(f"lanes: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        # The tool has said what is wrong and what to do.
        return error.returncode
    except KeyboardInterrupt:
        print("lanes: interrupted", file=sys.stderr)
        return 130
    print(f"\n{len(names) - len(failed)} of {len(names)} scenarios passed: {', '.join(names)}")
    if failed:
        again = " ".join(failed)
        print(f"FAILED: {again}. Again: make molecule SCENARIOS='{again}'", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
