"""`export` from outside: what comes out of a store, who uses it meanwhile, what is said of a bad one."""

from __future__ import annotations

import csv
import io
import os
import resource
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from power_collector import export
from power_collector.batch import Batch
from power_collector.cli import main
from power_collector.contract import Point
from power_collector.store import Store

NOW = 1_764_000_000  # 2025-11-24T16:00:00Z

POINTS = [
    Point("mate3s", {}, {"Inverter Current": -3, "Battery Voltage": 53.2}, NOW),
    Point("device_status", {"device": "sc1", "driver": "tristar-mppt"}, {"up": 1, "response_ms": 21.5}, NOW),
    Point("solar_charger_total", {}, {"power_kw": 0.0}, NOW + 15),
]


@pytest.fixture
def config_path(make_config, tmp_path) -> str:
    make_config(1)
    return str(tmp_path / "config.toml")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, max_mb=300, max_age_days=3000) as opened:
        yield opened


@pytest.fixture
def run(config_path, capsys) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["export", "--config", config_path, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def lines(*times: int) -> list[str]:
    return [f"m,device=a f=1.5 {time}" for time in times]


def pack(*times: int) -> Batch:
    return Batch.pack(lines(*times), NOW)


def test_line_protocol_is_what_was_stored(store, run) -> None:
    stored = [point.to_line() for point in POINTS]
    store.add([Batch.pack(stored, NOW)], now=NOW)
    store.close()
    assert run() == (0, "\n".join(stored) + "\n", "")


def test_csv_has_a_row_a_value(store, run) -> None:
    store.add([Batch.pack([point.to_line() for point in POINTS], NOW)], now=NOW)
    store.close()
    code, out, err = run("--format", "csv")
    assert (code, err) == (0, "")
    assert list(csv.reader(io.StringIO(out))) == [
        ["time", "measurement", "tags", "field", "value"],
        ["2025-11-24T16:00:00Z", "mate3s", "", "Inverter Current", "-3"],
        ["2025-11-24T16:00:00Z", "mate3s", "", "Battery Voltage", "53.2"],
        ["2025-11-24T16:00:00Z", "device_status", "device=sc1;driver=tristar-mppt", "up", "1"],
        ["2025-11-24T16:00:00Z", "device_status", "device=sc1;driver=tristar-mppt", "response_ms", "21.5"],
        ["2025-11-24T16:00:15Z", "solar_charger_total", "", "power_kw", "0.0"],
    ]


def test_the_help_says_what_the_columns_are(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "time, measurement, tags, field, value" in said
    assert "UTC" in said
    assert "precision s" in said


def test_the_oldest_comes_first_also_where_it_was_put_back_last(store, run) -> None:
    store.add([pack(NOW + 15), pack(NOW + 30)], now=NOW)
    store.settle([], put_back=[pack(NOW)])
    assert run()[1].split("\n")[:-1] == lines(NOW, NOW + 15, NOW + 30)


def test_the_service_goes_on_with_a_store_that_is_being_read(store, path) -> None:
    store.add([pack(NOW + n) for n in range(4)], now=NOW)
    reading = export.batches(path)
    first, batch = next(reading)
    assert batch.lines() == lines(NOW)
    # Forwarded, stored and put back meanwhile, and the log folded in although somebody reads.
    store.settle([first, first + 1], put_back=[pack(NOW + 1)])
    store.add([pack(NOW + 60)], now=NOW)
    with closing(sqlite3.connect(path)) as other:
        busy, log, folded = other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    assert busy == 0
    assert log == folded
    rest = [line for _, batch in reading for line in batch.lines()]
    assert rest == lines(NOW + 2, NOW + 3, NOW + 1, NOW + 60)


def test_nothing_is_written_to_the_store(store, path, run) -> None:
    store.add([pack(NOW)], now=NOW)
    store.close()
    before = path.read_bytes()
    assert run()[0] == 0
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves files that the service could not open")
def test_what_root_reads_stays_the_services_own(store, path, run) -> None:
    store.add([pack(NOW)], now=NOW)
    store.close()
    os.chown(path, 65534, 65534)
    assert run()[0] == 0
    assert {part.stat().st_uid for part in path.parent.glob("store.sqlite*")} == {65534}


def test_a_store_of_the_first_version_is_read(path, run) -> None:
    """Its tables as they were: they stay here when the store's version is raised."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE batches (id INTEGER PRIMARY KEY AUTOINCREMENT, first_time INTEGER NOT NULL,"
            " last_time INTEGER NOT NULL, points INTEGER NOT NULL, lines BLOB NOT NULL);"
            "PRAGMA user_version=1;"
        )
        database.execute("INSERT INTO batches VALUES (7, ?, ?, 1, ?)", (NOW, NOW, pack(NOW).data))
        database.commit()
    assert run() == (0, lines(NOW)[0] + "\n", "")


@pytest.mark.parametrize("form", ["lp", "csv"])
def test_an_empty_store_and_one_in_the_making_hold_nothing(path, run, form) -> None:
    head = "" if form == "lp" else "time,measurement,tags,field,value\n"
    path.touch()
    assert run("--format", form) == (0, head, "")
    path.unlink()
    Store(path, max_mb=1, max_age_days=1).close()
    assert run("--format", form) == (0, head, "")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=99")


def strange(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE addresses (name TEXT)")


def rubbish(path: Path) -> None:
    path.write_bytes(b"this is no database at all, but long enough to be one" * 100)


@pytest.mark.parametrize(
    ("make", "cause", "remedy"),
    [
        (lambda path: None, "does not exist", "[store] path"),
        (rubbish, "is damaged", ".recover"),
        (newer, "is of version 99, newer than", "as new as its writer"),
        (strange, "another program's", "[store] path"),
        (Path.mkdir, "store.sqlite: ", "sudo"),
    ],
    ids=["missing", "damaged", "newer", "strange", "unreadable"],
)
@pytest.mark.parametrize("form", ["lp", "csv"])
def test_a_store_that_cannot_be_read_is_one_line_with_cause_and_remedy(
    path, run, make, cause, remedy, form
) -> None:
    make(path)
    code, out, err = run("--format", form)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert str(path) in err
    assert cause in err
    assert remedy in err


def test_a_bad_configuration_exits_2(capsys, tmp_path) -> None:
    assert main(["export", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_damaged_row_is_named_and_the_others_come_out(store, run) -> None:
    store.add([pack(NOW), Batch(b"rubbish", 7, NOW + 1, NOW + 1), pack(NOW + 2)], now=NOW)
    code, out, err = run()
    assert (code, out.splitlines()) == (1, lines(NOW, NOW + 2))
    assert "row 2: a damaged batch of 7 points" in err
    assert err.count("\n") == 1


def test_a_page_damaged_in_the_middle_ends_it_with_one_line(path, run) -> None:
    with Store(path, max_mb=100, max_age_days=3000) as store:
        filler = [f"m{os.urandom(4000).hex()} f=1 {NOW}"]
        store.add([Batch.pack(filler, NOW) for _ in range(100)], now=NOW)
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 60] = b"\xff" * (4096 * 57)
    path.write_bytes(content)
    code, _, err = run()
    assert code == 1
    assert err.count("\n") == 1
    assert "damaged" in err


def test_a_line_that_is_no_point_of_ours_is_left_out_of_the_csv_alone(store, run) -> None:
    store.add([Batch.pack([*lines(NOW), 'm text="a" 1', *lines(NOW + 1)], NOW)], now=NOW)
    assert run()[0] == 0
    code, out, err = run("--format", "csv")
    assert code == 1
    assert [row[0] for row in csv.reader(io.StringIO(out))][1:] == [
        "2025-11-24T16:00:00Z",
        "2025-11-24T16:00:01Z",
    ]
    assert "--format lp shows it" in err


def fill(store: Store, rows: int) -> int:
    """Return how many bytes of line protocol it holds."""
    text = [f"m,filler={os.urandom(20).hex()} f={n}.5 {NOW}" for n in range(200)]
    store.add([Batch.pack(text, NOW)] * rows, now=NOW)
    return sum(len(line) + 1 for line in text) * rows


@pytest.mark.parametrize(("form", "rows"), [("lp", 4000), ("csv", 220)])
def test_memory_stays_bounded_however_large_the_store(store, path, form, rows) -> None:
    held = fill(store, rows)

    class Sink(io.TextIOBase):
        written = 0

        def write(self, text: str) -> int:
            self.written += len(text)
            return len(text)

    sink = Sink()
    tracemalloc.start()
    try:
        assert export.write(path, form, sink, pytest.fail)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.written >= held
    assert peak < 400_000 < held / 5


def export_command(config_path: str) -> list[str]:
    return [sys.executable, "-m", "power_collector", "export", "--config", config_path]


def test_a_reader_that_has_seen_enough_is_no_fault(store, config_path) -> None:
    fill(store, 500)
    with subprocess.Popen(
        export_command(config_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("m,filler=")
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")


def test_a_full_disk_behind_the_output_is_said(store, config_path, tmp_path) -> None:
    fill(store, 500)
    with (tmp_path / "out").open("w") as out:
        process = subprocess.run(
            export_command(config_path),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            # The nearest to a full disk that needs no mount.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        )
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert "standard output does not take it" in process.stderr
