"""What root does about the collector's word on the time: the script, and the units.

The script never meets a real `date` that it could set a clock with: its PATH holds one that takes notes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from power_collector import RELEASED, clock_mark, latest, time_source

from .units import complaints, exposure

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE = ROLES / "collector"
SCRIPT = ROLE / "files/power-clock.sh"
GOOD = 1_893_456_000
SAYS = "2030-01-01 00:00:00 UTC"
RELEASE = int(datetime(RELEASED.year, RELEASED.month, RELEASED.day, tzinfo=UTC).timestamp())
TEN_YEARS_S = int(10 * 365.25 * 86400)

# What sets is noted and never passed on; of the rest only what the script is known to ask.
DATE = """#!/bin/sh
case "$*" in
*set*) echo "$*" >>{calls}; [ {code} = 0 ] || echo "date: cannot set date: Operation not permitted" >&2; exit {code} ;;
+%s | '--utc --date='*' +%s' | '--utc --date='*' +%F %T UTC') exec {date} "$@" ;;
*) echo "asked for: $*" >>{calls}; exit 99 ;;
esac
"""
TIMEDATECTL = """#!/bin/sh
[ "$*" = "show --property NTPSynchronized --value" ] || exit 99
echo {synchronised}
exit {code}
"""


class Root:
    """Runs the script; the kernel says `synchronised`, and setting the clock exits with `code`."""

    def __init__(self, directory: Path) -> None:
        self.mark = directory / "set-clock"
        self._calls = directory / "calls"
        self._bin = directory / "bin"
        self._bin.mkdir()
        for tool in ("dd", "rm", "stat"):
            (self._bin / tool).symlink_to(str(shutil.which(tool)))
        self.code = 0
        self.synchronised = "no"
        self.timedatectl_code = 0

    def run(self) -> subprocess.CompletedProcess[str]:
        assert "/date" not in SCRIPT.read_text(), "by its path it would be the real one"
        date = DATE.format(calls=self._calls, code=self.code, date=shutil.which("date"))
        asked = TIMEDATECTL.format(synchronised=self.synchronised, code=self.timedatectl_code)
        for name, text in (("date", date), ("timedatectl", asked)):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
        return subprocess.run(
            ["/bin/sh", SCRIPT, self.mark, RELEASED.isoformat()],
            env={"PATH": str(self._bin)},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    def left(self, text: str | int = f"{GOOD}\n", *, age_s: float = 0) -> subprocess.CompletedProcess[str]:
        """Run it on a mark that was left so long ago."""
        self.mark.write_text(str(text))
        os.utime(self.mark, (time.time() - age_s,) * 2)
        return self.run()

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def refused(root: Root, done: subprocess.CompletedProcess[str]) -> bool:
    said = done.stdout.startswith("<4>The clock is not set: ") and done.stdout.count("\n") == 1
    return (done.returncode, done.stderr, root.calls, root.mark.exists()) == (0, "", [], False) and said


def test_the_clock_is_set_and_the_mark_is_gone(root: Root) -> None:
    before = datetime.now(UTC)
    done = root.left()
    assert (done.returncode, done.stderr) == (0, "")
    assert root.calls == [f"--utc --set=@{GOOD}"]
    assert not root.mark.exists()
    said = done.stdout
    assert said.startswith("<5>The clock was set from ")
    assert said.endswith(f" to {SAYS}, by the MATE3s's clock: the collector asked for it\n")
    was = datetime.strptime(said.split(" from ")[1][:23], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert abs((was - before).total_seconds()) < 10


@pytest.mark.parametrize(
    "text",
    [
        *("now", "+1893456000", "-189345600", "0x70dbd880", "1893456000.5", "18934560e2", "189345600"),
        *("18934560000", "@1893456000", "$(reboot)", "`reboot`", "1893456000; reboot", "*", ""),
        *(" 1893456000", "1893456000 ", "1893456000\n1", "1\n893456000"),
        pytest.param("9" * 1_000_000, id="endless"),
    ],
)
def test_what_is_no_plain_number_of_ten_digits_is_refused(root: Root, text: str) -> None:
    done = root.left(f"{text}\n")
    assert refused(root, done), (done, root.calls)
    assert "no time" in done.stdout


def test_it_believes_no_time_before_the_release_or_ten_years_after_it(root: Root) -> None:
    for says in (RELEASE - 1, RELEASE + TEN_YEARS_S + 1, 1_000_000_000, 9_999_999_999):
        done = root.left(f"{says}\n")
        assert refused(root, done), (done, root.calls)
        assert "lies before the collector's release or ten years after it" in done.stdout
    for says in (RELEASE, RELEASE + TEN_YEARS_S):
        assert root.left(f"{says}\n").returncode == 0
    assert root.calls == [f"--utc --set=@{says}" for says in (RELEASE, RELEASE + TEN_YEARS_S)]


def test_a_time_server_is_not_contradicted(root: Root) -> None:
    root.synchronised = "yes"
    done = root.left()
    assert refused(root, done), (done, root.calls)
    assert "a time server keeps it" in done.stdout


def test_whoever_cannot_say_that_it_is_synchronised_is_not(root: Root) -> None:
    root.synchronised, root.timedatectl_code = "", 1
    assert root.left().returncode == 0
    assert root.calls == [f"--utc --set=@{GOOD}"]


@pytest.mark.parametrize("age_s", [65, 36_000, -36_000])
def test_a_mark_that_is_not_of_this_minute_is_refused(root: Root, age_s: float) -> None:
    """It lay there while nobody looked, or the clock was set in between."""
    done = root.left(age_s=age_s)
    assert refused(root, done), (done, root.calls)
    assert "older than a minute" in done.stdout


def test_a_mark_may_wait_for_a_busy_machine(root: Root) -> None:
    root.left(age_s=50)
    assert root.calls == [f"--utc --set=@{GOOD}"]


def test_a_clock_that_cannot_be_set_is_told(root: Root) -> None:
    root.code = 1
    done = root.left()
    assert (done.returncode, done.stderr) == (1, "")
    why = "date: cannot set date: Operation not permitted"
    assert done.stdout == f"<3>The clock could not be set to {SAYS}: {why}\n"
    assert not root.mark.exists()


def test_what_the_mark_is_made_of_does_not_matter(root: Root, tmp_path: Path) -> None:
    """The collector's user writes there: no link is followed, and nobody is waited for."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text(f"{GOOD}\n")
    makers: list[Callable[[], Any]] = [
        lambda: root.mark.symlink_to(victim),
        lambda: root.mark.symlink_to(victim / "file"),
        lambda: root.mark.symlink_to("/dev/zero"),
        lambda: root.mark.symlink_to(root.mark),
        lambda: (root.mark.mkdir(), (root.mark / "link").symlink_to(victim)),
        lambda: os.mkfifo(root.mark),
        lambda: (root.mark.touch(), os.truncate(root.mark, 10**11)),
        lambda: None,
    ]
    for make in makers:
        make()
        done = root.run()
        assert refused(root, done), (done, root.calls)
        assert not root.mark.is_symlink()
    assert (victim / "file").read_text() == f"{GOOD}\n"


def role_vars() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    return found


def test_both_sides_mean_the_same_mark_and_the_same_times() -> None:
    unit = (ROLE / "templates/power.service.j2").read_text()
    (directory,) = [line.split("=")[1] for line in unit.splitlines() if line.startswith("RuntimeDirectory=")]
    mark = Path(role_vars()["__collector_clock_mark"])
    assert mark == Path("/run", directory, clock_mark.NAME)
    assert mark.name != latest.NAME
    assert (time_source._EARLIEST, time_source._LATEST) == (RELEASE, RELEASE + TEN_YEARS_S)


def test_the_role_knows_the_day_of_the_release() -> None:
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--inventory=localhost,",
        "--connection=local",
        "--one-line",
    ]
    argv += ["--module-name=ansible.builtin.debug", "--args=var=__collector_released"]
    argv += [f"--extra-vars=@{ROLE}/vars/main.yml", f"--extra-vars=role_path={ROLE}"]
    told = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert f'"__collector_released": "{RELEASED.isoformat()}"' in told.stdout, told


def rendered(directory: Path) -> list[Path]:
    """The units with the script where it can be found."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["dirname"] = lambda path: str(Path(path).parent)
    script = directory / "script"
    shutil.copy(SCRIPT, script)
    script.chmod(0o755)
    here = {"__collector_clock_script": str(script), "__collector_released": RELEASED.isoformat()}
    units = []
    for template in sorted((ROLE / "templates").glob("power-clock.*.j2")):
        unit = directory / template.stem
        unit.write_text(environment.from_string(template.read_text()).render({**role_vars(), **here}))
        units.append(unit)
    return units


def test_the_unit_has_the_right_and_names_mark_and_release(tmp_path: Path) -> None:
    path, service = rendered(tmp_path)
    assert [str(unit) for unit in role_vars()["__collector_clock_units"]] == [
        f"/etc/systemd/system/{unit.name}" for unit in (path, service)
    ]
    lines = service.read_text().splitlines()
    # The mark lies in another user's folder.
    assert "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SYS_TIME" in lines
    assert "SystemCallFilter=@system-service @clock" in lines
    assert not any(line.startswith("ProtectClock=") for line in lines)
    assert f"ExecStart={tmp_path}/script /run/power-collector/set-clock {RELEASED.isoformat()}" in lines
    assert "PathExists=/run/power-collector/set-clock" in path.read_text().splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    units = rendered(tmp_path)
    assert [unit.name for unit in units] == ["power-clock.path", "power-clock.service"]
    assert complaints(units) == []
    assert exposure(units[1]) < 3
