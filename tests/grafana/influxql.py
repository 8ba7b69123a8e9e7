"""Asking the rehearsal's substitute database as Grafana's browser side does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from power_collector.contract import Point
from tests.vendor.servers import Server, basic, influxdb2, set_up, token

PASSWORD = "readonlypassword"
_AT_ONCE = 5000


class Database:
    """The substitute with points in it. `now` stands for InfluxQL's now(), so that a day does not age."""

    def __init__(self, server: Server, now: int) -> None:
        self._server = server
        self.now = now

    def write(self, points: Iterable[Point]) -> None:
        """Write points as the collector does."""
        rest = iter(points)
        while batch := list(islice(rest, _AT_ONCE)):
            body = "\n".join(one.to_line() for one in batch)
            args = {"org": "Parks Ranch", "bucket": "power", "precision": "s"}
            answer = self._server.ask("POST", "/api/v2/write", args, body, token("operatortoken"))
            assert answer.status == 204, answer

    def ask(self, text: str, *, hours: float = 6, interval_s: int = 60) -> list[dict[str, Any]]:
        """Return the series of an answer, times in seconds; variables are filled in as a panel's would be."""
        begin = self.now - int(hours * 3600)
        text = text.replace("$timeFilter", f"time >= {begin}s and time <= {self.now}s")
        text = re.sub(r"\$__interval\b", f"{interval_s}s", text)
        assert "$" not in text, text
        text = text.replace("now()", f"{self.now + 1}s")
        login = basic("grafana", PASSWORD)
        answer = self._server.ask("GET", "/query", {"db": "power", "epoch": "s", "q": text}, headers=login)
        body: Any = answer.json()
        assert answer.status == 200, body
        (result,) = body["results"]
        assert "error" not in result, (text, result)
        return list(result.get("series", []))

    def value(self, text: str) -> float | None:
        """Return the only value of an answer, None where there is none."""
        series = self.ask(text)
        if not series:
            return None
        ((_, value),) = series[0]["values"]
        assert len(series) == 1, series
        return float(value)


@contextmanager
def database(folder: Path, now: int, points: Iterable[Point] = ()) -> Iterator[Database]:
    """Run the substitute with points in it until the block ends."""
    with influxdb2(folder) as server:
        set_up(server, password=PASSWORD)
        made = Database(server, now)
        made.write(points)
        yield made


def rows(series: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rows with their tags, by column."""
    return [
        {**one.get("tags", {}), **dict(zip(one["columns"], values, strict=True))}
        for one in series
        for values in one["values"]
    ]
