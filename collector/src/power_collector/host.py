"""The monitor itself: processor, memory, disk, power supply and the last backup, once a minute."""

from __future__ import annotations

import logging
import math
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
        return point(
            "host", {}, {**values, "backup_age_h": self._backup_age_h(time) if trusted else None}, time
        )

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
        """Return what the Pi's sensor says of the last two seconds, or the firmware of this moment."""
        for name in self._root.glob("sys/class/hwmon/hwmon*/name"):
            if _text(name) == "rpi_volt":
                alarm = _number(_text(name.with_name("in0_lcrit_alarm")))
                if alarm is not None:
                    return int(alarm > 0)
        return None if throttled is None else throttled & _UNDERVOLTAGE

    def _backup_age_h(self, time: int) -> float | None:
        path = self._config.last_backup
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if self._backup is None or self._backup[0] != changed:
            self._backup = (changed, _moment(_text(path)))
        at = self._backup[1]
        return None if at is None else max(time - at, 0.0) / 3600


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
