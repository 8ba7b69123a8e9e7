"""Writes the dashboards that a Grafana database holds as JSON files, as Grafana itself imports them.

usage: grafana_dashboards.py DATABASE FOLDER

Its own table up to Grafana 12 is `dashboard`; later ones keep them in `resource`, wrapped. Prints the files.
"""

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

QUERIES = {
    "dashboard": "SELECT uid, data FROM dashboard WHERE NOT is_folder",
    "resource": "SELECT name, value FROM resource WHERE resource = 'dashboards'",
}


def dashboards(database: sqlite3.Connection) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each dashboard with its uid."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, query in QUERIES.items():
        if table in tables:
            for uid, text in database.execute(query):
                value = json.loads(text)
                yield uid, value.get("spec", value)


def main() -> None:
    """Write the files."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    if not source.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=30)) as database:
        for uid, dashboard in dashboards(database):
            # An id belongs to the database it comes from; with the uid alone it can be imported anywhere.
            dashboard["id"] = None
            title = re.sub(r"[^a-z0-9]+", "-", str(dashboard.get("title", "")).lower()).strip("-")
            file = folder / f"{title or 'dashboard'}-{re.sub(r'[^A-Za-z0-9_-]', '_', uid)}.json"
            file.write_text(json.dumps(dashboard, indent=2) + "\n", encoding="utf-8")
            sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
