"""The battery's lowest voltage of the night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_GAP_S = 7200
"""After a longer time without a look nothing is known of the night."""


class Night:
    """The lowest since sunset; by day the last night's. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._night = False
        self._whole = False
        self._lowest: float | None = None

    @property
    def lowest(self) -> float | None:
        """Return it in V; None where the night was not watched from sunset on."""
        return self._lowest if self._whole else None

    def look(self, time: float, voltage: float | None, *, night: bool) -> None:
        """Take the battery's `voltage` (V) at a time, and whether it is `night` then."""
        if self._time is None or not abs(time - self._time) <= LONGEST_GAP_S:
            self._whole = False
        elif night and not self._night:
            self._whole, self._lowest = True, None
        self._time, self._night = time, night
        if night and self._whole and voltage is not None:
            self._lowest = voltage if self._lowest is None else min(self._lowest, voltage)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"time": self._time, "night": self._night, "lowest": self.lowest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where an earlier run was.

        Raises:
            KeyError: `state` is not what `state()` returned; nothing is changed.
            TypeError: likewise.
            ValueError: likewise.
        """
        lowest = state["lowest"]
        time, night = float(state["time"]), bool(state["night"])
        self._lowest = None if lowest is None else float(lowest)
        self._time, self._night, self._whole = time, night, lowest is not None
