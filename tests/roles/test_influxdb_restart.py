"""What root does about the collector's mark: the script with a `systemctl` that only takes notes, and the units."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from power_collector import latest, stuck_database

from .units import complaints, exposure

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE = ROLES / "influxdb"
SCRIPT = ROLE / "files/influxdb-restart.sh"


class Root:
    """Runs the script; `systemctl` writes its arguments to a file and exits with `code`."""

    def __init__(self, directory: Path) -> None:
        self.mark = directory / "restart-influxdb"
        self.stamp = directory / "stamp"
        self._uptime = directory / "uptime"
        self._up_s = 5
        self._calls = directory / "calls"
        self._systemctl = directory / "bin" / "systemctl"
        self._systemctl.parent.mkdir()
        self.code = 0

    def run(self) -> subprocess.CompletedProcess[str]:
        self._systemctl.write_text(f'#!/bin/sh\necho "$@" >>{self._calls}\nexit {self.code}\n')
        self._systemctl.chmod(0o755)
        self.mark.exists() or self.mark.write_text("why\n")
        self._uptime.write_text(f"{self._up_s}.12 3.45\n")
        return subprocess.run(
            ["sh", SCRIPT, self.mark, self.stamp, self._uptime],
            env={"PATH": f"{self._systemctl.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def hours_pass(self, hours: float) -> None:
        self._up_s += int(hours * 3600)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_the_database_is_restarted_and_the_mark_is_gone(root: Root) -> None:
    done = root.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert root.calls == ["try-restart influxdb.service"]
    assert not root.mark.exists()
    assert "<4>InfluxDB is restarted: the collector asked for it" in done.stdout


def test_at_most_once_an_hour_and_the_mark_goes_all_the_same(root: Root) -> None:
    root.run()
    root.hours_pass(0.98)
    done = root.run()
    assert done.returncode == 0
    assert len(root.calls) == 1
    assert "not restarted: the last time was 58 minutes ago" in done.stdout
    assert not root.mark.exists()
    root.hours_pass(0.03)
    root.run()
    assert len(root.calls) == 2


def test_a_refused_mark_does_not_put_the_hour_off(root: Root) -> None:
    root.run()
    for _ in range(4):
        root.hours_pass(0.24)
        root.run()
    assert len(root.calls) == 1
    root.hours_pass(0.05)
    root.run()
    assert len(root.calls) == 2


def test_a_restart_that_fails_is_told_and_counts(root: Root) -> None:
    root.code = 1
    done = root.run()
    assert done.returncode == 1
    assert "<3>InfluxDB does not come back" in done.stdout
    assert not root.mark.exists()
    root.run()
    assert len(root.calls) == 1


@pytest.mark.parametrize("rubbish", ["", "rubbish\n", "12; reboot\n", "-5\n"])
def test_a_stamp_that_says_nothing_is_no_obstacle(root: Root, rubbish: str) -> None:
    root.stamp.write_text(rubbish)
    assert root.run().returncode == 0
    assert len(root.calls) == 1


def test_what_the_mark_is_made_of_does_not_matter(root: Root, tmp_path: Path) -> None:
    """The collector's user writes there: no link is followed, and nothing of it is read."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    makers: list[Callable[[], Any]] = [
        lambda: root.mark.symlink_to(victim),
        lambda: root.mark.symlink_to(victim / "file"),
        lambda: (root.mark.mkdir(), (root.mark / "link").symlink_to(victim)),
        lambda: os.mkfifo(root.mark),
    ]
    for make in makers:
        make()
        done = root.run()
        assert done.returncode == 0
        assert "precious" not in done.stdout
        assert not root.mark.is_symlink()
        assert not root.mark.exists()
    assert (victim / "file").read_text() == "precious"


def role_vars() -> dict[str, Any]:
    return {
        **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
        **yaml.safe_load((ROLE / "vars/main.yml").read_text()),
    }


def test_both_sides_mean_the_same_mark() -> None:
    unit = (ROLES / "collector/templates/power.service.j2").read_text()
    (directory,) = [line.split("=")[1] for line in unit.splitlines() if line.startswith("RuntimeDirectory=")]
    mark = Path(role_vars()["__influxdb_restart_mark"])
    assert mark == Path("/run", directory, stuck_database.NAME)
    assert mark.name != latest.NAME


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["dirname"] = lambda path: str(Path(path).parent)
    script = tmp_path / "script"
    shutil.copy(SCRIPT, script)
    script.chmod(0o755)
    variables = {**role_vars(), "__influxdb_restart_script": str(script)}
    units = []
    for template in sorted((ROLE / "templates").glob("influxdb-restart.*.j2")):
        unit = tmp_path / template.stem
        unit.write_text(environment.from_string(template.read_text()).render(variables))
        units.append(unit)
    assert [unit.name for unit in units] == ["influxdb-restart.path", "influxdb-restart.service"]
    assert complaints(units) == []
    assert exposure(units[1]) < 3
