"""What a backup is judged by: checksums of its files, numbers and times of its points."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
NS = 10**9
FIELD_KEYS = {
    "results": [
        {
            "series": [
                {
                    "name": "mate3s",
                    "columns": ["fieldKey", "fieldType"],
                    "values": [["Power Usage", "integer"]],
                },
                {
                    "name": 'odd "name"',
                    "columns": ["fieldKey", "fieldType"],
                    "values": [["a", "float"], ["b", "float"]],
                },
            ]
        }
    ]
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backup", TOP / "playbooks/filter_plugins/backup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def backup() -> ModuleType:
    return load()


@pytest.fixture
def folder(backup: ModuleType, tmp_path: Path) -> Path:
    """A whole backup."""
    top = tmp_path / "backup"
    for name, text in (("influxdb/engine/1.tsm", "points"), ("influxdb/influxd.bolt", "tokens")):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    write_manifest(top, files=backup.folder_checksums(str(top)))
    return top


def write_manifest(folder: Path, **values: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": 1, **values}))


def test_a_backup_as_it_was_made_has_no_fault(backup: ModuleType, folder: Path) -> None:
    assert backup.backup_faults(str(folder)) == []


def test_each_damage_is_named_with_its_file(backup: ModuleType, folder: Path) -> None:
    (folder / "influxdb/influxd.bolt").write_text("tokenz")
    (folder / "influxdb/engine/1.tsm").rename(folder / "influxdb/engine/2.tsm")
    assert backup.backup_faults(str(folder)) == [
        "influxdb/engine/1.tsm is missing",
        "influxdb/influxd.bolt was changed",
        "influxdb/engine/2.tsm does not belong to it",
    ]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "it was never finished, or it is no backup"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 1}', "cannot be read"),
        ('{"format": 2, "files": {}}', "has format 2, and this version reads format 1"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_fault(
    backup: ModuleType, folder: Path, manifest: str | None, said: str
) -> None:
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    (fault,) = backup.backup_faults(str(folder))
    assert said in fault


def test_backups_are_those_that_were_finished_oldest_first(backup: ModuleType, tmp_path: Path) -> None:
    names = ["2026-11-29T17-32-14Z", "2026-02-01T00-00-00Z", "unfinished"]
    for name in names:
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name)
    (tmp_path / "2027-01-01T00-00-00Z").mkdir()
    assert backup.whole_backups(str(tmp_path)) == [str(tmp_path / names[1]), str(tmp_path / names[0])]
    assert backup.whole_backups(str(tmp_path / "none")) == []


def test_the_fullest_backup_is_the_newest_of_those_with_the_most_points(
    backup: ModuleType, tmp_path: Path
) -> None:
    folders = []
    for name, points in {"1": 7, "2": 9, "3": 9, "4": 8}.items():
        (tmp_path / name).mkdir()
        write_manifest(
            tmp_path / name, measurements={"mate3s": {"points": points - 1}, "other": {"points": 1}}
        )
        folders.append(str(tmp_path / name))
    assert backup.fullest_backup(folders) == folders[2]
    assert backup.backup_points(folders[2]) == 9
    (tmp_path / "3/manifest.json").write_text("[torn")
    (tmp_path / "4/manifest.json").write_text("[]")
    assert backup.fullest_backup(folders) == folders[1]
    assert backup.fullest_backup([]) == ""


def test_only_files_of_both_folders_can_differ(backup: ModuleType) -> None:
    assert backup.checksums_differing({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["b"]


def newest_answer() -> dict[str, Any]:
    rows = [
        {"series": [{"name": "mate3s", "columns": ["time", "Power Usage"], "values": [[5 * NS, 3]]}]},
        # A tag, a field of other points, and one of this point.
        {
            "series": [
                {
                    "name": 'odd "name"',
                    "columns": ["time", "a", "b", "device"],
                    "values": [[7 * NS, None, 0.0, "x"]],
                }
            ]
        },
    ]
    return {"results": rows}


def test_what_is_asked_of_each_measurement(backup: ModuleType) -> None:
    bounded = (
        "WHERE time > now() - 30d ORDER BY time DESC LIMIT 1"  # not from above: clocks may have been wrong
    )
    assert backup.recent_query(FIELD_KEYS) == (
        f'SELECT * FROM "mate3s" {bounded}; SELECT * FROM "odd \\"name\\"" {bounded}'
    )
    newest = backup.newest_points(newest_answer(), FIELD_KEYS)
    assert newest == {
        "mate3s": {"field": "Power Usage", "newest_ns": 5 * NS},
        'odd "name"': {"field": "b", "newest_ns": 7 * NS},
    }
    assert backup.newest_ns(newest) == 7 * NS
    first = (
        'SELECT count("Power Usage") FROM "mate3s" WHERE time <= 5000000000; SELECT last("Power Usage") FROM'
    )
    assert backup.points_query(newest).startswith(first)


def test_what_has_no_point_of_late_is_asked_for_without_a_bound_field_by_field(backup: ModuleType) -> None:
    recent = backup.newest_points({"results": newest_answer()["results"][:1]}, FIELD_KEYS)
    assert backup.older_query(FIELD_KEYS, recent) == (
        'SELECT "a" FROM "odd \\"name\\"" ORDER BY time DESC LIMIT 1; SELECT "b" FROM "odd \\"name\\"" ORDER BY time DESC LIMIT 1'
    )
    times = {"a": [3 * NS, 1.0], "b": [4 * NS, 2.0]}
    answer = [
        {"series": [{"name": 'odd "name"', "columns": ["time", f], "values": [v]}]} for f, v in times.items()
    ]
    for results in (answer, answer[::-1]):
        older = backup.newest_points({"results": results}, FIELD_KEYS)
        assert older == {'odd "name"': {"field": "b", "newest_ns": 4 * NS}}
    assert backup.older_query(FIELD_KEYS, recent | older) == "SHOW MEASUREMENTS"


@pytest.mark.parametrize(
    ("result", "answered"),
    [
        ({"status": 200, "json": {"results": [{}, {"series": []}]}}, True),
        ({"status": 200, "json": {"results": [{}, {"error": "timeout"}]}}, False),
        ({"status": 200, "content": "another program's page"}, False),
        ({"status": 401, "json": {"code": "unauthorized"}}, False),
        ({"status": -1}, False),
        ({"skipped": True}, False),
    ],
)
def test_an_answer_is_a_200_without_an_error_in_it(
    backup: ModuleType, result: dict[str, Any], answered: bool
) -> None:
    assert backup.answered(result) == answered


def test_an_empty_database_has_nothing_to_ask_for_and_nothing_to_lose(backup: ModuleType) -> None:
    empty: dict[str, Any] = {"results": [{}]}
    asked = {backup.recent_query(empty), backup.older_query(empty, {}), backup.points_query({})}
    assert asked == {"SHOW MEASUREMENTS"}
    assert backup.newest_points(empty, empty) == backup.counted_points(empty, {}) == {}
    assert backup.newest_ns({}) == 0
    assert backup.points_lost({}, {}) == []


def test_a_refused_statement_is_not_taken_for_an_empty_answer(backup: ModuleType) -> None:
    with pytest.raises(ValueError, match="insufficient permissions"):
        backup.recent_query({"results": [{"error": "insufficient permissions"}]})


def wanted(**of_mate3s: int) -> dict[str, dict[str, Any]]:
    return {"mate3s": {"field": "Power Usage", "newest_ns": 5 * NS, "points": 10, **of_mate3s}}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([(5, 10)], None),
        ([(5, 11)], None),
        ([(5, 9)], "mate3s: 9 points of 10, the newest of 1970-01-01T00:00:05Z"),
        ([(4, 10)], "the newest of 1970-01-01T00:00:04Z instead of 1970-01-01T00:00:05Z"),
        ([None], "mate3s: 0 points of 10"),
    ],
)
def test_fewer_points_or_an_older_newest_one_is_a_loss(
    backup: ModuleType, answer: list[tuple[int, int] | None], said: str | None
) -> None:
    results: list[dict[str, Any]] = []
    for one in answer:
        for value in () if one is None else ([0, one[1]], [one[0] * NS, 1]):
            results.append({"series": [{"name": "mate3s", "columns": ["time", "x"], "values": [value]}]})
        if one is None:
            results += [{}, {}]
    lost = backup.points_lost(backup.counted_points({"results": results}, wanted()), wanted())
    assert (said is None) == (lost == [])
    assert said is None or said in lost[0]


@pytest.mark.parametrize(
    ("here", "there", "older"),
    [
        ("2.9.1", "2.9.1", False),
        ("2.9.1-1", "2.9.1+substitute", False),
        ("2.10.0", "2.9.1", False),
        ("2.9.1", "2.10.0", True),
        ("13.0.1", "1:13.1.0", True),
    ],
)
def test_a_server_that_is_older_than_the_backup_s_is_named(
    backup: ModuleType, here: str, there: str, older: bool
) -> None:
    found = backup.servers_older({"influxdb2": here}, {"influxdb2": there, "grafana": "13.0.0"})
    assert found == ([f"influxdb2 {here} instead of {there}"] if older else [])
