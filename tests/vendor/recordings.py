"""Comparing an answer with a recording of a real server: what differs from run to run is written <name> there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(
    os.environ.get("POWER_REFERENCE") or Path(__file__).resolve().parents[3] / "shared/reference"
)


def load(name: str) -> Any:
    """Read a recording; skips the test where the folder with recordings is absent."""
    path = REFERENCE / name
    if not path.is_file():
        pytest.skip(f"no recordings of a real server on this machine ({name})")
    return json.loads(path.read_text(encoding="utf-8"))


def fits(recorded: str, answered: str) -> bool:
    """Say whether an answer is the recorded one: as JSON where it is JSON, otherwise letter by letter.

    A recorded JSON answer that was cut off is compared as far as it goes.
    """
    if not recorded.startswith(("{", "[")):
        return _text_fits(recorded, answered)
    try:
        got = json.loads(answered)
    except ValueError:
        return False
    try:
        return _json_fits(json.loads(recorded), got, whole=True)
    except ValueError:
        return _json_fits(_closed(recorded), got, whole=False)


def whole(recorded: str) -> bool:
    """Say whether a recorded answer was not cut off."""
    try:
        json.loads(recorded)
    except ValueError:
        return not recorded.startswith(("{", "["))
    return True


def _json_fits(recorded: Any, got: Any, *, whole: bool) -> bool:
    if isinstance(recorded, dict) and isinstance(got, dict):
        names_fit = recorded.keys() == got.keys() if whole else recorded.keys() <= got.keys()
        return names_fit and all(_json_fits(recorded[name], got[name], whole=whole) for name in recorded)
    if isinstance(recorded, list) and isinstance(got, list):
        length_fits = len(recorded) == len(got) if whole else len(recorded) <= len(got)
        pairs = zip(recorded, got, strict=False)
        return length_fits and all(_json_fits(one, other, whole=whole) for one, other in pairs)
    if isinstance(recorded, str) and isinstance(got, str):
        return _text_fits(recorded, got)
    return type(recorded) is type(got) and bool(recorded == got)


def _text_fits(recorded: str, got: str) -> bool:
    parts = re.split(r"(<[A-Za-z_]+>)", recorded)
    pattern = "".join("[^/]+" if re.fullmatch(r"<[A-Za-z_]+>", part) else re.escape(part) for part in parts)
    return re.fullmatch(pattern, got) is not None


def _closed(text: str) -> Any:
    """Read JSON that was cut off: back to the last place where closing what is open makes it whole."""
    for end in range(len(text), 0, -1):
        if text[end - 1] not in '}]",' and not text[end - 1].isalnum():
            continue
        head = text[:end].rstrip(",")
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", head)
        opened: list[str] = []
        for letter in bare:
            if letter in "{[":
                opened.append("}" if letter == "{" else "]")
            elif letter in "}]":
                opened.pop()
        try:
            return json.loads(head + "".join(reversed(opened)))
        except ValueError:
            continue
    raise ValueError("no JSON at all")
