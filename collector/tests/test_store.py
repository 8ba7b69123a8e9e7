from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from power_collector.batch import Batch
from power_collector.store import (
    VERSION,
    Reject,
    Store,
    StoreUnavailableError,
    StoreUnusableError,
    set_aside,
)

NOW = 1_764_000_000


def batch(number: int, points: int = 4, *, time: int = NOW, incompressible: int = 0) -> Batch:
    filler = os.urandom(incompressible // 2).hex()
    return Batch.pack([f"m{filler},d=a f={number}.{i} {time + i}" for i in range(points)], NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, max_mb=1, max_age_days=1) as opened:
        yield opened


def test_what_was_added_is_there_after_reopening_oldest_first(path: Path) -> None:
    with Store(path, max_mb=1, max_age_days=1) as store:
        assert store.add([batch(1)], now=NOW) == 0
        store.add([batch(2, 5)], now=NOW)
    with Store(path, max_mb=1, max_age_days=1) as store:
        assert store.points == 9
        assert [b.lines() for b in store.batches()] == [batch(1).lines(), batch(2, 5).lines()]
        first = next(store.batches())
        assert (first.first_time, first.last_time) == (NOW, NOW + 3)


def test_a_commit_is_on_the_disk_without_closing(path: Path, store: Store) -> None:
    store.add([batch(1)], now=NOW)
    with Store(path, max_mb=1, max_age_days=1) as other:
        assert other.points == 4
    with closing(sqlite3.connect(path)) as database:
        (mode,) = database.execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"


def test_oldest_takes_up_to_the_limit_but_at_least_one(store: Store) -> None:
    store.add([batch(n, 4) for n in range(5)], now=NOW)
    assert len(store.oldest(8)) == 2
    assert len(store.oldest(11)) == 2
    assert len(store.oldest(1)) == 1


def test_settled_batches_are_gone_and_the_rest_is_at_the_end(store: Store) -> None:
    store.add([batch(1), batch(2)], now=NOW)
    (first,) = store.oldest(1)
    store.settle([first], put_back=[batch(3, 1)])
    assert [b.lines()[0] for b in store.batches()] == [batch(2).lines()[0], batch(3).lines()[0]]
    assert store.points == 5
    store.settle([first])
    assert store.points == 5


def test_skipped_batches_are_left_out_and_removed_with_the_next_change_but_not_dropped(store: Store) -> None:
    store.add([batch(1, 3, time=NOW - 86400 - 10), batch(2), batch(3)], now=NOW - 86400)
    first, second, _ = store.oldest(100)
    assert store.skip([first, second], 7)
    assert store.points == 4
    assert store.owes_removal
    assert [b.lines() for b in store.oldest(100).values()] == [batch(3).lines()]
    assert store.add([], now=NOW) == 0  # the first would have been too old
    assert not store.owes_removal
    assert store.points == 4
    with closing(sqlite3.connect(store.path)) as database:
        assert database.execute("SELECT count(*) FROM batches").fetchone() == (1,)


def test_only_so_many_skipped_batches_are_remembered(store: Store) -> None:
    assert store.skip(range(10_000), 0)
    assert not store.skip([10_000], 1)
    assert store.points == 0


def test_beyond_the_age_the_old_ones_are_dropped_and_counted(store: Store) -> None:
    store.add([batch(1, 3, time=NOW - 86400 - 10), batch(2, 3)], now=NOW - 86400)
    assert store.add([batch(3, 3)], now=NOW) == 3
    assert store.points == 6
    assert [b.lines()[0] for b in store.batches()] == [batch(2).lines()[0], batch(3).lines()[0]]


def test_beyond_the_size_the_oldest_are_dropped_and_counted(path: Path, store: Store) -> None:
    dropped = sum(store.add([batch(n, 10, incompressible=20_000)], now=NOW) for n in range(200))
    assert dropped > 0
    assert store.points == 2000 - dropped
    newest = list(store.batches())[-1].lines()[0]
    assert newest.split("f=")[1].startswith("199.")
    assert path.stat().st_size < 1_100_000
    # Freed pages count as free: what is settled makes room, nothing more is dropped.
    store.settle(list(store.oldest(1000)))
    assert store.add([batch(n, 10, incompressible=20_000) for n in range(20)], now=NOW) == 0


def test_a_smaller_bound_shrinks_an_old_store_to_it(path: Path) -> None:
    with Store(path, max_mb=10, max_age_days=1) as store:
        store.add([batch(n, 10, incompressible=20_000) for n in range(200)], now=NOW)
    with Store(path, max_mb=1, max_age_days=1) as store:
        dropped = store.add([batch(1, 1)], now=NOW)
        assert dropped > 1000
        assert store.points == 2001 - dropped


def test_no_store_holds_rubbish_of_a_newer_version_or_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all, but long enough to be one" * 100)
    with pytest.raises(StoreUnusableError, match="damaged"):
        Store(path, max_mb=1, max_age_days=1)
    path.unlink()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    with pytest.raises(StoreUnusableError, match="newer"):
        Store(path, max_mb=1, max_age_days=1)


def test_a_place_that_cannot_be_written_is_told_apart_from_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        Store(tmp_path / "file" / "store.sqlite", max_mb=1, max_age_days=1)
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreUnavailableError):
        Store(tmp_path / "directory", max_mb=1, max_age_days=1)


def test_a_full_disk_leaves_the_store_as_it_was(store: Store) -> None:
    store.add([batch(1)], now=NOW)
    store._db.execute("PRAGMA max_page_count=1")  # the nearest to a full disk that needs no mount
    with pytest.raises(StoreUnavailableError, match="full"):
        store.add([batch(n, 10, incompressible=20_000) for n in range(9)], now=NOW)
    assert store.points == 4
    store._db.execute("PRAGMA max_page_count=100000")
    store.add([batch(2)], now=NOW)
    assert store.points == 8


def test_rejects_are_grouped_counted_and_bounded(path: Path, store: Store) -> None:
    for n in range(10):
        store.settle([], rejects=[Reject("m", "f", "422: conflict", [f"m f={n} 1", f"m f={n} 2"])])
    points, examples = store.rejects()["m", "f", "422: conflict"]
    assert points == 20
    assert examples == ["m f=0 1", "m f=0 2", "m f=1 1", "m f=1 2"]
    store.settle([], rejects=[Reject(f"m{n}", "f", "r" * 9000, ["x" * 9000] * 9) for n in range(1200)])
    assert len(store.rejects()) == 1000
    assert sum(points for points, _ in store.rejects().values()) == 20 + 1200 * 9
    assert path.stat().st_size < 6_000_000


def test_a_batch_that_is_no_zlib_says_so() -> None:
    with pytest.raises(ValueError, match="damaged batch of 7 points"):
        Batch(b"rubbish", 7, NOW, NOW).lines()
    assert Batch.pack(["no time here"], NOW).first_time == NOW


def test_set_aside_keeps_one_copy(path: Path) -> None:
    for number in range(2):
        with Store(path, max_mb=1, max_age_days=1) as store:
            store.add([batch(number)], now=NOW)
        aside = set_aside(path)
        assert not path.exists()
    with Store(aside, max_mb=1, max_age_days=1) as store:
        assert [b.lines() for b in store.batches()] == [batch(1).lines()]
    assert sorted(p.name for p in path.parent.iterdir()) == ["store.sqlite.set-aside"]


def test_a_store_without_its_tables_is_damaged(path: Path, store: Store) -> None:
    store._db.execute("DROP TABLE batches")
    with pytest.raises(StoreUnusableError, match="no such table"):
        store.add([batch(1)], now=NOW)
    with pytest.raises(StoreUnusableError, match="no such table"):
        Store(path, max_mb=1, max_age_days=1)


def test_another_error_of_sqlite_is_our_bug_and_raises_as_it_is(store: Store) -> None:
    store.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        store.add([batch(1)], now=NOW)
