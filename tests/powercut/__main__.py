"""Command line: python -m tests.powercut."""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.rehearsal import playbook, report
from tests.rehearsal.footprint import footprint, stale_services, torn_packages
from tests.virtual_pi.host import VirtualPiError

from . import plan
from .running import run_and_cut

FIRST_RUN_S = 90
"""About what a first run takes on two cores; a cut that is drawn later hits what is not yet on the card after the end."""


def survive(cuts: Sequence[plan.Cut]) -> str:
    """Cut the runs on one blank card, each where the last was cut, then see that a plain run mends it.

    Says what is wrong then; nothing where all is well.
    """
    met: list[plan.Cut] = []
    try:
        fault = cut_each(cuts, met) or mend() or look()
    except VirtualPiError as error:
        fault = f"the Pi did not come back: {error}"
    if fault:
        say(f"  BAD   {fault}")
        say("        again: python -m tests.powercut " + " ".join(f"--at '{cut}'" for cut in met))
    return fault


def cut_each(cuts: Sequence[plan.Cut], met: list[plan.Cut]) -> str:
    """Run and cut; each is added to `met` as it came out, with the task that it hit."""
    for cut in cuts:
        run = run_and_cut(cut)
        met.append(plan.Cut(cut.kind, run.at))
        say(f"  {cut.kind:5} {run.since_start_s:5.1f} s, since {run.at.seconds:.1f} s in {run.at.task}")
        if run.code:
            return f"the run ended by itself with {run.code}: {run.output[-3000:]}"
    return ""


def mend() -> str:
    """Run site.yml to its end."""
    run = playbook.site()
    if run.code:
        return f"the run after the cut ended with {run.code}: {run.error}"
    say(f"        mended in {run.seconds:.0f} s: {', '.join(run.changed) or 'nothing to mend'}")
    return ""


def look() -> str:
    """See that a second run changes nothing, and that all is whole, current and alive."""
    before = footprint()
    second = playbook.site()
    if second.code:
        return f"the second run ended with {second.code}: {second.error}"
    if second.changed:
        return f"the second run changed: {', '.join(second.changed)}"
    if (after := footprint()) != before:
        lines = sorted(set(before.splitlines()) ^ set(after.splitlines()))
        return f"the second run changed, without saying so: {' | '.join(lines[:20])}"
    if faults := stale_services() + torn_packages():
        return " | ".join(faults)
    if missing := report.missing_devices(report.wait_for_values(timeout_s=60)):
        return f"no values of {', '.join(missing)}"
    return ""


def blank_card(number: int) -> None:
    """Boot a blank card; from the second on in the place of the one before."""
    calls = (
        [["tests.rehearsal", "prepare"]]
        if number == 1
        else [["tests.virtual_pi", "down"], ["tests.virtual_pi", "up"]]
    )
    for call in calls:
        subprocess.run([sys.executable, "-m", *call], cwd=playbook.TOP, check=True, stdout=subprocess.DEVNULL)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Cut, and say what turned up; 0 where every card was mended."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.powercut", description="power cuts during site.yml"
    )
    parser.add_argument("--cuts", type=int, default=4, help="how many (default: %(default)s)")
    parser.add_argument("--cards", type=int, help="on how many blank cards (default: three for five cuts)")
    parser.add_argument("--seed", type=int, help="draws kinds and moments (default: a new one)")
    parser.add_argument(
        "--first-run", type=float, default=FIRST_RUN_S, metavar="S", help="over which they are drawn"
    )
    parser.add_argument(
        "--at",
        type=plan.Cut.parse,
        action="append",
        metavar="KIND,SECONDS,TASK",
        help="one card with these cuts, as a bad one was told",
    )
    parser.add_argument("--booted", action="store_true", help="the first card is up already")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.at:
        cards = [tuple(options.at)]
    else:
        on_cards = min(options.cuts, options.cards or math.ceil(options.cuts * 3 / 5))
        cards = list(plan.draw(seed, options.cuts, on_cards, options.first_run))
        say(f"SEED={seed}: {options.cuts} cuts on {len(cards)} blank cards")
    started = time.monotonic()
    found = []
    for number, cuts in enumerate(cards, 1):
        if number > 1 or not options.booted:
            blank_card(number)
        begun = time.monotonic()
        say(f"card {number}")
        if fault := survive(cuts):
            found.append(f"card {number}: {fault}")
        say(f"        {time.monotonic() - begun:.0f} s")
    say(f"\n{sum(map(len, cards))} cuts in {time.monotonic() - started:.0f} s")
    say(
        "\n".join(["what turned up:", *found])
        if found
        else "each was mended by a plain run; the next changed nothing"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
