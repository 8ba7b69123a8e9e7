"""Shared fakes: a clock that takes no time, a device that does what it is told, an InfluxDB on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from power_collector.config import Config, InfluxConfig, parse
from power_collector.devices.base import ChargeControllerReading, Reading

TOKEN = "token-that-may-write-one-bucket"


@dataclass
class FakeClock:
    """Starts at a whole minute; time passes only by `advance` and `sleep`."""

    start: float = 1_764_000_000.0
    elapsed: float = 0.0
    step: float = 0.0
    """How far the wall clock was set away from where it would be."""
    slept: list[float] = field(default_factory=list)
    synchronises: bool = True
    """Whether a time server keeps it."""
    boot_id: str = "this-boot"

    def wall(self) -> float:
        return self.start + self.elapsed + self.step

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def synchronised(self) -> bool:
        return self.synchronises

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed += max(seconds, 0.0)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds


@dataclass
class FakeDevice:
    """Answers each read with the next of `script`: a reading, an exception, or a coroutine function."""

    script: list[object] = field(default_factory=list)
    reads: int = 0

    async def read(self) -> Reading:
        self.reads += 1
        step = self.script.pop(0) if self.script else ChargeControllerReading({"output_power_w": 100.0})
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step = await step()
        assert isinstance(step, Reading)
        return step


@dataclass
class FakeInflux:
    """The write call of InfluxDB 2.9.1, as recorded from a real one, with the faults that tests ask for."""

    url: str = ""
    org: str = "Parks Ranch"
    bucket: str = "power"
    token: str = TOKEN
    points: dict[tuple[str, str], str] = field(default_factory=dict)
    """(series, time) -> fields: the set of what is stored."""
    requests: list[list[str]] = field(default_factory=list)
    """The lines of each request, in the order of their arrival."""
    script: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    """Answers to give before the usual ones begin: status, headers, body."""
    usual: tuple[int, dict[str, str], str] | None = None
    """The answer to everything, while it is set."""
    hang: threading.Event | None = None
    """While it is set to an event, requests are answered only after that event."""
    most_lines: int = 1_000_000
    longest_line: int = 1_000_000
    types: dict[tuple[str, str], str] = field(default_factory=dict)
    """(measurement, field) -> type; fixed by the first point."""

    def answer(
        self, query: dict[str, list[str]], authorization: str, body: str
    ) -> tuple[int, dict[str, str], str]:
        lines = [line for line in body.split("\n") if line]
        self.requests.append(lines)
        if self.hang is not None:
            self.hang.wait(20)
        if self.script:
            return self.script.pop(0)
        if self.usual is not None:
            return self.usual
        if authorization != f"Token {self.token}":
            return self._error(401, "unauthorized", "unauthorized access")
        if query.get("org") != [self.org]:
            return self._error(404, "not found", f'organization name "{query.get("org", [""])[0]}" not found')
        if query.get("bucket") != [self.bucket]:
            return self._error(404, "not found", f'bucket "{query.get("bucket", [""])[0]}" not found')
        if len(lines) > self.most_lines or any(len(line) > self.longest_line for line in lines):
            return self._error(413, "request too large", "unable to read data: points batch is too large")
        for line in lines:
            if re.fullmatch(r"(\\.|[^ ])+ (\\.|[^ ])+=(\\.|[^ ])+ [0-9]+", line) is None:
                return self._error(400, "invalid", f"unable to parse '{line}': invalid field format")
        return self._store(lines)

    def _store(self, lines: list[str]) -> tuple[int, dict[str, str], str]:
        conflict = ""
        dropped = 0
        for line in lines:
            series, fields, time = re.split(r"(?<!\\) ", line)
            name = series.split(",")[0]
            fault = ""
            for part in re.split(r"(?<!\\),", fields):
                key, value = part.rsplit("=", 1)
                kind = {"i": "integer", '"': "string", "e": "boolean"}.get(value[-1], "float")
                known = self.types.setdefault((name, key), kind)
                if known != kind:
                    fault = f'input field "{key}" on measurement "{name}" is type {kind}'
                    fault += f", already exists as type {known}"
            if fault:
                conflict = conflict or fault
                dropped += 1
            else:
                self.points[series, time] = fields
        if not dropped:
            return 204, {}, ""
        return self._error(
            422,
            "unprocessable entity",
            "failure writing points to database: partial write: "
            f"field type conflict: {conflict} dropped={dropped}",
        )

    @staticmethod
    def _error(status: int, code: str, message: str) -> tuple[int, dict[str, str], str]:
        body = json.dumps({"code": code, "message": message}, separators=(",", ":"))
        return (
            status,
            {"Content-Type": "application/json; charset=utf-8", "X-Platform-Error-Code": code},
            body,
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_device() -> type[FakeDevice]:
    return FakeDevice


@pytest.fixture
def influx() -> Iterator[FakeInflux]:
    fake = FakeInflux()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if url.path == "/api/v2/write":
                authorization = self.headers.get("Authorization", "")
                status, headers, text = fake.answer(parse_qs(url.query), authorization, body)
            else:
                status, headers, text = 404, {}, ""
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                if status != 204:
                    self.wfile.write(text.encode())
            except BrokenPipeError:
                assert fake.hang is not None, "only a client that was kept waiting may go away"

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    if fake.hang is not None:
        fake.hang.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def influx_config(influx: FakeInflux, tmp_path: Path) -> InfluxConfig:
    token_file = tmp_path / "influxdb.token"
    token_file.write_text(f"{TOKEN}\n")
    return InfluxConfig(url=influx.url, org="Parks Ranch", bucket="power", token_file=token_file)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """Make a configuration with chargers sc1.. on the ports given, and a hub where `hub` is its port."""

    def make(*ports: int, hub: int | None = None, interval_s: int = 15, more: str = "") -> Config:
        text = f'interval_s = {interval_s}\n{more}\n[store]\npath = "{tmp_path / "store.sqlite"}"\n'
        if hub is not None:
            text += '[[devices]]\nname = "mate3s"\ndriver = "outback"\nhost = "127.0.0.1"\ninverters = 3\n'
            text += f"port = {hub}\ntimeout_s = 0.9\n"
        for number, port in enumerate(ports, start=1):
            text += (
                f'[[devices]]\nname = "sc{number}"\ndriver = "tristar-mppt-600v"\nhost = "127.0.0.1"\n'
                f"port = {port}\ntimeout_s = 0.5\n"
            )
        (tmp_path / "config.toml").write_text(text)
        return parse(text, tmp_path / "config.toml")

    return make
