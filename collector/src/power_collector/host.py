"""The monitor itself: processor, memory, disk, power supply and the last backup, once a minute."""

from __future__ import annotations

import logging
import math
import os
import select
from datetime import datetime
from pathlib import Path

import psutil

from power_collector.config import HostConfig
from power_collector.contract import Point, point

EVERY_S = 60
_PROCESSOR_ZONES = ("cpu-thermal", "cpu_thermal", "soc_thermal", "x86_pkg_temp")
_SECTOR = 512
_NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr")
"""What is written to these goes to memory, or to a disk that is counted itself."""
_UNDERVOLTAGE = 0x1
_MB, _GB = 1e6, 1e9

logger = logging.getLogger(__name__)


class Host:
    """Looks at psutil, and at the kernel's files below `root`, which tests give their own of.

    A value that this machine does not have is absent.
    """

    def __init__(self, config: HostConfig, root: Path = Path("/")) -> None:
        self._config = config
        self._root = root
        self._due: float = -math.inf
        self._told = False
        self._backup: tuple[int, float | None] | None = None
        self._supply = _VoltageSensor(root)
        psutil.cpu_percent()  # the next call says what was used since this one

    def look(self, moment: float, time: int, *, trusted: bool) -> Point | None:
        """Return the point with `time` (seconds since 1970), None until a minute has gone by.

        `moment` is in seconds since the boot; `trusted`: whether `time` may be compared with the backup's.
        """
        if moment < self._due:
            return None
        self._due = moment + EVERY_S
        try:
            values = self._values(moment)
        except (psutil.Error, OSError, ValueError, RuntimeError) as error:
            # The readings must not suffer for it.
            logger.log(
                logging.DEBUG if self._told else logging.WARNING,
                "the monitor itself cannot be looked at: %s: %s",
                type(error).__name__,
                error,
            )
            self._told = True
            return None
        backup = self._backup_time()
        values["backups"] = int(backup is not None)
        if backup is not None and trusted:
            values["backup_age_h"] = max(time - backup, 0.0) / 3600
        return point("host", {}, values, time)

    def _values(self, moment: float) -> dict[str, float | None]:
        memory = psutil.virtual_memory()
        throttled = self._throttled()
        return {
            "cpu_temperature_c": self._cpu_temperature(),
            "cpu_percent": psutil.cpu_percent(),
            "memory_available_mb": memory.available / _MB,
            "memory_total_mb": memory.total / _MB,
            "disk_written_mb": self._written(),
            "uptime_s": moment,
            "load_1m": psutil.getloadavg()[0],
            "undervoltage": self._undervoltage(throttled),
            "throttled": throttled,
            **self._disk(),
        }

    def _disk(self) -> dict[str, float]:
        try:
            usage = psutil.disk_usage(str(self._config.disk))
        except OSError:
            return {}
        return {"disk_free_gb": usage.free / _GB, "disk_total_gb": usage.total / _GB}

    def _cpu_temperature(self) -> float | None:
        for kind in sorted(self._root.glob("sys/class/thermal/thermal_zone*/type")):
            if _text(kind) in _PROCESSOR_ZONES:
                millidegrees = _number(_text(kind.with_name("temp")))
                return None if millidegrees is None else millidegrees / 1000
        return None

    def _written(self) -> float | None:
        sectors = [
            _number(_text(disk / "stat").split()[6:7])
            for disk in self._root.glob("sys/block/*")
            if not disk.name.startswith(_NO_DISKS)
        ]
        known = [count for count in sectors if count is not None]
        return sum(known) * _SECTOR / _MB if known else None

    def _throttled(self) -> int | None:
        """Return the firmware's bits, of a Raspberry Pi alone."""
        for path in self._root.glob("sys/devices/platform/soc*/*firmware/get_throttled"):
            return _number(_text(path), 16)
        return None

    def _undervoltage(self, throttled: int | None) -> int | None:
        """Return what the Pi's sensor says since the last look, or the firmware of this moment."""
        low = self._supply.was_low()
        if low is not None:
            return int(low)
        return None if throttled is None else throttled & _UNDERVOLTAGE

    def _backup_time(self) -> float | None:
        path = self._config.last_backup
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if self._backup is None or self._backup[0] != changed:
            self._backup = (changed, _moment(_text(path)))
        return self._backup[1]


class _VoltageSensor:
    """The Pi's own sensor, Linux's driver raspberrypi-hwmon.

    It looks every two seconds and says what was seen in them: a short dip is over before the next minute's
    look. But the kernel marks the file as changed until it is read again, for whoever holds it open.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file: int | None = None
        self._changes = select.poll()

    def was_low(self) -> bool | None:
        """Return whether the voltage was too low since the last call; None where there is no sensor."""
        changed = False
        if self._file is None:
            self._open()
        elif self._changes.poll(0):
            changed = True
        if self._file is None:
            return None
        alarm = _number(os.pread(self._file, 16, 0).decode())
        return None if alarm is None else alarm > 0 or changed

    def _open(self) -> None:
        for name in self._root.glob("sys/class/hwmon/hwmon*/name"):
            if _text(name) == "rpi_volt":
                self._file = os.open(name.with_name("in0_lcrit_alarm"), os.O_RDONLY | os.O_CLOEXEC)
                self._changes.register(self._file, select.POLLPRI | select.POLLERR)
                return


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _number(text: str | list[str], base: int = 10) -> int | None:
    try:
        return int(text if isinstance(text, str) else text[0], base)
    except (ValueError, IndexError):
        return None


def _moment(text: str) -> float | None:
    """Return an ISO time with its zone in seconds since 1970."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if at.tzinfo is None else at.timestamp()
