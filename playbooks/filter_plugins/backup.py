"""What playbooks/backup.yml and the restore role ask of a backup: checksums of files, numbers of points."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
"""Of the manifest; a later one is refused by what knows this one only."""

Measurements = dict[str, dict[str, Any]]
"""Measurement -> {"field": counted, "newest_ns": time of its newest point, "points": how many up to then}."""

NO_QUESTION = "SHOW MEASUREMENTS"
"""Asked where there is nothing to ask for: an empty query would be refused."""


def folder_checksums(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder by its path there, without the manifest.

    A folder that is not there has no files.
    """
    top = Path(folder)
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink() and path != top / MANIFEST:
            with path.open("rb") as file:
                found[path.relative_to(top).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def backup_faults(folder: str) -> list[str]:
    """Return what is wrong with a backup: none when it is as it was made."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        form, wanted = manifest["format"], manifest["files"]
    except FileNotFoundError:
        return [f"it has no {MANIFEST}: it was never finished, or it is no backup"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"its {MANIFEST} cannot be read ({error!r})"]
    if form != FORMAT:
        return [f"its {MANIFEST} has format {form}, and this version reads format {FORMAT}"]
    there = folder_checksums(folder)
    return (
        [f"{path} is missing" for path in wanted if path not in there]
        + [f"{path} was changed" for path in wanted if path in there and there[path] != wanted[path]]
        + [f"{path} does not belong to it" for path in there if path not in wanted]
    )


def whole_backups(folder: str) -> list[str]:
    """Return a site's backups, oldest first: their names are times. An unfinished one has no manifest."""
    return sorted(str(path.parent) for path in Path(folder).glob(f"2*Z/{MANIFEST}"))


def backup_points(folder: str) -> int:
    """Return how many points a backup has by its manifest; 0 where that does not tell."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        return sum(one["points"] for one in manifest["measurements"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def fullest_backup(folders: Sequence[str]) -> str:
    """Return the backup with the most points, of equals the newest; empty where there is none.

    Args:
        folders: oldest first.
    """
    return max(reversed(folders), key=backup_points, default="")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _series(answer: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the series of each statement.

    Raises:
        ValueError: the database refused one.
    """
    results = answer["results"]
    for result in results:
        if "error" in result:
            raise ValueError(f"InfluxDB: {result['error']}")
    return [result.get("series", []) for result in results]


def answered(result: Mapping[str, Any]) -> bool:
    """Return whether the database answered: a refusal may be a 200 with "error" in its body.

    Args:
        result: of the task that asked; one that was skipped has no status.
    """
    results = (
        result["json"]["results"] if result.get("status") == 200 and "json" in result else [{"error": ""}]
    )
    return not any("error" in one for one in results)


def _fields(field_keys: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the fields of each measurement.

    Args:
        field_keys: the answer to SHOW FIELD KEYS.
    """
    (keys,) = _series(field_keys)
    return {series["name"]: sorted({key for key, _ in series["values"]}) for series in keys}


def recent_query(field_keys: Mapping[str, Any]) -> str:
    """Return the query for the newest point of each measurement that has one of late.

    Without a bound the server opens each field in each week of its history. The bound is from below alone: a
    wrong clock leaves points in the future.

    Args:
        field_keys: the answer to SHOW FIELD KEYS.
    """
    statement = "SELECT * FROM {} WHERE time > now() - 30d ORDER BY time DESC LIMIT 1"
    return "; ".join(statement.format(_quoted(name)) for name in _fields(field_keys)) or NO_QUESTION


def older_query(field_keys: Mapping[str, Any], recent: Measurements) -> str:
    """Return the query for the newest points of the other measurements, field by field, however old they are.

    Args:
        field_keys: the answer to SHOW FIELD KEYS.
        recent: what the answer to `recent_query` told.
    """
    statements = [
        f"SELECT {_quoted(field)} FROM {_quoted(name)} ORDER BY time DESC LIMIT 1"
        for name, fields in _fields(field_keys).items()
        if name not in recent
        for field in fields
    ]
    return "; ".join(statements) or NO_QUESTION


def newest_points(answer: Mapping[str, Any], field_keys: Mapping[str, Any]) -> Measurements:
    """Return for each measurement of an answer its newest time and a field of that point.

    Args:
        answer: to `recent_query`, to `older_query` or to both, with times in ns.
        field_keys: the answer to SHOW FIELD KEYS.
    """
    fields = _fields(field_keys)
    found: Measurements = {}
    for all_series in _series(answer):
        for series in all_series:
            # Columns without a value come from other points of the measurement; tags are columns, too.
            row = dict(zip(series["columns"], series["values"][0], strict=True))
            there = [name for name in fields.get(series["name"], ()) if row.get(name) is not None]
            known = found.get(series["name"])
            if there and (known is None or int(row["time"]) > known["newest_ns"]):
                found[series["name"]] = {"field": there[0], "newest_ns": int(row["time"])}
    return found


def points_query(measurements: Measurements) -> str:
    """Return the query that counts the points up to the newest time, and asks whether that one is there."""
    both = "SELECT count({field}) FROM {name} WHERE {until}; SELECT last({field}) FROM {name} WHERE {until}"
    statements = [
        both.format(field=_quoted(one["field"]), name=_quoted(name), until=f"time <= {one['newest_ns']}")
        for name, one in measurements.items()
    ]
    return "; ".join(statements) or NO_QUESTION


def counted_points(answer: Mapping[str, Any], measurements: Measurements) -> Measurements:
    """Return what the database holds of these measurements, up to their newest times.

    Args:
        answer: to `points_query`, with times in ns.
        measurements: what was asked for; what is not there any more has 0 points.
    """
    results = iter(_series(answer))
    found: Measurements = {}
    for name, one in measurements.items():
        counts, lasts = next(results), next(results)
        found[name] = {
            "field": one["field"],
            "newest_ns": int(lasts[0]["values"][0][0]) if lasts else 0,
            "points": int(counts[0]["values"][0][1]) if counts else 0,
        }
    return found


def points_lost(found: Measurements, wanted: Measurements) -> list[str]:
    """Return what the database lacks of what the backup's manifest says.

    More points are no loss: the collector may have delivered older ones between the count and the copy.
    """
    lost = []
    for name, one in wanted.items():
        here = found.get(name, {"points": 0, "newest_ns": 0})
        if here["points"] < one["points"] or here["newest_ns"] != one["newest_ns"]:
            lost.append(
                f"{name}: {here['points']} points of {one['points']}, "
                f"the newest of {utc(here['newest_ns'])} instead of {utc(one['newest_ns'])}"
            )
    return lost


def newest_ns(measurements: Measurements) -> int:
    """Return the time of the newest point of all, 0 where there is none."""
    return max((int(one["newest_ns"]) for one in measurements.values()), default=0)


def utc(ns: int) -> str:
    """Return a time (ns since 1970) as people read it."""
    return datetime.fromtimestamp(int(ns) // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def checksums_differing(these: Mapping[str, str], those: Mapping[str, str]) -> list[str]:
    """Return the files that are in both folders and are not the same."""
    return sorted(path for path in these if path in those and these[path] != those[path])


def _release(version: str) -> list[int]:
    """Return the numbers of a Debian package's version, without epoch and what follows the release."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return [int(number) for number in found[1].split(".")] if found else []


def servers_older(here: Mapping[str, str], backed_up: Mapping[str, str]) -> list[str]:
    """Return the packages that are older here (package -> version) than those that wrote the backup."""
    return [
        f"{package} {here[package]} instead of {version}"
        for package, version in backed_up.items()
        if package in here and _release(here[package]) < _release(version)
    ]


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {
            "answered": answered,
            "backup_faults": backup_faults,
            "backup_points": backup_points,
            "checksums_differing": checksums_differing,
            "counted_points": counted_points,
            "folder_checksums": folder_checksums,
            "fullest_backup": fullest_backup,
            "newest_ns": newest_ns,
            "newest_points": newest_points,
            "ns_to_utc": utc,
            "older_query": older_query,
            "points_lost": points_lost,
            "points_query": points_query,
            "recent_query": recent_query,
            "servers_older": servers_older,
            "whole_backups": whole_backups,
        }
