"""power.service under the Pi's real systemd: what it restarts, what it leaves alone, what a power cut costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.rehearsal import pi, report
from tests.rehearsal.disturb import newest_time, room_control, virtual_pi, wait_for

CONFIG = "/etc/power-collector/config.toml"


def property_of(unit: str, name: str) -> str:
    return pi.sudo(f"systemctl show -p {name} --value {unit}").strip()


def main_pid() -> int:
    return int(property_of("power", "MainPID"))


def journal_since(moment: int, unit: str = "power") -> str:
    return pi.sudo(f"journalctl --no-pager -o cat -u {unit} --since @{moment}")


def different(value: Callable[[], object], before: object) -> Callable[[], bool]:
    return lambda: value() != before


def test_a_hung_loop_is_restarted_by_the_watchdog() -> None:
    moment, before = int(time.time()), main_pid()
    watchdog_s = int(property_of("power", "WatchdogUSec").removesuffix("min").removesuffix("s"))
    assert watchdog_s in (1, 60)
    pi.sudo(f"kill -STOP {before}")
    # A minute, the abort of a stopped process, RestartSec.
    wait_for("another process", lambda: main_pid() not in (0, before), 180)
    assert "atchdog" in journal_since(moment)
    wait_for("points again", lambda: newest_time() > time.time() - 20, 60)


def test_a_bad_configuration_is_not_restarted_for_ever() -> None:
    moment = int(time.time())
    pi.sudo(
        f"cp -a {CONFIG} /root/config.toml; sed -i 's/interval_s = 15/interval_s = 0/' {CONFIG}; systemctl restart power",
        check=False,
    )
    try:
        assert property_of("power", "ActiveState") == "failed"
        assert property_of("power", "ExecMainStatus") == "2"
        assert property_of("power", "NRestarts") == "0"
        assert re.search(r"config\.toml: interval_s: ", journal_since(moment))
    finally:
        pi.sudo(f"mv /root/config.toml {CONFIG}; systemctl restart power")
    assert property_of("power", "ActiveState") == "active"


def test_a_killed_collector_comes_back() -> None:
    before = main_pid()
    pi.sudo(f"kill -KILL {before}")
    # Until it says that it is ready: one that is still starting has no orderly end.
    wait_for(
        "another process",
        lambda: main_pid() not in (0, before) and property_of("power", "ActiveState") == "active",
        30,
    )


def test_a_stop_is_clean_and_quick() -> None:
    moment = int(time.time())
    pi.sudo("systemctl stop power")
    assert time.time() - moment < 12
    assert property_of("power", "Result") == "success"
    assert property_of("power", "ExecMainStatus") == "0"
    pi.sudo("systemctl start power")


def test_a_stuck_database_is_restarted_at_the_collectors_mark_once_an_hour() -> None:
    before, moment = property_of("influxdb", "InvocationID"), int(time.time())
    mark = "sudo -u power-collector sh -c 'echo test > /run/power-collector/restart-influxdb'"
    pi.sudo(mark)
    wait_for("a restarted database", different(lambda: property_of("influxdb", "InvocationID"), before), 30)
    wait_for("its end", lambda: "InfluxDB runs again" in journal_since(moment, "influxdb-restart"), 30)
    restarted = property_of("influxdb", "InvocationID")
    pi.sudo(mark)
    wait_for("the refusal", lambda: "is not restarted" in journal_since(moment, "influxdb-restart"), 30)
    assert property_of("influxdb", "InvocationID") == restarted
    assert property_of("influxdb-restart.path", "ActiveState") == "active"
    pi.sudo("rm /run/influxdb-restart/uptime; test ! -e /run/power-collector/restart-influxdb")


def root_answers(command: str, answer: str) -> None:
    """What the command prints is left as the collector leaves the time, all at once; root's unit answers in these words."""
    moment, mark = int(time.time()), "/run/power-collector/set-clock"
    pi.sudo(f"sudo -u power-collector sh -c '{command} > {mark}.by-hand && mv {mark}.by-hand {mark}'")
    wait_for(answer, lambda: re.search(answer, journal_since(moment, "power-clock")), 30)
    wait_for("its end", lambda: property_of("power-clock", "ActiveState") in ("inactive", "failed"), 30)
    assert pi.sudo(f"ls {mark}", check=False) == ""


def test_root_takes_the_collectors_word_on_the_time_and_a_container_sets_no_clock() -> None:
    # The host's own time: not even a container that may set its clock would change it.
    root_answers(
        "date +%s",
        r"The clock could not be set to 2\d{3}-.* UTC: date: cannot set date: Operation not permitted"
        r"|The clock is not set: a time server keeps it",
    )
    # Last, so that the unit does not stay failed.
    root_answers("echo reboot", "The clock is not set: what the collector left is no time")
    assert property_of("power-clock", "Result") == "success"
    assert property_of("power-clock.path", "ActiveState") == "active"


def latest() -> Any:
    """The collector's last cycle."""
    return json.loads(pi.sudo("cat /run/power-collector/latest.json"))


@pytest.fixture(scope="module")
def storm() -> SimpleNamespace:
    """Two minutes with dead devices and without a database, then a power cut, then all is there again; what was seen."""
    seen = SimpleNamespace(before=property_of("power", "InvocationID"))
    pi.sudo("systemctl stop influxdb")
    seen.away = int(time.time())
    room_control({"*": {"fault": "silent"}})
    try:
        # Longer than the watchdog's minute, and than a commit and the minute after it.
        wait_for("two minutes without anything", lambda: time.time() > seen.away + 115, 125)
        seen.after, seen.latest = property_of("power", "InvocationID"), latest()
        seen.cut = int(time.time())
        virtual_pi("power-cut")
    finally:
        room_control({})
    return seen


def test_dead_devices_are_not_a_hung_loop(storm: SimpleNamespace) -> None:
    """Longer than the watchdog's minute: the cycles go on, and so does the service."""
    assert storm.after == storm.before
    assert not any(device["up"] for device in storm.latest["devices"])
    assert storm.latest["time"] > storm.cut - 40


def test_a_power_cut_costs_a_minute_at_most_while_the_database_is_away(storm: SimpleNamespace) -> None:
    away, cut = storm.away, storm.cut
    wait_for(
        "the database", lambda: pi.sudo("systemctl is-active influxdb", check=False).strip() == "active", 60
    )
    wait_for("a fresh point", lambda: newest_time() > cut, 60)

    def stored() -> list[int]:
        found = pi.influxql(f"SELECT points FROM collector_status WHERE time >= {away}s AND time <= {cut}s")
        return [value[0] for value in found[0]["values"]] if found else []

    # Every cycle but those of the last minute before the cut, and the one that the stop of the database met.
    expected = [at for at in range(away - away % 15 + 15, cut - 60) if at % 15 == 0]
    assert len(expected) >= 3
    wait_for("what was stored", lambda: set(expected) <= set(stored()), 60)
    assert latest()["counters"]["dropped_points"] == 0


def test_the_devices_are_read_again(storm: SimpleNamespace) -> None:
    wait_for("values of all devices", lambda: not report.missing_devices(report.values()), 90)
