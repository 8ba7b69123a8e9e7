from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from power_collector.backlog import RETRY_S, RING_S, Backlog
from power_collector.batch import Batch, Dating, Undated
from power_collector.config import StoreConfig
from power_collector.contract import ClockSource
from power_collector.store import Reject, Store


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(path=tmp_path / "store.sqlite", max_mb=1, max_age_days=1)


@pytest.fixture
def open_backlog(config, clock) -> Iterator[Callable[[], Backlog]]:
    opened: list[Backlog] = []

    def open_one() -> Backlog:
        opened.append(Backlog(config, clock))
        return opened[-1]

    yield open_one
    for backlog in opened:
        backlog.close()


def batch(clock, text: str, points: int = 2) -> Batch:
    return Batch.pack([f"m,d=a f={text}.{i} {int(clock.wall())}" for i in range(points)], clock.wall())


def rows(config: StoreConfig) -> list[Batch]:
    with Store(config.path, max_mb=1, max_age_days=1) as store:
        return list(store.batches())


def lines(backlog: Backlog) -> list[str]:
    portion = backlog.oldest(1000)
    return portion.lines if portion else []


def test_what_is_kept_comes_back_until_it_is_settled(clock, config, open_backlog) -> None:
    backlog = open_backlog()
    assert backlog.oldest(10) is None
    assert backlog.add(batch(clock, "1"))
    portion = backlog.oldest(10)
    assert portion is not None
    assert portion.lines == batch(clock, "1").lines()
    assert backlog.points == 2
    backlog.settle(portion, rest=[batch(clock, "2", 1)], rejects=[Reject("m", "f", "r", ["m f=1 1"])])
    assert lines(backlog) == batch(clock, "2", 1).lines()
    backlog.close()
    assert lines(open_backlog()) == batch(clock, "2", 1).lines()


def test_while_the_disk_is_full_memory_keeps_and_each_minute_it_is_tried(
    clock, config, open_backlog, caplog
) -> None:
    caplog.set_level(logging.INFO)
    backlog = open_backlog()
    store = backlog._store
    assert store is not None
    store._db.execute("PRAGMA query_only=1")  # every write fails as on a read-only file system
    assert not backlog.add(batch(clock, "1"))
    assert not backlog.add(batch(clock, "2"))
    assert backlog.points == 4
    assert lines(backlog) == batch(clock, "1").lines()  # can be sent from memory
    store._db.execute("PRAGMA query_only=0")
    clock.advance(RETRY_S - 1)
    backlog.tend()
    assert not store.points
    clock.advance(1)
    backlog.tend()
    assert store.points == 4
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]
    assert "works again" in caplog.records[1].message


def test_memory_keeps_two_hours_and_counts_what_it_drops(clock, config, open_backlog) -> None:
    config.path.mkdir()  # no store can be made there
    backlog = open_backlog()
    assert backlog.tend_at == clock.monotonic() + RETRY_S
    for _ in range(RING_S // 60 + 30):
        backlog.add(batch(clock, "1"))
        clock.advance(60)
    backlog.tend()
    assert backlog.points == pytest.approx(RING_S / 60 * 2, abs=4)
    assert backlog.dropped + backlog.points == (RING_S // 60 + 30) * 2


def test_memory_is_drained_while_the_store_cannot_be_used(clock, config, open_backlog, caplog) -> None:
    config.path.mkdir()
    backlog = open_backlog()
    for text in "12":
        backlog.add(batch(clock, text))
    portion = backlog.oldest(100)
    assert portion is not None
    assert portion.lines == batch(clock, "1").lines()
    backlog.settle(portion, rest=[batch(clock, "9", 1)])
    assert backlog.points == 3
    backlog.close()
    assert "3 points are lost" in caplog.text


def test_a_damaged_store_is_set_aside_and_said_loudly(clock, config, open_backlog, caplog) -> None:
    config.path.write_bytes(b"no database" * 1000)
    backlog = open_backlog()
    assert backlog.add(batch(clock, "1"))
    assert "set aside" in caplog.text
    assert config.path.with_name("store.sqlite.set-aside").read_bytes().startswith(b"no database")


def test_a_newer_store_is_set_aside(clock, config, open_backlog, caplog) -> None:
    database = sqlite3.connect(config.path)
    database.execute("PRAGMA user_version=99")
    database.close()
    assert open_backlog().add(batch(clock, "1"))
    assert "newer" in caplog.text


def test_a_store_that_cannot_even_be_set_aside_is_a_fault_like_a_full_disk(
    clock, config, open_backlog, monkeypatch
) -> None:
    config.path.write_bytes(b"no database" * 1000)

    def refuse(*_: object) -> Path:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    backlog = open_backlog()
    assert not backlog.add(batch(clock, "1"))
    assert backlog.points == 2
    assert backlog.tend_at == clock.monotonic() + RETRY_S


def test_damage_found_while_running_costs_only_what_was_in_the_store(
    clock, config, open_backlog, caplog
) -> None:
    backlog = open_backlog()
    for n in range(200):
        backlog.add(batch(clock, str(n), 50))
    assert backlog._store is not None
    backlog._store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(config.path.read_bytes())
    damaged[4096 : len(damaged)] = b"\xff" * (len(damaged) - 4096)
    config.path.write_bytes(damaged)
    backlog._store._db.execute("PRAGMA shrink_memory")  # SQLite has the pages in memory still
    added = [backlog.add(batch(clock, "7")) for _ in range(2)]
    backlog.tend()
    assert added[1]
    assert backlog.points == 4
    assert backlog.dropped == 10_000
    assert "is set aside" in caplog.text


def test_a_damaged_row_is_dropped_and_counted_once_and_blocks_nothing(clock, config, open_backlog) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    backlog.add(batch(clock, "2"))
    assert backlog._store is not None
    backlog._store._db.execute("UPDATE batches SET lines = x'00' WHERE id = 1")
    assert lines(backlog) == batch(clock, "2").lines()
    assert lines(backlog) == batch(clock, "2").lines()
    assert backlog.dropped == 2
    backlog._store._db.execute("UPDATE batches SET lines = x'00'")
    assert backlog.oldest(10) is None


def test_what_cannot_be_removed_now_is_not_brought_again_and_removed_when_there_is_room(
    clock, config, open_backlog
) -> None:
    backlog = open_backlog()
    for text in "12":
        backlog.add(batch(clock, text))
    store = backlog._store
    assert store is not None
    store._db.execute("PRAGMA query_only=1")
    first = backlog.oldest(2)
    assert first is not None
    assert backlog.settle(first)
    assert backlog.points == 2
    assert backlog.oldest(10) is None  # the store failed just now
    clock.advance(RETRY_S)
    second = backlog.oldest(10)
    assert second is not None
    assert [line.split()[1] for line in second.lines] == ["f=2.0", "f=2.1"]
    assert backlog.settle(second)
    assert backlog.points == 0
    assert backlog.ready_at is None
    assert backlog.tend_at == clock.monotonic() + RETRY_S
    store._db.execute("PRAGMA query_only=0")
    clock.advance(RETRY_S)
    backlog.tend()
    assert backlog.tend_at is None
    assert backlog.dropped == 0
    assert rows(config) == []


def test_what_was_sent_only_in_part_stays_whole_while_the_rest_cannot_be_put_back(
    clock, config, open_backlog
) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    assert backlog._store is not None
    portion = backlog.oldest(10)
    assert portion is not None
    backlog._store._db.execute("PRAGMA query_only=1")
    assert not backlog.settle(portion, rest=[batch(clock, "1", 1)])
    assert backlog.points == 2
    assert backlog.ready_at == clock.monotonic() + RETRY_S
    clock.advance(RETRY_S)
    assert lines(backlog) == portion.lines


def test_a_batch_that_moved_from_memory_to_the_store_is_not_settled_by_what_it_was(
    clock, config, open_backlog
) -> None:
    backlog = open_backlog()
    assert backlog._store is not None
    backlog._store._db.execute("PRAGMA query_only=1")
    backlog.add(batch(clock, "1"))
    portion = backlog.oldest(10)
    assert portion is not None
    backlog._store._db.execute("PRAGMA query_only=0")
    clock.advance(RETRY_S)
    backlog.tend()
    assert not backlog.settle(
        portion, rest=[batch(clock, "1", 1)], rejects=[Reject("m", "f", "r", ["m f=1"])]
    )
    assert lines(backlog) == portion.lines
    assert backlog._store.rejects() == {}


def test_a_damaged_row_that_cannot_be_removed_is_counted_once(clock, config, open_backlog) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    backlog.add(batch(clock, "2"))
    assert backlog._store is not None
    backlog._store._db.execute("UPDATE batches SET lines = x'00' WHERE id = 1")
    backlog._store._db.execute("PRAGMA query_only=1")
    second = batch(clock, "2").lines()
    for _ in range(3):
        assert lines(backlog) == second
        clock.advance(RETRY_S)
    assert backlog.dropped == 2
    assert backlog.points == 2


def test_a_store_that_cannot_be_read_now_is_asked_again_later(clock, config, open_backlog) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    blocker = sqlite3.connect(config.path)
    assert backlog._store is not None
    backlog._store._db.execute("PRAGMA busy_timeout=0")
    backlog._store._db.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN IMMEDIATE")
    assert not backlog.add(batch(clock, "2"))
    blocker.execute("ROLLBACK")
    blocker.close()
    clock.advance(RETRY_S)
    backlog.tend()
    assert backlog.points == 4


def test_settling_removes_what_was_sent_and_nothing_that_took_its_place(clock, config, open_backlog) -> None:
    config.path.mkdir()
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    portion = backlog.oldest(100)
    assert portion is not None
    clock.advance(RING_S + 1)
    backlog.add(batch(clock, "2"))  # drops the first, which is too old by now
    backlog.settle(portion)
    assert lines(backlog) == batch(clock, "2").lines()


def test_a_portion_of_a_store_that_was_set_aside_removes_nothing_from_the_new_one(
    clock, config, open_backlog
) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    portion = backlog.oldest(10)
    assert portion is not None
    assert backlog._store is not None
    backlog._store._db.execute("DROP TABLE batches")
    assert not backlog.add(batch(clock, "2"))
    backlog.tend()  # a new store, whose ids begin anew
    backlog.settle(portion)
    assert lines(backlog) == batch(clock, "2").lines()


def test_rows_that_somebody_else_removed_are_not_asked_for_again_and_again(
    clock, config, open_backlog
) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    other = sqlite3.connect(config.path)
    with other:
        other.execute("DELETE FROM batches")
    other.close()
    assert backlog.oldest(10) is None
    assert backlog.points == 0
    assert backlog.ready_at is None


@pytest.mark.parametrize("damage", ["lines = 7", "lines = NULL", "points = NULL"])
def test_a_row_that_no_store_of_ours_wrote_ends_nothing(clock, config, open_backlog, damage) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    assert backlog._store is not None
    database = backlog._store._db
    database.execute("PRAGMA writable_schema=ON")
    database.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'batches'")
    database.execute("PRAGMA writable_schema=RESET")
    database.execute(f"UPDATE batches SET {damage}")
    assert backlog.oldest(10) is None
    assert backlog.dropped == 2
    backlog.add(batch(clock, "2"))
    backlog.tend()
    assert lines(backlog) == batch(clock, "2").lines()


# what waits for its time

DATING = Dating("this-boot", 1_764_000_000 + 36_000 - 1000, ClockSource.SYNCHRONISED, 15)


def undated(clock, text: str) -> Batch:
    return replace(batch(clock, text), undated=Undated("this-boot", clock.wall() - clock.monotonic()))


@pytest.mark.parametrize("full", [True, False])
def test_undated_points_wait_for_their_times_wherever_they_are(
    clock, config, open_backlog, full: bool
) -> None:
    if full:
        config.path.mkdir()
    backlog = open_backlog()
    backlog.add(undated(clock, "1"))
    assert backlog.points == 2
    assert backlog.ready_at is None
    assert backlog.oldest(10) is None
    backlog.date(DATING)
    assert backlog.ready_at is not None
    assert [line.rpartition(" ")[2] for line in lines(backlog)] == [str(1_764_000_000 + 36_000)] * 2


def test_a_store_that_takes_no_times_is_asked_again(clock, config, open_backlog) -> None:
    backlog = open_backlog()
    backlog.add(undated(clock, "1"))
    store = backlog._store
    assert store is not None
    store._db.execute("PRAGMA query_only=1")
    backlog.date(DATING)
    assert backlog.oldest(10) is None
    assert backlog.tend_at == clock.monotonic() + RETRY_S
    store._db.execute("PRAGMA query_only=0")
    clock.advance(RETRY_S)
    backlog.tend()
    assert len(lines(backlog)) == 2
    assert backlog.tend_at is None


@pytest.mark.parametrize(
    ("source", "dropped"),
    [(None, 0), (ClockSource.UNVERIFIED, 0), (ClockSource.MATE3S, 2), (ClockSource.SYNCHRONISED, 2)],
)
def test_only_a_time_that_somebody_vouches_for_makes_points_too_old(
    clock, open_backlog, source: ClockSource | None, dropped: int
) -> None:
    backlog = open_backlog()
    backlog.add(batch(clock, "1"))
    clock.advance(2 * 86400)
    if source is not None:
        backlog.date(Dating("this-boot", clock.wall() - clock.monotonic(), source, 15))
    backlog.add(batch(clock, "2"))
    assert backlog.dropped == dropped
