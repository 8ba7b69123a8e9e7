from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from power_collector.batch import Batch, Dating, Undated
from power_collector.contract import ClockSource
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


# what waits for its time

HERE, ELSEWHERE = Undated("boot-1", 100.0), Undated("boot-0", 7.0)
DATING = Dating("boot-1", 3700.0, ClockSource.MATE3S, 15)


def test_undated_batches_are_kept_and_not_given_out_before_they_are_dated(path: Path) -> None:
    with Store(path, max_mb=1, max_age_days=1) as store:
        store.add([replace(batch(1), undated=ELSEWHERE), replace(batch(2), undated=HERE), batch(3)], now=NOW)
    with Store(path, max_mb=1, max_age_days=1) as store:
        assert (store.points, store.undated_points) == (12, 8)
        assert [b.lines() for b in store.oldest(1000).values()] == [batch(3).lines()]
        assert [b.undated for b in store.batches()] == [ELSEWHERE, HERE, None]
        store.date(DATING)
        assert (store.points, store.undated_points) == (12, 0)
        expected = [batch(1), batch(2, time=NOW + 3600), batch(3)]
        assert [b.lines() for b in store.oldest(1000).values()] == [one.lines() for one in expected]
        assert [b.first_time for b in store.batches()] == [NOW, NOW + 3600, NOW]


def test_undated_batches_are_never_too_old_and_nothing_is_while_the_time_is_not_known(store: Store) -> None:
    store.add([replace(batch(1), undated=HERE), batch(2)], now=None)
    assert store.add([batch(3, time=NOW + 10**9)], now=None) == 0
    assert store.add([batch(4, time=NOW + 10**9)], now=NOW + 10**9) == 4
    assert store.undated_points == 4


def test_undated_batches_are_dropped_by_size_like_others(store: Store) -> None:
    for number in range(200):
        store.add([replace(batch(number, 10, incompressible=20_000), undated=HERE)], now=NOW)
    kept = sum(b.points for b in store.batches())
    assert 0 < kept < 2000
    assert (store.points, store.undated_points) == (kept, kept)


def test_a_damaged_batch_does_not_keep_the_others_from_their_times(store: Store) -> None:
    store.add([Batch(b"rubbish", 4, NOW, NOW, HERE), replace(batch(2), undated=HERE)], now=NOW)
    store.date(DATING)
    assert store.undated_points == 0
    damaged, good = store.oldest(1000).values()
    assert good.lines() == batch(2, time=NOW + 3600).lines()
    with pytest.raises(ValueError, match="damaged"):
        damaged.lines()


def test_a_store_of_version_1_is_taken_over_with_all_it_holds(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE batches (id INTEGER PRIMARY KEY AUTOINCREMENT, first_time INTEGER NOT NULL,"
            " last_time INTEGER NOT NULL, points INTEGER NOT NULL, lines BLOB NOT NULL);"
            "CREATE TABLE rejects (measurement TEXT NOT NULL, field TEXT NOT NULL, reason TEXT NOT NULL,"
            " points INTEGER NOT NULL, examples TEXT NOT NULL,"
            " PRIMARY KEY (measurement, field, reason)) WITHOUT ROWID;"
            "PRAGMA user_version=1;"
        )
        old = batch(1)
        database.execute(
            "INSERT INTO batches (first_time, last_time, points, lines) VALUES (?, ?, ?, ?)",
            (old.first_time, old.last_time, old.points, old.data),
        )
        database.commit()
    for _ in range(2):
        with Store(path, max_mb=1, max_age_days=1) as store:
            assert (store.points, store.undated_points) == (4, 0)
            assert [b.lines() for b in store.oldest(1000).values()] == [batch(1).lines()]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
