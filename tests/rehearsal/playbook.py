"""Runs the shipped playbooks against the rehearsal's inventory, and says what it changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
INVENTORY = "inventory/rehearsal"
LOG = TOP / ".rehearsal" / "ansible.log"

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*?)\] \*+$")
_RESULT = re.compile(r"^(?P<outcome>changed|fatal|failed): \[(?P<host>[^\]]+)\]")


@dataclass(frozen=True)
class Run:
    code: int
    output: str
    seconds: float
    changed: tuple[str, ...]
    """The tasks that reported a change, by name, in order."""

    @property
    def error(self) -> str:
        """What the run said last of a fault, in Ansible's words; the end of the output where it said none."""
        said = re.findall(r"^\[ERROR\]: (?P<msg>(?:.+\n)+?)(?=Origin:|\n)", self.output, re.MULTILINE)
        return " ".join(said[-1].split()) if said else self.output[-2000:]


def site(
    *arguments: str, inventory: str = INVENTORY, show: bool = False, within: tuple[str, ...] = ()
) -> Run:
    """Run site.yml."""
    return run("site.yml", *arguments, inventory=inventory, show=show, within=within)


def run(
    playbook: str,
    *arguments: str,
    inventory: str = INVENTORY,
    show: bool = False,
    within: tuple[str, ...] = (),
) -> Run:
    """Run a playbook; `within` is a command that runs it elsewhere, such as in the room's namespace.

    The output goes to .rehearsal/ansible.log too, where the secrets are searched for afterwards.
    """
    started = time.monotonic()
    lines = []
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with (
        LOG.open("a", encoding="utf-8") as log,
        begin(playbook, *arguments, inventory=inventory, within=within) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            log.write(line)
            if show:
                print(line, end="", flush=True)
    output = "".join(lines)
    return Run(process.returncode, output, time.monotonic() - started, tuple(_changed(lines)))


def begin(
    playbook: str,
    *arguments: str,
    inventory: str = INVENTORY,
    within: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a playbook whose output comes line by line."""
    program = str(Path(sys.executable).parent / "ansible-playbook")
    plain = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}
    inherited = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    return subprocess.Popen(
        [*within, program, "-i", inventory, playbook, *arguments],
        cwd=TOP,
        env={**inherited, **plain, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _changed(lines: list[str]) -> list[str]:
    task = ""
    changed = []
    for line in lines:
        if match := TASK.match(line):
            task = match["name"]
        elif (match := _RESULT.match(line)) and match["outcome"] == "changed" and task not in changed:
            changed.append(task)
    return changed
