"""A database that goes on answering 5xx after a full disk: leaves a mark, for root to restart it.

An InfluxDB that met a full disk gives up the shards that it could not open: it answers 500 although there is
room again and `/health` passes, until it is restarted (seen with 2.9.1). The collector may not restart
anything. It leaves a file in its runtime directory, and a unit of root's that watches for it does the rest.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from power_collector.bounded import BoundedCalls
from power_collector.clock import Clock
from power_collector.influx import TIMEOUT_S, Answer
from power_collector.writer import Client

NAME = "restart-influxdb"
"""The mark in the runtime directory; the role influxdb watches for it."""
STUCK_AFTER_S = 600
"""For how long every answer has to be a 5xx."""
ROOM = 0.05
"""The part of the database's disk that has to be free: a restart on a full disk mends nothing."""
CHECK_S = 60
"""How often it is looked at."""
DATA_DIRECTORY = Path("/var/lib/influxdb")
"""Where a database on this machine keeps its data; only its disk is looked at."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """5xx answers without another one between them; times by the monotonic clock."""

    first: float
    last: float
    answer: Answer


class StuckDatabase:
    """Hears each answer, and judges the row of them once a minute."""

    def __init__(self, url: str, directory: Path, clock: Clock, *, data: Path = DATA_DIRECTORY) -> None:
        """Prepare; `directory` is where the mark is left."""
        self._url = url.rstrip("/")
        self._mark = directory / NAME
        self._clock = clock
        self._data = data
        self._lock = threading.Lock()  # answers come from the writer's thread
        self._row: _Row | None = None
        self._told: str | None = None
        self._requests: BoundedCalls[bool] = BoundedCalls("health")

    def heard(self, answer: Answer) -> None:
        """Note an answer; anything but a 5xx, no answer as well, ends the row."""
        now = self._clock.monotonic()
        with self._lock:
            if answer.status is None or not 500 <= answer.status <= 599:
                self._row = None
                self._told = None
            else:
                self._row = _Row(self._row.first if self._row else now, now, answer)

    @property
    def due(self) -> bool:
        """Whether the row is long enough for a look at the database's health and disk."""
        row = self._row
        return row is not None and row.last - row.first >= STUCK_AFTER_S

    def check(self) -> None:
        """Leave the mark where it is time for that, and begin a new row; may take a request's time-out."""
        row = self._row
        if row is None or not self.due or not self._healthy():
            return
        try:
            free = free_part(self._data)
        except OSError as error:
            self._tell("its disk cannot be looked at: %s; restart it by hand", error)
            return
        if free < ROOM:
            self._tell("its disk has only %.1f %% free: make room", free * 100)
        elif self._mark.exists():
            self._tell("%s is still there: see `systemctl status influxdb-restart.path`", self._mark)
        else:
            self._leave(row, free)

    async def watch(self) -> None:
        """Check once a minute until cancelled; a fault of its own ends it, and is said."""
        try:
            while True:
                await self._clock.sleep(CHECK_S)
                if self.due:
                    await asyncio.to_thread(self.check)
        except Exception:
            logger.exception("InfluxDB is no longer watched: if it is stuck, restart it by hand")

    def _healthy(self) -> bool:
        try:
            return self._requests.run(lambda: healthy(self._url), TIMEOUT_S)
        except TimeoutError as error:
            logger.debug("no health: %s", error)
            return False

    def _leave(self, row: _Row, free: float) -> None:
        said = " ".join(row.answer.message.split())[:200]
        reason = (
            f"InfluxDB has answered {row.answer.status} for {(row.last - row.first) / 60:.0f} minutes"
            f" ({said}), but its health passes and {free:.0%} of its disk is free"
        )
        time = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        temporary = self._mark.with_name(f".{NAME}.new")
        try:
            temporary.write_text(f"{time} {reason}\n", encoding="utf-8")
            temporary.replace(self._mark)
        except OSError as error:
            self._tell("its restart cannot be asked for: %s; restart it by hand", error)
            return
        logger.warning("%s: its restart is asked for by %s", reason, self._mark)
        with self._lock:
            self._row = None

    def _tell(self, obstacle: str, *values: object) -> None:
        """Say once a row why nothing is done."""
        if obstacle != self._told:
            self._told = obstacle
            logger.warning(
                f"InfluxDB has answered 5xx for {STUCK_AFTER_S // 60} minutes, but {obstacle}", *values
            )


class Overheard:
    """A client whose answers are heard."""

    def __init__(self, client: Client, stuck: StuckDatabase) -> None:
        self._client = client
        self._stuck = stuck

    def write(self, lines: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Send the lines in one request; every outcome is an answer."""
        answer = self._client.write(lines, timeout_s=timeout_s)
        self._stuck.heard(answer)
        return answer


def on_this_machine(url: str) -> bool:
    """Return whether the url's host is this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def healthy(url: str) -> bool:
    """Return whether `/health` says pass, which it goes on saying in a database that is stuck.

    An answer that comes byte by byte may keep it for ever.
    """
    try:
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False) as http:
            response = http.request("GET", f"{url}/health", preload_content=False)
            table = json.loads(response.read(10_000))
            return response.status == 200 and isinstance(table, dict) and table.get("status") == "pass"
    except (OSError, HTTPError, ValueError, RecursionError) as error:
        logger.debug("no health: %s", error)
        return False


def free_part(directory: Path) -> float:
    """Return the part, 0..1, of the directory's disk that is free to users other than root.

    The directory itself need not be readable.

    Raises:
        OSError: it is not there.
    """
    disk = os.statvfs(directory)
    return disk.f_bavail / disk.f_blocks if disk.f_blocks else 0.0
