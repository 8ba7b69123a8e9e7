"""The monitor itself, by psutil and by kernel files below a root of the test's own."""

from __future__ import annotations

import os
import select
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from power_collector.config import HostConfig
from power_collector.host import Host

TIME = 1_764_000_000


@pytest.fixture
def kernel(tmp_path: Path):
    """Write the kernel's files below a root; return it."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def fields(root: Path, *, trusted: bool = True, **config) -> dict[str, int | float]:
    point = Host(HostConfig(**config), root).look(12345.0, TIME, trusted=trusted)
    assert point is not None
    assert (point.measurement, point.time, dict(point.tags)) == ("host", TIME, {})
    return dict(point.fields)


def test_a_machine_without_a_pis_files_says_what_every_machine_can(tmp_path: Path) -> None:
    found = fields(tmp_path, disk=tmp_path)
    usage, memory = psutil.disk_usage(str(tmp_path)), psutil.virtual_memory()
    assert set(found) == {
        "cpu_percent",
        "memory_available_mb",
        "memory_total_mb",
        "disk_free_gb",
        "disk_total_gb",
        "uptime_s",
        "load_1m",
        "backups",
    }
    assert found["memory_total_mb"] == memory.total / 1e6
    assert found["disk_total_gb"] == usage.total / 1e9
    assert 0 < found["disk_free_gb"] <= found["disk_total_gb"]
    assert 0 < found["memory_available_mb"] <= found["memory_total_mb"]
    assert found["uptime_s"] == 12345.0


def test_a_pi_tells_temperature_supply_and_what_its_card_took(kernel) -> None:
    root = kernel(
        {
            "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "90000\n",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "48312\n",
            "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
            "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/block/mmcblk0/stat": "1 2 3 4 5 6 20000 8 9 10 11\n",
            "sys/block/sda/stat": "1 2 3 4 5 6 1000 8 9 10 11\n",
            "sys/block/zram0/stat": "1 2 3 4 5 6 999999 8 9 10 11\n",
            "sys/block/loop0/stat": "1 2 3 4 5 6 999999 8 9 10 11\n",
        }
    )
    found = fields(root)
    assert found["cpu_temperature_c"] == 48.312
    assert found["undervoltage"] == 1
    assert found["throttled"] == 0x50000
    assert found["disk_written_mb"] == pytest.approx(21000 * 512 / 1e6)


class Changes:
    """The kernel's word that a file has changed, which it gives of its own files only."""

    def __init__(self) -> None:
        self.files: list[int] = []
        self.waiting: list[tuple[int, int]] = []

    def register(self, file: int, events: int) -> None:
        assert events & select.POLLPRI
        self.files.append(file)

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        assert milliseconds == 0
        found, self.waiting = self.waiting, []
        return found

    def dip(self) -> None:
        self.waiting = [(self.files[0], select.POLLPRI | select.POLLERR)]


def test_a_dip_between_two_looks_is_told_once(kernel, monkeypatch) -> None:
    changes = Changes()
    monkeypatch.setattr(select, "poll", lambda: changes)
    root = kernel(
        {
            "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
        }
    )
    host = Host(HostConfig(), root)
    seen = []
    for minute, dips in enumerate([False, False, True, False]):
        if dips:
            changes.dip()
        point = host.look(1000.0 + 60 * minute, TIME + 60 * minute, trusted=True)
        assert point is not None
        seen.append(point.fields["undervoltage"])
    assert seen == [0, 0, 1, 0]


def test_the_sensors_value_is_read_anew_each_time(kernel) -> None:
    name = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
    host = Host(HostConfig(), kernel({"sys/class/hwmon/hwmon1/name": "rpi_volt\n", name: "0\n"}))
    seen = []
    for minute, text in enumerate(["0\n", "1\n", "0\n"]):
        kernel({name: text})
        point = host.look(1000.0 + 60 * minute, TIME + 60 * minute, trusted=True)
        assert point is not None
        seen.append(point.fields["undervoltage"])
    assert seen == [0, 1, 0]


@pytest.mark.parametrize(("bits", "undervoltage"), [("0", 0), ("50005", 1), ("50000", 0)])
def test_without_its_sensor_the_firmware_tells_of_the_supply(kernel, bits: str, undervoltage: int) -> None:
    found = fields(kernel({"sys/devices/platform/soc/soc:firmware/get_throttled": f"{bits}\n"}))
    assert (found["undervoltage"], found["throttled"]) == (undervoltage, int(bits, 16))


def test_files_that_hold_no_number_are_no_value(kernel) -> None:
    root = kernel(
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "",
            "sys/class/hwmon/hwmon1/name": "rpi_volt",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "?",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "no",
            "sys/block/mmcblk0/stat": "",
        }
    )
    assert not {"cpu_temperature_c", "undervoltage", "throttled", "disk_written_mb"} & set(fields(root))


def test_the_age_of_the_last_backup(tmp_path: Path) -> None:
    mark = tmp_path / "last_backup"
    none = fields(tmp_path, last_backup=mark)
    assert (none["backups"], "backup_age_h" in none) == (0, False)
    mark.write_text(datetime.fromtimestamp(TIME - 5400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") + "\n")
    made = fields(tmp_path, last_backup=mark)
    assert (made["backups"], made["backup_age_h"]) == (1, 1.5)
    unknown = fields(tmp_path, last_backup=mark, trusted=False)
    assert (unknown["backups"], "backup_age_h" in unknown) == (1, False)
    mark.write_text("2026-01-01T00:00:00")
    assert fields(tmp_path, last_backup=mark)["backups"] == 0, "a time without a zone is none"


def test_a_backup_that_comes_is_seen(tmp_path: Path) -> None:
    mark = tmp_path / "last_backup"
    host = Host(HostConfig(last_backup=mark), tmp_path)
    for hours in (30, 2):
        mark.write_text(datetime.fromtimestamp(TIME - hours * 3600, UTC).isoformat())
        os.utime(mark, (TIME - hours, TIME - hours))
        point = host.look(1000.0 - hours * 60, TIME, trusted=True)
        assert point is not None
        assert point.fields["backup_age_h"] == hours


def test_it_looks_once_a_minute(tmp_path: Path) -> None:
    host = Host(HostConfig(), tmp_path)
    seen = [
        host.look(1000.0 + second, TIME + second, trusted=True) is not None for second in range(0, 130, 15)
    ]
    assert [second * 15 for second, was in enumerate(seen) if was] == [0, 60, 120]


def test_a_disk_that_is_not_there_is_no_value(tmp_path: Path) -> None:
    assert "disk_total_gb" not in fields(tmp_path, disk=tmp_path / "nowhere")


def test_a_kernel_that_tells_nothing_costs_no_reading_and_is_told_once(tmp_path, caplog, monkeypatch) -> None:
    host = Host(HostConfig(), tmp_path)
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: (_ for _ in ()).throw(PermissionError("/proc/meminfo"))
    )
    assert host.look(1000.0, TIME, trusted=True) is None
    assert host.look(2000.0, TIME, trusted=True) is None
    assert [record.getMessage() for record in caplog.records] == [
        "the monitor itself cannot be looked at: PermissionError: /proc/meminfo"
    ]


def test_this_machine_itself_can_be_read() -> None:
    assert fields(Path("/"))["memory_total_mb"] > 100
