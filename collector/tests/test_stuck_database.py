"""A database that answers 500 while its health passes: when a mark is left. Time is injected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from power_collector import service, stuck_database
from power_collector.backlog import Backlog
from power_collector.batch import Cycle
from power_collector.config import InfluxConfig, StoreConfig
from power_collector.influx import Answer, InfluxClient
from power_collector.stuck_database import Overheard, StuckDatabase, free_part, healthy, on_this_machine
from power_collector.writer import Writer

STUCK = (500, '{"code":"internal error","message":"not attempting to open\\nshard 7; opening it failed"}')
PASSES = (200, '{"name":"influxdb","status":"pass","version":"v2.9.1"}')


@dataclass
class Database:
    """What a server on loopback answers: status and body; (0, "") hangs up."""

    write: tuple[int, str] = STUCK
    health: tuple[int, str] = PASSES
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def database() -> Iterator[Database]:
    fake = Database()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*fake.health)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(*fake.write)

        def answer(self, status: int, body: str) -> None:
            fake.asked.append(self.path.split("?")[0])
            self.close_connection = True
            if status:
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join(5)


class Room:
    """A writer and the watch over its database; a cycle each 15 s, a look each minute."""

    def __init__(self, database: Database, directory: Path, clock) -> None:
        self.clock = clock
        self.mark = directory / "run" / "restart-influxdb"
        self.mark.parent.mkdir()
        token = directory / "token"
        token.write_text("secret\n")
        config = InfluxConfig(url=database.url, org="o", bucket="b", token_file=token)
        self.stuck = StuckDatabase(database.url, self.mark.parent, clock, data=directory)
        self.backlog = Backlog(StoreConfig(path=directory / "store.sqlite", max_mb=9, max_age_days=9), clock)
        self.writer = Writer(self.backlog, Overheard(InfluxClient(config), self.stuck), clock)

    def run(self, minutes: float) -> None:
        for _ in range(int(minutes * 4)):
            now = int(self.clock.wall())
            self.writer.put(Cycle(now, (f"m f=1.5 {now}",)))
            while self.writer.step() <= 0:
                pass
            self.clock.advance(15)
            if self.clock.elapsed % 60 == 0:
                self.stuck.check()


async def until(there: Callable[[], bool]) -> None:
    """Wait for a file."""
    while not there():  # noqa: ASYNC110 - it is written by another thread
        await asyncio.sleep(0.01)


@pytest.fixture
def room(database, tmp_path, clock, monkeypatch) -> Iterator[Room]:
    monkeypatch.setattr(stuck_database, "free_part", lambda directory: 0.43)
    made = Room(database, tmp_path, clock)
    yield made
    made.backlog.close()


def test_after_ten_minutes_of_500_a_mark_with_reason_and_time_is_left(room, database, caplog) -> None:
    room.run(10)
    assert not room.mark.exists()
    assert "/health" not in database.asked  # not before it is time
    room.run(2)
    (line,) = room.mark.read_text().splitlines()
    assert line.startswith("2025-11-24T16:1")
    assert "answered 500 for 11 minutes" in line
    assert "not attempting to open shard 7; opening it failed" in line
    assert "43% of its disk" in line
    assert [path.name for path in room.mark.parent.iterdir()] == ["restart-influxdb"]
    (said,) = [r for r in caplog.records if r.name.endswith("stuck_database")]
    assert said.levelno == logging.WARNING
    assert "its restart is asked for" in said.getMessage()
    assert "secret" not in line + said.getMessage()


@pytest.mark.parametrize("other", [(204, ""), (429, ""), (401, ""), (0, "")])
def test_any_other_answer_and_none_begins_the_ten_minutes_anew(room, database, other) -> None:
    room.run(9)
    database.write = other
    room.run(1)
    database.write = STUCK
    room.run(9)
    assert not room.mark.exists()
    room.run(4)
    assert room.mark.exists()


def test_a_503_is_stuck_too(room, database) -> None:
    database.write = (503, "unavailable")
    room.run(12)
    assert "answered 503" in room.mark.read_text()


@pytest.mark.parametrize(
    "health",
    [
        (503, '{"status":"fail"}'),
        (200, '{"status":"fail"}'),
        (500, PASSES[1]),
        (200, "<html>another server</html>"),
        (200, "[]"),
        (200, "[" * 9999),
        (0, ""),
    ],
)
def test_no_mark_unless_the_health_passes(room, database, health) -> None:
    database.health = health
    room.run(30)
    assert "/health" in database.asked
    assert not room.mark.exists()
    database.health = PASSES
    room.run(2)
    assert room.mark.exists()


def test_no_mark_on_a_full_disk_and_that_is_said_once(room, monkeypatch, caplog) -> None:
    monkeypatch.setattr(stuck_database, "free_part", lambda directory: 0.049)
    room.run(30)
    assert not room.mark.exists()
    (said,) = [r.getMessage() for r in caplog.records if r.name.endswith("stuck_database")]
    assert "only 4.9 % free: make room" in said
    monkeypatch.setattr(stuck_database, "free_part", lambda directory: 0.05)
    room.run(2)
    assert room.mark.exists()


def test_a_disk_that_cannot_be_looked_at_leaves_no_mark(room, monkeypatch, caplog) -> None:
    monkeypatch.setattr(stuck_database, "free_part", free_part)
    room.stuck._data = room.mark.parent / "gone"
    room.run(30)
    assert not room.mark.exists()
    assert caplog.text.count("restart it by hand") == 1


def test_a_mark_that_nobody_takes_is_said_once_and_left_alone(room, caplog) -> None:
    room.run(12)
    before = room.mark.read_text()
    room.run(60)
    assert room.mark.read_text() == before
    assert caplog.text.count("influxdb-restart.path") == 1


def test_where_the_restart_does_not_help_it_is_asked_for_again_ten_minutes_later(room) -> None:
    room.run(12)
    room.mark.unlink()  # root's unit has taken it
    room.run(8)
    assert not room.mark.exists()
    room.run(4)
    assert room.mark.exists()


def test_a_directory_that_cannot_be_written_harms_nothing(room, database, caplog) -> None:
    room.mark.parent.rmdir()
    room.run(30)
    assert caplog.text.count("cannot be asked for") == 1
    database.write = (204, "")
    room.run(2)
    assert room.writer.counters.stored_points == 0


def test_the_watch_looks_once_a_minute(room, database, clock) -> None:
    answer = Answer(500, "stuck")
    room.stuck.heard(answer)
    clock.advance(601)
    room.stuck.heard(answer)

    async def until_marked() -> None:
        watch = asyncio.create_task(room.stuck.watch())
        async with asyncio.timeout(10):
            await until(room.mark.exists)
        watch.cancel()

    asyncio.run(until_marked())
    assert clock.slept[0] == 60
    assert database.asked == ["/health"]


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8086", True),
        ("http://127.1.2.3:8086/", True),
        ("http://localhost:8086", True),
        ("https://[::1]:8086", True),
        ("http://192.168.1.5:8086", False),
        ("http://localhost.example.org", False),
        ("https://influx.example.org", False),
    ],
)
def test_only_a_database_on_this_machine_is_restarted_here(url, here) -> None:
    assert on_this_machine(url) is here


def test_the_free_part_is_that_of_the_disk_and_needs_no_right_to_read(tmp_path) -> None:
    usage = shutil.disk_usage(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    assert free_part(closed) == pytest.approx(usage.free / usage.total, abs=0.1)


def test_nobody_there_is_no_health() -> None:
    assert not healthy("http://127.0.0.1:1")


def test_a_health_that_never_ends_is_none(room, monkeypatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(stuck_database, "healthy", lambda url: over.wait(10))
    monkeypatch.setattr(stuck_database, "TIMEOUT_S", 0.05)
    began = time.monotonic()
    room.run(14)
    assert time.monotonic() - began < 5
    assert not room.mark.exists()
    over.set()


async def test_a_fault_that_ends_the_watch_is_said(room, clock, monkeypatch, caplog) -> None:
    room.stuck.heard(Answer(500, "stuck"))
    clock.advance(601)
    room.stuck.heard(Answer(500, "stuck"))
    monkeypatch.setattr(stuck_database, "healthy", lambda url: 1 / 0)
    await asyncio.wait_for(room.stuck.watch(), 10)
    assert "no longer watched" in caplog.text
    assert "ZeroDivisionError" in caplog.text


# the service as a whole


class FastClock:
    """400 seconds in one."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def wall(self) -> float:
        return 1_764_000_000 + self.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self.began) * 400

    boot_id = "this-boot"

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 400)


@pytest.fixture
def run_service(make_config, database, tmp_path):
    """Run the collector, its device absent, until the mark is there or for some seconds of its own."""
    config = make_config(1)
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "run").mkdir()
    influxdb = InfluxConfig(url=database.url, org="o", bucket="b", token_file=tmp_path / "token")
    config = config.model_copy(update={"influxdb": influxdb})
    mark = tmp_path / "run" / "restart-influxdb"

    async def run(seconds: float) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(
            service.run(config, stop, clock=FastClock(), runtime_directory=tmp_path / "run")
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 400):
                await until(mark.exists)
        stop.set()
        assert await running

    return run


@pytest.fixture
def on_a_roomy_disk(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(stuck_database, "free_part", lambda directory: 0.43)


@pytest.mark.usefixtures("on_a_roomy_disk")
async def test_the_running_collector_leaves_the_mark(run_service, tmp_path) -> None:
    await run_service(4000)
    assert "answered 500" in (tmp_path / "run" / "restart-influxdb").read_text()
    assert json.loads((tmp_path / "run" / "latest.json").read_text())["counters"]["stored_points"] > 0


@pytest.mark.usefixtures("on_a_roomy_disk")
async def test_the_running_collector_leaves_none_for_a_database_elsewhere(
    run_service, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(service, "on_this_machine", lambda url: False)
    await run_service(900)
    assert not (tmp_path / "run" / "restart-influxdb").exists()
