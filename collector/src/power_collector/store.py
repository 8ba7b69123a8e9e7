"""SQLite file of packed batches: the embedded store, and the queue before InfluxDB.

Bounded by live size and age; the oldest is dropped first. Write-ahead log with `synchronous=FULL`: what `add`
returned from is on the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from power_collector.batch import Batch, Dating, Undated

VERSION = 2
"""`PRAGMA user_version` of the tables below."""

# A batch with a boot_id is undated: its times are the machine's, boot_offset seconds ahead of that boot's.
_TABLES = """
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    points INTEGER NOT NULL,
    lines BLOB NOT NULL,
    boot_id TEXT,
    boot_offset REAL
);
CREATE TABLE rejects (
    measurement TEXT NOT NULL,
    field TEXT NOT NULL,
    reason TEXT NOT NULL,
    points INTEGER NOT NULL,
    examples TEXT NOT NULL,
    PRIMARY KEY (measurement, field, reason)
) WITHOUT ROWID;
"""
_FROM_1 = """
ALTER TABLE batches ADD COLUMN boot_id TEXT;
ALTER TABLE batches ADD COLUMN boot_offset REAL;
"""

_DATED, _UNDATED = "WHERE boot_id IS NULL", "WHERE boot_id IS NOT NULL"

# A generic error says, of SQL that does not change, that tables or columns are not what they were.
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
}

# 1,000 groups of at most 5 kB: rejects never take more than 5 MB.
_REJECT_GROUPS = 1000
_EXAMPLES = 4
_EXAMPLE_LENGTH = 1000
_NAME_LENGTH = 300

_SKIPPED = 10_000  # a week's rows


class StoreError(Exception):
    """The store did not do what was asked; the message names file and cause."""


class StoreUnavailableError(StoreError):
    """A full disk, missing rights and the like: worth another try when that is mended."""


class StoreUnusableError(StoreError):
    """Damaged, or written by a newer version: it has to be set aside."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Points that the database refused for one reason; `field` is empty where the reason names none."""

    measurement: str
    field: str
    reason: str
    lines: Sequence[str]


class Store:
    """The open file. Used by one thread at a time; close it when done."""

    def __init__(self, path: Path, *, max_mb: float, max_age_days: float) -> None:
        """Open the file, and make it where it is missing.

        Raises:
            StoreUnavailableError: it cannot be opened or made now.
            StoreUnusableError: it is no store, damaged or of a newer version.
        """
        self.path = path
        self._max_bytes = int(max_mb * 1_000_000)
        self._max_age_s = max_age_days * 86400
        self._skipped: set[int] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"{path}: {error}") from error
        with self._errors():
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._prepare()
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        # A minute's row is about 2.6 kB, and a commit writes whole pages: small ones halve the card's wear.
        # Only a new file takes the size. The log goes into the file each 4 MB, as it does by default.
        self._db.execute("PRAGMA page_size=1024")
        self._db.execute("PRAGMA wal_autocheckpoint=4000")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        # Debian's SQLite overwrites what is deleted with zeros: twice the wear for nothing secret.
        self._db.execute("PRAGMA secure_delete=OFF")
        self._db.execute("PRAGMA journal_size_limit=4000000")
        # A queue's pages are read once: 2 MB of them in memory, SQLite's default, are of no use.
        self._db.execute("PRAGMA cache_size=-256")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreUnusableError(f"{self.path} is of version {version}, newer than {VERSION}")
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT")
        elif version == 1:
            self._db.executescript(f"BEGIN IMMEDIATE; {_FROM_1} PRAGMA user_version={VERSION}; COMMIT")
        self._points = self._count()
        self._undated_points = self._count(_UNDATED)

    def _count(self, where: str = "") -> int:
        (points,) = self._db.execute(f"SELECT coalesce(sum(points), 0) FROM batches {where}").fetchone()
        return int(points)

    @property
    def points(self) -> int:
        """How many points it holds, without those that are skipped."""
        return self._points

    @property
    def owes_removal(self) -> bool:
        """Whether batches are skipped that the next change has to remove."""
        return bool(self._skipped)

    @property
    def undated_points(self) -> int:
        """How many of its points wait for their times."""
        return self._undated_points

    def add(self, batches: Sequence[Batch], *, now: float | None) -> int:
        """Keep the batches in one transaction; return how many points were dropped to stay within the bounds.

        `now` (seconds since 1970) is what ages are measured against; None: the time is not known, and nothing
        is too old.

        Raises:
            StoreError: nothing was kept.
        """
        with self._transaction():
            self._insert(batches)
            dropped = self._enforce(now)
        self._points += sum(batch.points for batch in batches) - dropped
        if self._undated_points or any(batch.undated for batch in batches):
            self._undated_points = self._count(_UNDATED)
        return dropped

    def date(self, dating: Dating) -> None:
        """Give the undated batches their times, those of other boots too: their clocks' time, as unverified.

        Raises:
            StoreError: they stay undated.
        """
        with self._transaction():
            for key, batch in list(self._rows(_UNDATED)):
                try:
                    dated = batch.dated(dating)
                except ValueError:
                    dated = replace(batch, undated=None)  # whoever takes it finds that it is damaged
                self._db.execute(
                    "UPDATE batches SET (first_time, last_time, lines, boot_id, boot_offset)"
                    " = (?, ?, ?, NULL, NULL) WHERE id = ?",
                    (dated.first_time, dated.last_time, dated.data, key),
                )
        self._undated_points = 0

    def oldest(self, limit: int) -> dict[int, Batch]:
        """Return the oldest dated batches by their ids, at most `limit` points, but at least one batch.

        Raises:
            StoreError: they could not be read.
        """
        taken: dict[int, Batch] = {}
        points = 0
        with self._errors():
            for key, batch in self._rows(_DATED):
                if taken and points + batch.points > limit:
                    break
                taken[key] = batch
                points += batch.points
        if not taken:
            self._points = self._undated_points  # somebody else removed them
        return taken

    def batches(self) -> Iterator[Batch]:
        """Yield all batches, oldest first.

        Raises:
            StoreError: they could not be read.
        """
        with self._errors():
            for _, batch in self._rows():
                yield batch

    def settle(
        self, ids: Collection[int], *, put_back: Sequence[Batch] = (), rejects: Sequence[Reject] = ()
    ) -> None:
        """Remove batches, put what is left of them at the end, and note what was refused: one transaction.

        Raises:
            StoreError: nothing of it happened.
        """
        with self._transaction():
            removed = self._delete(ids)
            self._insert(put_back)
            for reject in rejects:
                self._note(reject)
        self._points += sum(batch.points for batch in put_back) - removed

    def skip(self, ids: Collection[int], points: int) -> bool:
        """Leave out batches of so many points together that are settled but cannot be removed now.

        Removing needs room on the disk as well. They are remembered in memory only, and the next change
        removes them. Returns False where there are too many of them already.
        """
        if len(self._skipped) + len(ids) > _SKIPPED:
            return False
        self._skipped.update(ids)
        self._points -= points
        return True

    def rejects(self) -> Mapping[tuple[str, str, str], tuple[int, list[str]]]:
        """Return what was refused: (measurement, field, reason) -> number of points and some of the lines.

        Raises:
            StoreError: they could not be read.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT measurement, field, reason, points, examples FROM rejects"
            ).fetchall()
        return {(m, f, r): (points, examples.split("\n")) for m, f, r, points, examples in rows}

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in where that is possible."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, where: str = "") -> Iterator[tuple[int, Batch]]:
        for key, lines, points, first, last, boot_id, offset in self._db.execute(
            "SELECT id, lines, points, first_time, last_time, boot_id, boot_offset FROM batches"
            f" {where} ORDER BY id"
        ):
            if key not in self._skipped:
                undated = None if boot_id is None else Undated(boot_id, offset)
                yield key, Batch(lines, points, first, last, undated)

    def _delete(self, ids: Collection[int]) -> int:
        removed = 0
        for key in ids:
            row = self._db.execute("DELETE FROM batches WHERE id = ? RETURNING points", (key,)).fetchone()
            removed += row[0] if row else 0
        return removed

    def _insert(self, batches: Sequence[Batch]) -> None:
        self._db.executemany(
            "INSERT INTO batches (first_time, last_time, points, lines, boot_id, boot_offset)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    batch.first_time,
                    batch.last_time,
                    batch.points,
                    batch.data,
                    batch.undated.boot_id if batch.undated else None,
                    batch.undated.offset if batch.undated else None,
                )
                for batch in batches
            ],
        )

    def _enforce(self, now: float | None) -> int:
        dropped = 0
        if now is not None:
            for (points,) in self._db.execute(
                "DELETE FROM batches WHERE last_time < ? AND boot_id IS NULL RETURNING points",
                (now - self._max_age_s,),
            ).fetchall():
                dropped += points
        while self._live_bytes() > self._max_bytes:
            row = self._db.execute(
                "DELETE FROM batches WHERE id = (SELECT min(id) FROM batches) RETURNING points"
            ).fetchone()
            if row is None:
                break
            dropped += row[0]
        return dropped

    def _live_bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _note(self, reject: Reject) -> None:
        key = (reject.measurement[:_NAME_LENGTH], reject.field[:_NAME_LENGTH], reject.reason[:_NAME_LENGTH])
        find = "SELECT points, examples FROM rejects WHERE (measurement, field, reason) = (?, ?, ?)"
        known = self._db.execute(find, key).fetchone()
        (groups,) = self._db.execute("SELECT count(*) FROM rejects").fetchone()
        if known is None and groups >= _REJECT_GROUPS - 1:
            key = ("", "", "other reasons, more than are kept apart")
            known = self._db.execute(find, key).fetchone()
        points, examples = (known[0], known[1].split("\n")) if known else (0, [])
        examples += [line[:_EXAMPLE_LENGTH] for line in reject.lines[: max(_EXAMPLES - len(examples), 0)]]
        self._db.execute(
            "INSERT OR REPLACE INTO rejects (measurement, field, reason, points, examples)"
            " VALUES (?, ?, ?, ?, ?)",
            (*key, points + len(reject.lines), "\n".join(examples)),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._delete(self._skipped)
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # After some errors (a full disk) SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        self._skipped.clear()

    def _errors(self) -> AbstractContextManager[None]:
        return told_apart(self.path)


@contextmanager
def told_apart(path: Path) -> Iterator[None]:
    """Tell the errors of SQLite apart: to be set aside, to be tried again, our own bugs.

    Raises:
        StoreUnavailableError: the file cannot be used now.
        StoreUnusableError: the file is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if primary in _DAMAGED:
            raise StoreUnusableError(f"{path} is damaged: {error}") from error
        if primary in _UNAVAILABLE:
            raise StoreUnavailableError(f"{path}: {error}") from error
        raise
    except (TypeError, UnicodeDecodeError) as error:
        # A column that holds something else than we wrote, or a message that quotes rubbish.
        raise StoreUnusableError(f"{path} is damaged: {error}") from error


def set_aside(path: Path) -> Path:
    """Rename a store that cannot be used, with its log, and return its new name; an earlier one is replaced.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = path.with_name(path.name + ".set-aside")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        target = aside.with_name(aside.name + suffix)
        if part.exists():
            part.replace(target)
        else:
            target.unlink(missing_ok=True)
    return aside
