"""Line protocol back to points: for what the store holds and for naming what the database refused."""

from __future__ import annotations

import re

from power_collector.contract import Point

_PART = re.compile(r"((?:\\.|[^\\ ])+) ((?:\\.|[^\\ ])+) (-?[0-9]+)")


def _split(text: str, separator: str) -> list[str]:
    return re.findall(rf"(?:\\.|[^\\{separator}])+", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def parse(line: str) -> Point:
    r"""Return the point of a line that `Point.to_line` made: numbers only, time in seconds.

    Raises:
        ValueError: another kind of line.
    """
    match = _PART.fullmatch(line)
    if match is None:
        raise ValueError(f"not a line of ours: {line[:100]!r}")
    key, fields, time = match.groups()
    name, *tags = _split(key, ",")
    return Point(
        _unescape(name),
        dict(_pair(tag) for tag in tags),
        {field: _number(value) for field, value in map(_pair, _split(fields, ","))},
        int(time),
    )


def measurement(line: str) -> str:
    """Return the name of the line's measurement; of a line that is none, its beginning."""
    match = re.match(r"(?:\\.|[^\\, ])+", line)
    return _unescape(match.group()) if match else line[:50]


def has_field(line: str, name: str) -> bool:
    """Return whether the line of ours carries the field."""
    escaped = re.sub(r"([,= ])", r"\\\1", name)
    return re.search(rf"(?<!\\)[ ,]{re.escape(escaped)}=", line) is not None


def _pair(text: str) -> tuple[str, str]:
    parts = _split(text, "=")
    if len(parts) != 2:
        raise ValueError(f"not name=value: {text[:100]!r}")
    return _unescape(parts[0]), _unescape(parts[1])


def _number(text: str) -> int | float:
    return int(text[:-1]) if text.endswith("i") else float(text)
