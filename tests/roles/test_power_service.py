"""The collector's unit: it may ask the kernel for clock and boot, and set nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

TEMPLATE = Path(__file__).parents[2] / "roles/collector/templates/power.service.j2"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    path = tmp_path / "power.service"
    path.write_text(
        environment.from_string(TEMPLATE.read_text()).render(
            __collector_program="/bin/true",
            __collector_etc="/etc/power-collector",
            collector_interval_s=15,
            collector_memory_max="256M",
        )
    )
    return path


def settings(unit: Path, name: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{name}=")]


def test_it_reads_the_kernels_clock_and_cannot_set_it(unit: Path) -> None:
    assert settings(unit, "CapabilityBoundingSet") == [""]
    assert settings(unit, "AmbientCapabilities") == []
    assert settings(unit, "NoNewPrivileges") == ["yes"]
    # The last line counts: it gives back two calls of those that the line before takes away.
    assert settings(unit, "SystemCallFilter") == [
        "@system-service",
        "~@privileged @resources",
        "adjtimex clock_adjtime",
    ]
    assert settings(unit, "ProtectClock") == []
    assert settings(unit, "PrivateDevices") == ["yes"]  # nor the hardware clock


def test_it_knows_which_boot_it_is(unit: Path) -> None:
    assert settings(unit, "ProcSubset") == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_it_is_hardened(unit: Path) -> None:
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1:]
