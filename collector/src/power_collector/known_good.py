"""The last known good time, in one small file: what a wrong clock is told by after the next start."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from power_collector import small_file
from power_collector.contract import ClockSource

NAME = "known-good-time.json"
"""In the state directory."""
EVERY_S = 3600
"""How often it is written at most: the card wears."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownGood:
    """A trusted time: `time` in seconds since 1970 was `moment` in seconds since the boot `boot_id`."""

    time: float
    source: ClockSource
    boot_id: str
    moment: float


class KnownGoodFile:
    """Reads it once, and keeps it up to date; a fault of the disk raises nothing and is said once."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._told = False
        self.last = self._read()
        """The newest, None where there is none that can be read."""

    def keep(self, known: KnownGood) -> None:
        """Write it, unless that was done within the last hour."""
        if self.last is not None and 0 <= known.time - self.last.time < EVERY_S:
            return
        # A disk that fails is tried again in an hour, too.
        self.last = known
        try:
            small_file.replace(self._path, json.dumps(asdict(known)))
        except OSError as error:
            logger.log(
                logging.DEBUG if self._told else logging.WARNING, "%s cannot be written: %s", NAME, error
            )
            self._told = True

    def _read(self) -> KnownGood | None:
        try:
            table = json.loads(self._path.read_text(encoding="utf-8"))
            return KnownGood(
                float(table["time"]),
                ClockSource(table["source"]),
                str(table["boot_id"]),
                float(table["moment"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            # A power cut can leave it empty. Without it, only the package's age bounds the time.
            logger.warning("%s cannot be used (%s: %s)", self._path, type(error).__name__, error)
            return None
