"""What the local store holds, for other programs: line protocol or a flat table (CSV), oldest first.

The store is opened for reading alone and never held: the service goes on with it, and neither a slow reader
nor a large store makes its write-ahead log grow.
"""

from __future__ import annotations

import csv
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from power_collector import line_protocol
from power_collector.batch import Batch
from power_collector.store import VERSION, StoreUnavailableError, StoreUnusableError, told_apart

COLUMNS = ("time", "measurement", "tags", "field", "value")
"""The head of the CSV."""

DESCRIPTION = f"""Print what the local store holds, oldest first: what InfluxDB does not have yet, or without
[influxdb] everything. The service may run meanwhile; what it holds in memory (the last minute) is not in the
store, and what it hands over while this runs is left out. What waits to learn its time has the machine's,
and clock_source=0. lp is InfluxDB's line protocol with times in seconds, as `influx write --precision s`
takes it. csv has one row a value and the columns {", ".join(COLUMNS)}: the time is ISO 8601 in
UTC, the tags are name=value pairs with semicolons between them.
Exits 1 where something of the store cannot be read, and says what on standard error."""


class ExportError(Exception):
    """The store as a whole cannot be read; the message names cause and remedy in one line."""


def write(path: Path, form: str, out: TextIO, complain: Callable[[str], None]) -> bool:
    """Write the store's points to `out`, `form` "lp" or "csv"; memory holds one batch at a time.

    What cannot be read of single rows is complained of, one line each; returns whether there was none.

    Raises:
        ExportError: the store as a whole cannot be read.
        OSError: `out` does not take it.
    """
    faults = 0

    def fault(text: str) -> None:
        nonlocal faults
        faults += 1
        complain(text)

    lines = _lines(path, fault)
    if form == "lp":
        for line in lines:
            out.write(f"{line}\n")
    else:
        _write_csv(path, lines, out, fault)
    return faults == 0


def batches(path: Path) -> Iterator[tuple[int, Batch]]:
    """Yield the store's rows, each with its id, ordered by their times.

    Raises:
        ExportError: it is not there, damaged, of a newer version, or no store.
    """
    try:
        if not path.exists():
            raise ExportError(f"{path} does not exist: start the service, or mend [store] path")
        with told_apart(path):
            yield from _rows(path)
    except (StoreUnavailableError, PermissionError) as error:
        raise ExportError(
            f"{error}: use sudo; on a read-only disk, name a copy of it and its -wal as [store] path"
        ) from error
    except StoreUnusableError as error:
        raise ExportError(
            f"{error}: the service will set it aside; `sqlite3 {path} .recover` may save a part of it"
        ) from error


def _rows(path: Path) -> Iterator[tuple[int, Batch]]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)) as db:
        if not _holds_batches(db, path):
            return
        last = 0
        # Each row is found again by its id: no transaction stays open between two of them. What has come in
        # meanwhile makes another round.
        select = "SELECT lines, points, first_time, last_time FROM batches WHERE id = ?"
        while keys := _ids_after(db, last):
            for key in keys:
                row = db.execute(select, (key,)).fetchone()
                if row is not None:
                    yield key, Batch(*row)
            last = max(keys)


def _ids_after(db: sqlite3.Connection, last: int) -> array[int]:
    rows = db.execute("SELECT id FROM batches WHERE id > ? ORDER BY last_time, id", (last,))
    return array("q", (key for (key,) in rows))


def _holds_batches(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether it has the table; a store in the making has no table at all."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ExportError(
            f"{path} is of version {version}, newer than {VERSION}: use a collector as new as its writer"
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if tables and "batches" not in tables:
        raise ExportError(f"{path} is another program's database: mend [store] path")
    return bool(tables)


def _lines(path: Path, fault: Callable[[str], None]) -> Iterator[str]:
    for key, batch in batches(path):
        try:
            lines = batch.lines()
        except ValueError as error:
            fault(f"{path}, row {key}: {error}; it is left out")
        else:
            yield from lines


def _write_csv(path: Path, lines: Iterator[str], out: TextIO, fault: Callable[[str], None]) -> None:
    table = csv.writer(out, lineterminator="\n")
    head: tuple[str, ...] | None = COLUMNS
    for line in lines:
        if head is not None:  # not before the store proved readable
            table.writerow(head)
            head = None
        try:
            point = line_protocol.parse(line)
        except ValueError as error:
            fault(f"{path}: {error}; it is left out, --format lp shows it")
            continue
        time = datetime.fromtimestamp(point.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        tags = ";".join(f"{name}={value}" for name, value in point.tags.items())
        table.writerows(
            (time, point.measurement, tags, field, value) for field, value in point.fields.items()
        )
    if head is not None:
        table.writerow(head)
