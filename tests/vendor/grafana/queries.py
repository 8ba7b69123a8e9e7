"""Asking the database through a data source: the proxy's way, the health check, and InfluxQL with its frames."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from database import Json
from provisioning import duration


@dataclass
class Answer:
    """What the database answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class DownstreamError(Exception):
    """The plugin says nothing about the cause; `panic` is the server's way of saying even less."""


def credentials(source: Json) -> dict[str, str]:
    """Give the headers that carry the data source's credential."""
    pair = (source["user"], source["secrets"].get("password", ""))
    if source["basicAuth"]:
        pair = (source["basicAuthUser"], source["secrets"].get("basicAuthPassword", ""))
    headers = {"Authorization": "Basic " + base64.b64encode(":".join(pair).encode()).decode()}
    named = {k[14:]: v for k, v in source["jsonData"].items() if k.startswith("httpHeaderName")}
    return headers | {name: source["secrets"].get(f"httpHeaderValue{n}", "") for n, name in named.items()}


def send(source: Json, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """Send a request to the data source's address; raises OSError."""
    url = urlsplit(source["url"])
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        connection.request(method, url.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from error
    finally:
        connection.close()


def ask(source: Json, text: str) -> Answer:
    """Run InfluxQL with the data source's method and credential; raises OSError."""
    args, headers = {"db": source["database"], "epoch": "ms"}, credentials(source)
    if source["jsonData"].get("httpMode", "GET") == "GET":
        return send(source, "GET", f"/query?{urlencode({**args, 'q': text})}", None, headers)
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return send(source, "POST", f"/query?{urlencode(args)}", urlencode({"q": text}).encode(), headers)


def health(source: Json) -> str:
    """Give how many measurements the test button finds; raises ValueError with what it says instead."""
    if not source["database"]:
        raise ValueError("database name required error reading influxDB")
    try:
        answer = ask(source, "SHOW measurements")
    except OSError as error:
        url = f"{source['url']}/query?db={source['database']}&epoch=ms"
        cause = f"dial tcp {urlsplit(url).netloc}: connect: {str(error.strerror).lower()}"
        raise ValueError(f'Post "{url}": {cause} error performing influxQL query') from error
    if answer.status != 200:
        raise ValueError(f"error reading InfluxDB. Status Code: {answer.status} ")
    series = json.loads(answer.body)["results"][0].get("series") or [{"values": []}]
    return f"datasource is working. {len(series[0]['values'])} measurements found"


def moment(text: str) -> int:
    """Read the end of a time range (now-10m, or milliseconds) as milliseconds."""
    back = text.removeprefix("now-")
    return (
        int(text) if text.isdigit() else int((time.time() - (0 if text == "now" else duration(back))) * 1000)
    )


def fill_in(query: Json, source: Json, start: int, end: int) -> str:
    """Replace Grafana's variables in a query's text."""
    least = duration(source["jsonData"].get("timeInterval") or "1ms")
    milliseconds = max(int(query.get("intervalMs") or 1000), int(least * 1000))
    interval = f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
    text = str(query.get("query", "")).replace("$timeFilter", f"time >= {start}ms and time <= {end}ms")
    return re.sub(r"\$(__)?interval\b", interval, re.sub(r"\$__interval_ms\b", str(milliseconds), text))


def run(source: Json, query: Json, start: int, end: int) -> Json:
    """Answer one query with frames; raises DownstreamError."""
    if not source["database"]:
        return {"error": "database name required", "status": 500}
    text = fill_in(query, source, start, end)
    try:
        answer = ask(source, text)
    except OSError as error:
        raise DownstreamError from error
    if answer.status != 200:
        raise DownstreamError
    results = json.loads(answer.body).get("results") or [{}]
    if len(results) > 1:
        raise DownstreamError("panic")
    if "error" in results[0]:
        return {"error": results[0]["error"], "status": 500}
    series = results[0].get("series") or []
    return {"status": 200, "frames": [frame for one in series for frame in _frames(one, query, text)]}


def _frames(series: Json, query: Json, text: str) -> list[Json]:
    tags, frames = series.get("tags") or {}, []
    for place, column in list(enumerate(series["columns"]))[1:]:
        values: list[Any] = [row[place] for row in series["values"]]
        sample = next((value for value in values if value is not None), 0.0)
        kind, form = {bool: ("boolean", "bool"), str: ("string", "string")}.get(
            type(sample), ("number", "float64")
        )
        name = _name(series["name"], column, tags, query.get("alias") or "")
        config = {"labels": tags} if tags else {}
        config["config"] = {"displayNameFromDS": name}
        fields = [{"name": "time", "type": "time", "typeInfo": {"frame": "time.Time"}}]
        fields += [{"name": "value", "type": kind, "typeInfo": {"frame": form, "nullable": True}, **config}]
        meta = {"name": name, "refId": query["refId"], "meta": {"executedQueryString": text}}
        data = [[row[0] for row in series["values"]], values]
        frames.append({"schema": {**meta, "fields": fields}, "data": {"values": data}})
    return frames


def _name(measurement: str, column: str, tags: Json, alias: str) -> str:
    listed = ", ".join(f"{key}: {value}" for key, value in sorted(tags.items()))
    names = {"m": measurement, "measurement": measurement, "col": column}
    names |= {f"tag_{key}": value for key, value in tags.items()}
    plain = f"{measurement}.{column}" + (f" {{ {listed} }}" if listed else "")
    return re.sub(r"\$(\w+)", lambda found: str(names.get(found[1], found[0])), alias) or plain
