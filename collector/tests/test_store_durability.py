"""What a commit of the store means: the row is on the medium, and only what is wholly too old is dropped."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from power_collector.batch import Batch
from power_collector.store import Store

NOW = 1_764_000_000
DAY_S = 86_400
FULL = 2
"""SQLite's number for `synchronous=FULL`: each commit waits until the medium has the write-ahead log."""


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "store.sqlite", max_mb=1, max_age_days=1) as opened:
        yield opened


def test_a_commit_waits_for_the_medium(store: Store) -> None:
    """A power cut cannot be made here; SQLite is asked what it will do."""
    assert store._db.execute("PRAGMA synchronous").fetchone() == (FULL,)


def test_a_row_is_kept_while_a_point_of_it_is_young_enough(store: Store) -> None:
    """A row holds up to a minute of cycles: its age is that of its newest point."""
    store.add([Batch.pack([f"m f=1 {NOW}", f"m f=2 {NOW + 45}"], NOW)], now=NOW + 45)
    assert store.add([], now=NOW + DAY_S + 45) == 0
    assert store.points == 2
    assert store.add([], now=NOW + DAY_S + 46) == 2
    assert store.points == 0


def test_a_minutes_row_writes_little(store: Store, tmp_path: Path) -> None:
    """A day of rows has to stay below 30 MB of writing: at 1,440 commits that is 20 kB each at most.

    The write-ahead log grows by what a commit writes; the file follows once more at each checkpoint.
    """
    rng = random.Random(1)
    row = [f"m,device={n} f={rng.random()!r} {NOW}" for n in range(108)]
    store.add([Batch.pack(row, NOW)], now=NOW)
    log = tmp_path / "store.sqlite-wal"
    before = log.stat().st_size
    for minute in range(1, 51):
        store.add([Batch.pack(row, NOW + 60 * minute)], now=NOW + 60 * minute)
    assert 50 * 1000 < log.stat().st_size - before < 50 * 10_000
