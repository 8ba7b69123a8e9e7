"""What place and time of day add to the readings: sun, night, the day's energy; kept over a restart."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from power_collector import small_file
from power_collector.config import SiteConfig
from power_collector.contract import Point
from power_collector.daily_energy import DailyEnergy
from power_collector.night import Night
from power_collector.points import Poll, Surroundings, totals
from power_collector.sun import Sun

NAME = "day.json"
"""In the state directory: the day and the night so far."""
EVERY_S = 3600
"""How often it is written at most, but at an orderly stop: the card wears."""

logger = logging.getLogger(__name__)


class Site:
    """The site, cycle after cycle. A fault of the disk raises nothing and is said once."""

    def __init__(self, config: SiteConfig, directory: Path) -> None:
        """Go on with what an earlier run left in the state directory."""
        self._path = directory / NAME
        self._sun = Sun(config)
        self._night = Night()
        self._energy = DailyEnergy(ZoneInfo(config.timezone))
        self._time: int | None = None
        self._written: float | None = None
        self._told = False
        self._restore()

    def look(self, polls: Sequence[Poll], time: int) -> tuple[Surroundings, list[Point]]:
        """Take a cycle's polls; return what surrounds them, and the days' points that are due.

        `time` is in seconds since 1970, by a clock that somebody vouches for: by another, a day that is
        right already could be written over.
        """
        room = totals(polls)
        self._night.look(time, room.get("battery_voltage"), night=self._sun.is_night(time))
        points = self._energy.look(polls, time, room.get("battery_power_kw"))
        self._time = time
        if self._written is None or not 0 <= time - self._written < EVERY_S:
            self.save()
        further = {**self._energy.today(polls), "battery_voltage_night_min": self._night.lowest}
        return Surroundings(self._sun.works(time), further), points

    def save(self) -> None:
        """Write the state, where there is one."""
        if self._time is None:
            return
        # A disk that fails is tried again in an hour, too.
        self._written = self._time
        table = {"time": self._time, "night": self._night.state(), "energy": self._energy.state()}
        try:
            small_file.replace(self._path, json.dumps(table, separators=(",", ":")))
        except OSError as error:
            logger.log(
                logging.DEBUG if self._told else logging.WARNING, "%s cannot be written: %s", NAME, error
            )
            self._told = True

    def _restore(self) -> None:
        try:
            table = json.loads(self._path.read_text(encoding="utf-8"))
            written = float(table["time"])
            self._night.restore(table["night"])
            self._energy.restore(table["energy"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # What no counter of a device tells is then counted from now on.
            logger.warning("%s cannot be used (%s: %s)", self._path, type(error).__name__, error)
        else:
            self._written = written
