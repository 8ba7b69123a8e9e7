"""One write to InfluxDB 2, and what its answer means.

By influxdb-client, but by its service for a single request: its `WriteApi` takes any 2xx for success, hides
the status, and its batching mode drops points while the server is away. Queue and retries are our own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3 import HTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from power_collector.bounded import BoundedCalls
from power_collector.config import InfluxConfig

TIMEOUT_S = 4.0
"""How long a request may take: the look-up of the name, the connection and the answer together."""
_BODY_BYTES = 65536


class Verdict(Enum):
    """What an answer means for the points that were sent."""

    STORED = auto()
    """204: the points are in the database. Nothing else means that."""
    AWAY = auto()
    """No answer, 5xx or 429: try again soon."""
    MISCONFIGURED = auto()
    """401, 403, 404: token, permission, bucket or organisation; keep all, somebody has to mend it."""
    REFUSED = auto()
    """400 (nothing was stored) or 422 (the good points were stored): some of the lines are bad."""
    TOO_LARGE = auto()
    """413: send fewer lines."""
    STRANGE = auto()
    """No InfluxDB answers so, 200 above all: another server on that address. Keep all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer. `status` is None where there was none; `message` says why, or what it said."""

    status: int | None
    message: str = ""
    retry_after_s: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What it means for the points that were sent."""
        match self.status:
            case 204:
                return Verdict.STORED
            case 401 | 403 | 404:
                return Verdict.MISCONFIGURED
            case 400 | 422:
                return Verdict.REFUSED
            case 413:
                return Verdict.TOO_LARGE
            case status if status is None or status == 429 or 500 <= status <= 599:
                return Verdict.AWAY
            case _:
                return Verdict.STRANGE

    @property
    def dropped(self) -> int | None:
        """How many points a 422 says were dropped."""
        match = re.search(r"\bdropped=([0-9]+)\s*$", self.message) if self.status == 422 else None
        return int(match.group(1)) if match else None

    @property
    def conflict(self) -> tuple[str, str] | None:
        """Measurement and field that a 422 names as in conflict: the first of perhaps several."""
        match = re.search(r'input field "(.*?)" on measurement "(.*?)" is type', self.message)
        return (match.group(2), match.group(1)) if match else None


class _Connections:
    """urllib3's pool, as influxdb-client uses it, but no answer is read for longer than a request may take.

    The client reads each to its end, however long and late that is.
    """

    head: Answer | None = None
    """What is known of the answer before its body is there."""

    def __init__(self, pool: PoolManager) -> None:
        self._pool = pool

    def request(self, method: str, url: str, *, timeout: Timeout, **options: Any) -> HTTPResponse:
        """Return an answer with the beginning of its body, as much as came in time."""
        deadline = time.monotonic() + (timeout.total if isinstance(timeout.total, float) else TIMEOUT_S)
        # A redirection is an answer, and is not followed.
        response = self._pool.request(method, url, timeout=timeout, redirect=False, **options)
        self.head = _answer(response.status, b"", response.headers)
        body = b""
        try:
            while len(body) < _BODY_BYTES and time.monotonic() < deadline:
                part = response.read1(_BODY_BYTES, decode_content=False)
                if not part:
                    break
                body += part
        except (OSError, HTTPError):
            pass  # the status is known, and says what matters
        finally:
            response.close()
        return HTTPResponse(body, response.headers, response.status, reason=response.reason)

    def clear(self) -> None:
        """Close all connections."""
        self._pool.clear()


class InfluxClient:
    """Writes lines with a time in seconds to one bucket."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._client = InfluxDBClient(config.url, token="", org=config.org, retries=False)
        rest = self._client.api_client.rest_client
        self._connections = _Connections(rest.pool_manager)
        rest.pool_manager = self._connections  # type: ignore[assignment]
        self._service = WriteService(self._client.api_client)
        self._requests: BoundedCalls[Answer] = BoundedCalls("request")

    def write(self, lines: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Send the lines in one request. What a server or a network does raises nothing: it is an answer.

        The token is read anew each time, so that a new one needs no restart.
        """
        try:
            token = self._config.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            return Answer(401, f"the token cannot be read: {error}")
        if re.fullmatch(r"[\x21-\x7e]+", token) is None:  # never in a message: it is the secret
            return Answer(401, f"{self._config.token_file} does not hold a token")
        self._client.api_client.set_default_header("Authorization", f"Token {token}")
        self._connections.head = None
        try:
            return self._requests.run(lambda: self._exchange(lines, timeout_s), timeout_s)
        except TimeoutError as error:
            return self._connections.head or Answer(None, str(error))

    def _exchange(self, lines: Sequence[str], timeout_s: float) -> Answer:
        try:
            response = self._service.post_write(
                self._config.org,
                self._config.bucket,
                "\n".join(lines).encode(),
                precision=WritePrecision.S,
                content_type="text/plain; charset=utf-8",
                _request_timeout=timeout_s * 1000,
                # The response itself: otherwise a body that is not UTF-8 raises before the status is seen.
                _preload_content=False,
            )
            return _answer(response.status, response.data or b"", response.headers)
        except ApiException as error:
            # Without a status: no TLS.
            return _answer(error.status or None, error.body or error.reason, error.headers or {})
        except (OSError, HTTPError) as error:
            return Answer(None, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        finally:
            # A connection that is kept would be found dead after each restart of the database.
            self._connections.clear()


def _answer(status: int | None, body: bytes | str, headers: Mapping[str, str]) -> Answer:
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return Answer(status, _message(text.strip()), _seconds(headers.get("Retry-After")))


def _message(text: str) -> str:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text[:500]
    return str(answer["message"]) if isinstance(answer, dict) and "message" in answer else text[:500]


def _seconds(retry_after: str | None) -> float | None:
    """Return the header's seconds; its other form, a date, is not used by InfluxDB and is left out."""
    return float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,9}", retry_after) else None
