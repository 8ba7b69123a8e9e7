"""Copies SQLite databases that are in use, by SQLite's own backup call.

usage: copy_sqlite.py FROM TO [FROM TO]...

A database that is not there is passed over; what was copied is printed.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def copy(source: Path, target: Path) -> None:
    """Copy one database; its writers go on meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    address = f"{source.absolute().as_uri()}?mode=rw"  # never makes one
    with (
        closing(sqlite3.connect(address, uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def main() -> None:
    """Copy each pair."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    for source, target in zip(paths[::2], paths[1::2], strict=True):
        if source.exists():
            try:
                copy(source, target)
            except sqlite3.Error as error:
                sys.exit(f"{source}: {error}")
            sys.stdout.write(f"{source}\n")


if __name__ == "__main__":
    main()
