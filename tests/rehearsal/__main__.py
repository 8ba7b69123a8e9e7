"""The rehearsal: a virtual Pi from a blank card, provisioned by the shipped site.yml, read back from outside."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.virtual_pi import architecture

from . import playbook, report


def _tool(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], cwd=playbook.TOP, check=True)


def prepare() -> None:
    """Make the vendor packages' repository and boot a virtual Pi from a blank card."""
    playbook.LOG.unlink(missing_ok=True)
    _tool("tests.vendor", "prepare")
    _tool("tests.virtual_pi", "up")


def up() -> int:
    """The whole: prepare, provision, wait for data, report."""
    started = time.monotonic()
    prepare()
    booted = time.monotonic()
    # Under qemu the virtual Pi has no NetworkManager; it has said so.
    run = playbook.site(*(["--skip-tags", "network"] if architecture.is_emulated() else []), show=True)
    if run.code != 0:
        print(
            "\nsite.yml failed. The virtual Pi is left running: `.venv/bin/python -m tests.virtual_pi ssh` goes in, and"
            "\n`. .venv/bin/activate; ansible-playbook -i inventory/rehearsal/hosts.yml site.yml` goes on.",
            file=sys.stderr,
        )
        return 1
    provisioned = time.monotonic()
    values = report.wait_for_values(timeout_s=90)
    print(report.text(values))
    print(
        f"\nboot {booted - started:.0f} s, site.yml {provisioned - booted:.0f} s, "
        f"first data {time.monotonic() - provisioned:.0f} s"
    )
    missing = report.missing_devices(values)
    if missing:
        print(f"no values of: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def down() -> None:
    """Remove the virtual Pi."""
    _tool("tests.virtual_pi", "down")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__)
    parser.add_argument("command", choices=["prepare", "up", "report", "down"])
    command = parser.parse_args().command
    try:
        if command == "up":
            return up()
        if command == "report":
            print(report.text(report.wait_for_values(timeout_s=0)))
        elif command == "prepare":
            prepare()
        else:
            down()
    except subprocess.CalledProcessError as error:
        # The tool has said what is wrong and what to do.
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
