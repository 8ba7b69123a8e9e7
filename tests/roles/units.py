"""A role's units, judged by systemd itself."""

from __future__ import annotations

import subprocess
from pathlib import Path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def complaints(units: list[Path]) -> list[str]:
    """What systemd does not understand of these units, or what they lack."""
    said = analyze("verify", "--man=no", *units).stderr.splitlines()
    return [line for line in said if any(unit.stem in line for unit in units)]


def exposure(unit: Path) -> float:
    """How much a service may do, 0.0 (nothing) to 10.0."""
    lines = analyze("security", "--offline=yes", unit).stdout.splitlines()
    (overall,) = [line for line in lines if "Overall exposure level" in line]
    return float(overall.split(":")[1].split()[0])
