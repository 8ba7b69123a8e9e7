"""One write to InfluxDB 2, and what its answer means.

By urllib3, not by influxdb-client: its `WriteApi` takes any 2xx for success and hides the status, its
batching mode drops points while the server is away, and importing it takes 13 MiB. Queue and retries are our
own.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from power_collector.bounded import BoundedCalls
from power_collector.config import InfluxConfig

TIMEOUT_S = 4.0
"""How long a request may take: the look-up of the name, the connection and the answer together."""
_BODY_BYTES = 65536

logger = logging.getLogger(__name__)


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


class InfluxClient:
    """Writes lines with a time in seconds to one bucket."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        query = urlencode({"org": config.org, "bucket": config.bucket, "precision": "s"})
        self._url = f"{config.url.rstrip('/')}/api/v2/write?{query}"
        # It asks no proxy, whatever the environment says.
        self._http = PoolManager(retries=False)
        self._requests: BoundedCalls[None] = BoundedCalls("request")

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
        body = "\n".join(lines).encode()
        answers: list[Answer] = []
        try:
            self._requests.run(lambda: self._exchange(body, token, timeout_s, answers), timeout_s)
        except TimeoutError as error:
            return answers[-1] if answers else Answer(None, str(error))
        return answers[-1]

    def _exchange(self, body: bytes, token: str, timeout_s: float, answers: list[Answer]) -> None:
        """Send a request, and add what is known of the answer: without its body, as soon as that is known."""
        try:
            response = self._http.request(
                "POST",
                self._url,
                body=body,
                headers={"Authorization": f"Token {token}", "Content-Type": "text/plain; charset=utf-8"},
                timeout=Timeout(total=timeout_s),
                redirect=False,  # that is an answer
                preload_content=False,
            )
            answers.append(_answer(response.status, b"", response.headers))
            said = _beginning(response, time.monotonic() + timeout_s)
            answers.append(_answer(response.status, said, response.headers))
        except (OSError, HTTPError) as error:
            answers.append(Answer(None, f"{type(error).__name__}: {error}"))
        finally:
            # A connection that is kept would be found dead after each restart of the database.
            self._http.clear()


def _beginning(response: BaseHTTPResponse, deadline: float) -> bytes:
    """Return as much of the body as comes in time; the status is known, and says what matters."""
    body = b""
    try:
        while len(body) < _BODY_BYTES and time.monotonic() < deadline:
            part = response.read1(_BODY_BYTES, decode_content=False)
            if not part:
                break
            body += part
    except (OSError, HTTPError) as error:
        logger.debug("an answer ends early: %s", error)
    finally:
        response.close()
    return body


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    return Answer(
        status, _message(body.decode(errors="replace").strip()), _seconds(headers.get("Retry-After"))
    )


def _message(text: str) -> str:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text[:500]
    return str(answer["message"]) if isinstance(answer, dict) and "message" in answer else text[:500]


def _seconds(retry_after: str | None) -> float | None:
    """Return the header's seconds; its other form, a date, is not used by InfluxDB and is left out."""
    return float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,9}", retry_after) else None
