from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from power_collector.config import InfluxConfig
from power_collector.influx import Answer, InfluxClient, Verdict

LINES = ["m,device=a f=1.5,i=1i 1764000000", "m,device=a f=2.5,i=2i 1764000015"]
RECORDINGS = (
    Path(os.environ.get("POWER_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
    / "influxdb2-answers.json"
)


def test_204_stored(influx, influx_config) -> None:
    answer = InfluxClient(influx_config).write(LINES)
    assert answer.verdict is Verdict.STORED
    assert influx.requests == [LINES]
    assert influx.points["m,device=a", "1764000015"] == "f=2.5,i=2i"


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.STRANGE),
        (202, Verdict.STRANGE),
        (302, Verdict.STRANGE),
        (400, Verdict.REFUSED),
        (401, Verdict.MISCONFIGURED),
        (403, Verdict.MISCONFIGURED),
        (404, Verdict.MISCONFIGURED),
        (405, Verdict.STRANGE),
        (413, Verdict.TOO_LARGE),
        (422, Verdict.REFUSED),
        (429, Verdict.AWAY),
        (500, Verdict.AWAY),
        (503, Verdict.AWAY),
    ],
)
def test_only_204_is_an_acknowledgement(influx, influx_config, status, verdict) -> None:
    influx.usual = (status, {}, "<html>whatever</html>")
    answer = InfluxClient(influx_config).write(LINES)
    assert (answer.status, answer.verdict, answer.message) == (status, verdict, "<html>whatever</html>")


def test_what_the_server_says_is_kept(influx, influx_config) -> None:
    influx.types["m", "f"] = "integer"
    answer = InfluxClient(influx_config).write([*LINES, "n f=1i 1764000000"])
    assert answer.status == 422
    assert answer.conflict == ("m", "f")
    assert answer.dropped == 2
    assert Answer(422, "failure writing points").conflict is None
    assert Answer(400, "x dropped=2").dropped is None


def test_retry_after_in_seconds_is_kept_and_a_date_is_not(influx, influx_config) -> None:
    influx.script = [
        (429, {"Retry-After": "37"}, ""),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ""),
    ]
    client = InfluxClient(influx_config)
    assert client.write(LINES).retry_after_s == 37
    assert client.write(LINES).retry_after_s is None


def test_nobody_there_is_an_answer_too(influx_config) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config = influx_config.model_copy(update={"url": f"http://127.0.0.1:{unused.getsockname()[1]}"})
        answer = InfluxClient(config).write(LINES)
    assert answer.status is None
    assert answer.verdict is Verdict.AWAY
    assert "refused" in answer.message


def test_a_server_that_never_answers_is_left_at_the_time_out(influx, influx_config) -> None:
    influx.hang = threading.Event()
    answer = InfluxClient(influx_config).write(LINES, timeout_s=0.1)
    assert answer.verdict is Verdict.AWAY
    assert "timed out" in answer.message


def test_a_server_that_speaks_no_http_is_an_answer_too(influx_config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\x00\x01\x02 no http\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        config = influx_config.model_copy(update={"url": f"http://127.0.0.1:{server.getsockname()[1]}/"})
        answer = InfluxClient(config).write(LINES, timeout_s=2)
        thread.join(5)
    assert answer.verdict is Verdict.AWAY


@contextmanager
def raw_server(influx_config, answer: Callable[[socket.socket], None]) -> Iterator[InfluxConfig]:
    """A server that answers one request by writing what it likes to the socket, until the client hangs up."""

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield influx_config.model_copy(update={"url": f"http://127.0.0.1:{server.getsockname()[1]}"})
        thread.join(10)
        assert not thread.is_alive()


def test_an_answer_that_never_ends_is_left_at_the_time_out(influx_config) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 503 no\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)

    with raw_server(influx_config, drip) as config:
        begin = time.monotonic()
        answer = InfluxClient(config).write(LINES, timeout_s=0.3)
        assert time.monotonic() - begin < 1
    assert (answer.status, answer.verdict) == (503, Verdict.AWAY)


def test_no_connection_is_kept(influx_config) -> None:
    """Kept, it would be found dead after each restart of the database."""
    ended = False

    def answer(connection: socket.socket) -> None:
        nonlocal ended
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.settimeout(2)
        while connection.recv(65536):  # what is left of the request
            pass
        ended = True

    with raw_server(influx_config, answer) as config:
        client = InfluxClient(config)
        assert client.write(LINES).verdict is Verdict.STORED
    assert ended


def test_an_answer_whose_headers_never_end_is_left_at_the_time_out(influx_config) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 204 No Content\r\nX-Drip: ")
        for _ in range(40):
            connection.sendall(b"x")
            time.sleep(0.05)

    with raw_server(influx_config, drip) as config:
        client = InfluxClient(config)
        begin = time.monotonic()
        answer = client.write(LINES, timeout_s=0.3)
        assert answer == Answer(None, "timed out after 0.3 s")
        # As long as that goes on, no other request is made.
        assert client.write(LINES, timeout_s=0.3) == Answer(None, "what timed out before still goes on")
        assert time.monotonic() - begin < 1


def test_a_server_that_is_right_again_is_asked_again(influx, influx_config) -> None:
    influx.hang = threading.Event()
    client = InfluxClient(influx_config)
    assert client.write(LINES, timeout_s=0.1).verdict is Verdict.AWAY
    influx.hang.set()
    deadline = time.monotonic() + 5
    while client.write(LINES).verdict is not Verdict.STORED:
        assert time.monotonic() < deadline


def test_a_name_that_is_looked_up_in_vain_is_left_at_the_time_out(influx_config, monkeypatch) -> None:
    given_up = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        given_up.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    client = InfluxClient(influx_config.model_copy(update={"url": "http://influx.example:8086"}))
    begin = time.monotonic()
    assert client.write(LINES, timeout_s=0.2).verdict is Verdict.AWAY
    assert time.monotonic() - begin < 1
    given_up.set()


def test_a_fault_of_our_own_is_raised_to_the_writer(influx_config, monkeypatch) -> None:
    client = InfluxClient(influx_config)
    monkeypatch.setattr(client, "_exchange", lambda lines, timeout_s: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.write(LINES)


def test_only_the_beginning_of_a_long_answer_is_read(influx_config) -> None:
    sent = 0

    def pour(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x" * 1_000_000)
            sent += 1

    with raw_server(influx_config, pour) as config:
        answer = InfluxClient(config).write(LINES, timeout_s=5)
    assert sent < 50
    assert answer.verdict is Verdict.STRANGE
    assert answer.message == "x" * 500


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 500 no\r\n\r\n" + b"[" * 50_000, 500),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip", 200),
        (b"HTTP/1.1 500 no\r\nContent-Length: 100\r\n\r\nshort", 500),
        (b"HTTP/1.1 204 \r\n\r\n", 204),
    ],
)
def test_no_answer_raises(influx_config, sent, status) -> None:
    with raw_server(influx_config, lambda connection: connection.sendall(sent)) as config:
        assert InfluxClient(config).write(LINES).status == status


def test_no_proxy_is_asked_whatever_the_environment_says(influx, influx_config, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert InfluxClient(influx_config).write(LINES).status == 204


def test_a_new_token_needs_no_restart(influx, influx_config) -> None:
    client = InfluxClient(influx_config)
    influx.token = "another"
    assert client.write(LINES).status == 401
    influx_config.token_file.write_text("another")
    assert client.write(LINES).status == 204


@pytest.mark.parametrize("content", [None, b"", b"two words secret", b"secret\nsecret2", b"\xff\xfe"])
def test_a_file_without_a_token_is_told_without_telling_what_is_in_it(influx, influx_config, content) -> None:
    influx_config.token_file.unlink()
    if content is not None:
        influx_config.token_file.write_bytes(content)
    answer = InfluxClient(influx_config).write(LINES)
    assert answer.verdict is Verdict.MISCONFIGURED
    assert "secret" not in answer.message
    assert influx.requests == []


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"no recordings of a real server at {RECORDINGS}")
def test_the_fake_answers_as_a_real_server_did(influx, tmp_path) -> None:
    """The fake of these tests, against what InfluxDB 2.9.1 answered to the same writes in the same order."""
    token_file = tmp_path / "token"
    compared = []
    for recording in json.loads(RECORDINGS.read_text()):
        title, request, sent = recording["title"], recording["request"], recording["sent"]
        if not request.startswith("POST /api/v2/write ") or not isinstance(sent, str) or not sent.strip():
            continue
        if any(
            word in title
            for word in ("NaN", "malformed line", "may only", "other bucket", "precision", "deleted")
        ):
            continue  # finer parsing and rights than the fake needs
        query = json.loads(request.removeprefix("POST /api/v2/write "))
        if "org" not in query or "no token" in title:
            continue
        token_file.write_text("wrong" if recording["status"] == 401 else influx.token)
        config = InfluxConfig(url=influx.url, org=query["org"], bucket=query["bucket"], token_file=token_file)
        answer = InfluxClient(config).write(sent.strip().split("\n"))
        said = json.loads(recording["answer"])["message"] if recording["answer"] else ""
        assert (answer.status, answer.message) == (recording["status"], said), title
        compared.append(title)
    assert len(compared) >= 10
