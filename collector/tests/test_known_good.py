"""The last known good time in its file: written seldom, whole, and no reason to stop."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from power_collector.contract import ClockSource
from power_collector.known_good import EVERY_S, NAME, KnownGood, KnownGoodFile

NOW = 1_800_000_000.0


def good(after_s: float = 0.0) -> KnownGood:
    return KnownGood(NOW + after_s, ClockSource.SYNCHRONISED, "boot-1", 1000.0 + after_s)


def test_what_is_kept_is_there_at_the_next_start(tmp_path: Path) -> None:
    assert KnownGoodFile(tmp_path).last is None
    KnownGoodFile(tmp_path).keep(good())
    assert KnownGoodFile(tmp_path).last == good()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_it_is_written_at_most_hourly_also_over_restarts(tmp_path: Path, monkeypatch) -> None:
    written: list[float] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (written.append(after_s), fsync(fd)))
    for after_s in range(0, 3 * EVERY_S, 15):
        if after_s % 600 == 0:
            file = KnownGoodFile(tmp_path)
        file.keep(good(after_s))
    assert written == [0, EVERY_S, 2 * EVERY_S]


def test_a_time_in_the_future_is_mended_at_once(tmp_path: Path) -> None:
    KnownGoodFile(tmp_path).keep(good(1e8))
    KnownGoodFile(tmp_path).keep(good())
    assert KnownGoodFile(tmp_path).last == good()


@pytest.mark.parametrize(
    "content",
    ["", "\0" * 80, "{", "[]", "{}", '{"time": "x", "source": 1, "boot_id": "a", "moment": 1}', '{"time": 1}',
     '{"time": 1, "source": 7, "boot_id": "a", "moment": 1}', "\udcff"],
)  # fmt: skip
def test_what_a_power_cut_left_is_as_good_as_none(tmp_path: Path, caplog, content: str) -> None:
    (tmp_path / NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    file = KnownGoodFile(tmp_path)
    assert file.last is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    file.keep(good())
    assert json.loads((tmp_path / NAME).read_text())["time"] == NOW


def test_a_power_cut_while_it_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    KnownGoodFile(tmp_path).keep(good())

    def cut(_: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", cut)
    KnownGoodFile(tmp_path).keep(good(EVERY_S))
    assert KnownGoodFile(tmp_path).last == good()


def test_a_disk_that_takes_nothing_is_said_once_and_tried_hourly(tmp_path: Path, caplog, monkeypatch) -> None:
    tries: list[int] = []

    def full(self: Path, *_: object, **__: object) -> None:
        tries.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    file = KnownGoodFile(tmp_path)
    for after_s in range(0, 3 * EVERY_S, 15):
        file.keep(good(after_s))
    assert len(tries) - 1 == 3  # and one to read
    assert [r.levelname for r in caplog.records if "cannot be written" in r.message] == ["WARNING"]
