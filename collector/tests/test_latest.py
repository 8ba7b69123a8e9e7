"""The file for those who look at the collector: replaced at once, never half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from power_collector import latest
from power_collector.contract import Point
from power_collector.writer import Counters


def write(directory: Path, time: int) -> None:
    points = [Point("collector_status", {}, {"points": 1}, time)]
    latest.write(directory, time=time, interval_s=15, points=points, polls=[], counters=Counters(), clock={})


def test_a_reader_who_is_in_the_middle_of_it_reads_on_in_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, 1_764_000_000)
    with (tmp_path / latest.NAME).open("rb", buffering=0) as reader:
        begin = reader.read(10)
        write(tmp_path, 1_764_000_015)
        old = json.loads(begin + reader.read())
    assert old["time"] == old["points"][0]["time"] == 1_764_000_000
    assert json.loads((tmp_path / latest.NAME).read_text(encoding="utf-8"))["time"] == 1_764_000_015


def test_where_the_new_one_cannot_be_written_the_old_one_stays(tmp_path: Path) -> None:
    write(tmp_path, 1_764_000_000)
    (tmp_path / f".{latest.NAME}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path, 1_764_000_015)
    assert json.loads((tmp_path / latest.NAME).read_text(encoding="utf-8"))["time"] == 1_764_000_000
