"""The two small programs that a backup runs on the Pi: SQLite databases are copied in use, old dashboards are kept."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOP / "playbooks/files" / program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_database_in_use_is_copied_with_what_is_in_its_log_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE batches (id INTEGER)")
    database.execute("INSERT INTO batches VALUES (7)")
    assert (tmp_path / "store.sqlite-wal").stat().st_size > 0
    copy = tmp_path / "copies" / "store.sqlite"
    done = run(
        "copy_sqlite.py", tmp_path / "store.sqlite", copy, tmp_path / "none", tmp_path / "copies" / "none"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "store.sqlite")]
    assert sqlite3.connect(copy).execute("SELECT id FROM batches").fetchall() == [(7,)]
    assert not (tmp_path / "copies" / "none").exists()
    assert not (tmp_path / "none").exists()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "grafana.db").write_text("no database" * 1000)
    done = run("copy_sqlite.py", tmp_path / "grafana.db", tmp_path / "copy.db")
    assert done.returncode != 0
    assert str(tmp_path / "grafana.db") in done.stderr


def test_dashboards_are_kept_as_grafana_imports_them(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "grafana.db")
    database.executescript(
        """CREATE TABLE dashboard (id INTEGER, uid TEXT, data TEXT, is_folder INTEGER);
        INSERT INTO dashboard VALUES (3, 'abc', '{"id": 3, "uid": "abc", "title": "Power Room"}', 0);
        INSERT INTO dashboard VALUES (4, 'dir', '{"title": "A folder"}', 1);
        CREATE TABLE resource (name TEXT, resource TEXT, value TEXT);
        INSERT INTO resource VALUES ('x/y', 'dashboards', '{"metadata": {}, "spec": {"title": "Newer"}}');
        INSERT INTO resource VALUES ('z', 'folders', '{"spec": {"title": "Another folder"}}');"""
    )
    database.commit()
    done = run("grafana_dashboards.py", tmp_path / "grafana.db", tmp_path / "dashboards")
    assert done.returncode == 0, done.stderr
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "dashboards").iterdir()}
    assert found == {
        "power-room-abc.json": {"id": None, "uid": "abc", "title": "Power Room"},
        "newer-x_y.json": {"id": None, "title": "Newer"},
    }


def test_a_pi_without_grafana_has_no_dashboards(tmp_path: Path) -> None:
    assert run("grafana_dashboards.py", tmp_path / "none.db", tmp_path / "dashboards").returncode == 0
    assert list(tmp_path.iterdir()) == []
