"""100 times kill -9: no acknowledged point may be missing afterwards.

Acknowledged: the server has sent 204 for it, or the store's transaction with it was committed. Each commit is
told to a file in memory after it returned, by a wrapper around the store's `add`; the server keeps what it
acknowledged. In the end all must be in the server, which was away for about half of the time.

The service runs whole, on a clock that runs 100 times faster, so that each of its short lives holds commits,
writes and drains.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from power_collector import service
from power_collector.batch import Batch
from power_collector.config import load
from power_collector.store import Store

from . import site
from .promises import Promise

KILLS = 100
_SPEED = 100
_LIFE_S = (0.3, 2.2)
_SEED = 7


class _FastClock:
    """Wall and monotonic clock from `begin` on, `_SPEED` times as fast; the same in each life."""

    boot_id = "bench"

    def __init__(self, begin: float) -> None:
        self._begin = begin

    def wall(self) -> float:
        return self._begin + (time.time() - self._begin) * _SPEED

    def monotonic(self) -> float:
        return time.monotonic() * _SPEED

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / _SPEED)


def _live(config: Path, runtime: Path, committed: Path, log: Path, begin: float) -> None:
    """Be the service until killed; runs in a process of its own."""
    logging.basicConfig(filename=log, level=logging.ERROR, force=True)
    told = os.open(committed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    add = Store.add

    def add_and_tell(self: Store, batches: Sequence[Batch], *, now: float | None) -> int:
        dropped = add(self, batches, now=now)
        os.write(told, json.dumps([line for b in batches for line in b.lines()]).encode() + b"\n")
        return dropped

    Store.add = add_and_tell  # type: ignore[method-assign]
    clock = _FastClock(begin)
    asyncio.run(service.run(load(config), asyncio.Event(), clock=clock, runtime_directory=runtime))


class _Server(ThreadingHTTPServer):
    """Acknowledges every line and keeps it; while it is away, it closes connections without an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.away = False
        self.lines: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        """Take a write."""
        try:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.server.away:
                return
            self.server.lines.update(body.split("\n"))
            self.send_response(204)
            self.end_headers()
        except (OSError, UnicodeDecodeError):
            return  # the client was killed meanwhile

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def _serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def measure(folder: Path, runtime: Path) -> Iterator[Promise]:
    """Measure; `runtime` is a folder in memory."""
    chance = random.Random(_SEED)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    path, store, token, log = (folder / n for n in ("config.toml", "store.sqlite", "token", "kill.log"))
    committed = runtime / "committed"
    token.write_text("any")
    with _serving() as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        table = site.influxdb_table(url, "any", token)
        config = site.write_configuration(path, store=store, interval_s=15, influxdb=table)
        begin = time.time()
        with site.room(config, path, log=False, answer_ms=0):

            def start() -> Any:
                life = processes.Process(target=_live, args=(path, runtime, committed, log, begin))
                life.start()
                return life

            def alive(life: Any, seconds: float) -> None:
                life.join(seconds)
                if life.exitcode is not None:
                    raise RuntimeError(f"the service ended by itself: {log.read_text()[-2000:]}")

            for _ in range(KILLS):
                server.away = chance.random() < 0.5
                life = start()
                whole = chance.uniform(*_LIFE_S)
                part = chance.uniform(0, whole)
                alive(life, part)
                server.away = chance.random() < 0.5
                alive(life, whole - part)
                life.kill()
                life.join()
            server.away = False
            life = start()
            try:
                site.wait_until("the store is drained", lambda: _rows(store) == 0, 60)
            finally:
                life.kill()
                life.join()
        told = committed.read_text() if committed.exists() else ""
        # What follows the last line break was cut off by a kill: not told, so not counted.
        commits = [json.loads(text) for text in told.split("\n")[:-1]]
        stored = {line for lines in commits for line in lines}
        lost = len(stored - server.lines)
        yield Promise(
            f"{KILLS} x kill -9: acknowledged points lost",
            lost,
            0,
            note=f"of {len(stored | server.lines)}, {len(stored)} of them acknowledged by one of "
            f"{len(commits)} commits first; on a clock {_SPEED} times as fast",
        )


def _rows(store: Path) -> int:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5)) as database:
        (rows,) = database.execute("SELECT count(*) FROM batches").fetchone()
    return int(rows)
