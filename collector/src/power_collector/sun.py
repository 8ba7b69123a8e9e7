"""The sun's height over the site: when it is night, and when the chargers have to work."""

from __future__ import annotations

from datetime import UTC, datetime

from astral import Observer
from astral.sun import elevation

from power_collector.config import SiteConfig

SUNSET_DEG = -0.833
"""Height of the sun's centre when its upper rim touches the horizon, the air's refraction included."""
WORKING_DEG = 5.0
"""From this height on an array gives power worth speaking of."""


class Sun:
    """Times are seconds since 1970; the height is worked out once a minute."""

    def __init__(self, site: SiteConfig) -> None:
        self._observer = Observer(site.latitude, site.longitude)
        self._minute: int | None = None
        self._height = 0.0
        self._rises = False

    def height(self, time: float) -> float:
        """Return the sun's height at the begin of the minute, in degrees above the horizon (-90..90)."""
        self._look(time)
        return self._height

    def works(self, time: float) -> bool:
        """Return whether the sun is high enough for chargers to give power."""
        return self.height(time) >= WORKING_DEG

    def is_night(self, time: float) -> bool:
        """Return whether it is after sunset, and the sun is not yet high enough in the morning.

        A battery is at its lowest after sunrise, shortly before the chargers take over.
        """
        height = self.height(time)
        return height < SUNSET_DEG or (height < WORKING_DEG and self._rises)

    def _look(self, time: float) -> None:
        minute = int(time // 60)
        if minute == self._minute:
            return
        self._minute = minute
        self._height, later = (self._elevation(60 * (minute + after)) for after in (0, 1))
        self._rises = later > self._height

    def _elevation(self, time: int) -> float:
        return elevation(self._observer, datetime.fromtimestamp(time, UTC), with_refraction=False)
