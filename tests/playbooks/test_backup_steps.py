"""Single steps of backup and restore, run on this computer in a play of their own: what they keep, refuse and say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from tests.playbooks.test_backup import FIELD_KEYS, NS, backup, folder
from tests.playbooks.test_backup_refusals import SECRET, SITE, finish, program
from tests.playbooks.test_refusals import TOP, run

__all__ = ["backup", "folder"]  # fixtures

Step = Callable[..., tuple[int, str]]
DAY = 86400 * NS


def of_role(name: str) -> dict[str, Any]:
    return {"ansible.builtin.import_role": {"name": "restore", "tasks_from": name}}


def of_playbook(name: str) -> dict[str, Any]:
    return {"ansible.builtin.import_tasks": str(TOP / "playbooks/tasks" / name)}


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Run tasks with variables that no task can change; as in the checkout, the play's folder is one below the top."""

    def play(
        *tasks: dict[str, Any], programs: Path | None = None, facts: bool = False, **variables: Any
    ) -> tuple[int, str]:
        names = ("secrets", "rsync", "backup")
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": facts,
            "gather_subset": ["!all", "!min", "distribution", "platform"],
            "vars_files": [str(TOP / f"playbooks/vars/{name}.yml") for name in names],
            "tasks": list(tasks),
        }
        file = tmp_path / "playbooks/play.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump([play]))
        given = {"power_room_site": SITE, "ansible_python_interpreter": sys.executable, **variables}
        return run(
            Path("localhost,"), "-e", json.dumps(given, default=str), playbook=str(file), programs=programs
        )

    return play


# Backup


def test_what_stood_on_cards_is_no_secret_of_the_site(step: Step, tmp_path: Path) -> None:
    partial = tmp_path / "backups" / SITE / "unfinished"
    for file in (partial / "influxdb/influxd.bolt", tmp_path / "secrets" / SITE / SECRET):
        file.parent.mkdir(parents=True)
        file.write_text("a" * 64)
    replaced = tmp_path / "secrets" / SITE / "replaced/20261129T173214/user-data"
    replaced.parent.mkdir(parents=True)
    replaced.write_text("another Wi-Fi password")
    code, output = step(
        of_playbook("backup/finish.yml"),
        facts=True,
        influxdb_organization="Parks Ranch",
        influxdb_bucket="power",
        backup_made_at="2026-11-29T17:32:14Z",
        backup_packages={"stdout": "influxdb2 installed 2.9.1"},
        backup_collector={"rc": 1},
        backup_fields={"status": 401},
        backup_times={
            "stdout": "ActiveExitTimestampMonotonic=1000000\nActiveEnterTimestampMonotonic=2000000"
        },
        preflight_fingerprint={"content": base64.b64encode(b"salt sum").decode()},
    )
    assert code == 0, output
    made = partial.with_name("2026-11-29T17-32-14Z")
    assert [path.name for path in (made / "secrets").iterdir()] == [SECRET]
    files = json.loads((made / "manifest.json").read_text())["files"]
    assert files.keys() == {"influxdb/influxd.bolt", f"secrets/{SECRET}"}
    assert replaced.exists()


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([10, 20, 30], [20, 30]),
        ([30, 30, 30], [30, 30]),
        ([10, 20], [10, 20]),
        # A card that was made without the history; of two old ones the newer.
        ([900, 900, 10, 20], [900, 10, 20]),
        # A database that nobody could count.
        ([10, 20, 0, 0], [20, 0, 0]),
    ],
)
def test_the_last_ones_are_kept_and_never_the_fullest_is_removed(
    step: Step, tmp_path: Path, points: list[int], kept: list[int]
) -> None:
    names = [f"2026-{month:02}-01T00-00-00Z" for month in range(1, len(points) + 1)]
    for name, number in zip(names, points, strict=True):
        made = tmp_path / "backups" / SITE / name
        made.mkdir(parents=True)
        finish(made, measurements={"mate3s": {"points": number}})
    code, output = step(
        of_playbook("backup/rotate.yml"),
        backup_keep=2,
        backup_made_at=names[-1].replace("T00-00-00Z", "T00:00:00Z"),
    )
    assert code == 0, output
    assert [path.name for path in sorted((tmp_path / "backups" / SITE).iterdir())] == names[-len(kept) :]
    said = f"is kept besides the last 2: it has {kept[0]} points, and the one that was made now has {points[-1]}."
    assert (said in output) == (len(kept) > 2), output


# A backup that is left out


def left_out(step: Step, *, database: bool, restore_from: str = "") -> str:
    """As site.yml has it: at its beginning, and at its end."""
    code, output = step(
        *2 * [of_playbook("left_out.yml")],
        restore_from=restore_from,
        left_out_bolt={"stat": {"exists": database}},
        left_out_first="how it is put there",
    )
    assert code == 0, output
    assert " changed=0 " in output
    return output


def test_a_blank_card_beside_a_backup_is_told_at_both_ends(step: Step, tmp_path: Path) -> None:
    folder = tmp_path / "playbooks/backups" / SITE
    assert "ansible-playbook site.yml" not in left_out(step, database=False)
    for name in ("2026-11-29T17-32-14Z", "2026-10-01T00-00-00Z"):
        (folder / name).mkdir(parents=True)
        finish(folder / name)
    (folder / "unfinished").mkdir()
    command = f"ansible-playbook site.yml -e restore_from=backups/{SITE}/2026-11-29T17-32-14Z"
    output = " ".join(left_out(step, database=False).split())
    assert output.count(f"how it is put there: {command}") == 2, output
    assert command not in left_out(step, database=True)
    assert command not in left_out(step, database=False, restore_from="backups/other")


def test_a_fuller_one_than_the_newest_is_named_too(step: Step, tmp_path: Path) -> None:
    for name, points in (("2026-10-01T00-00-00Z", 900), ("2026-11-29T17-32-14Z", 10)):
        made = tmp_path / "playbooks/backups" / SITE / name
        made.mkdir(parents=True)
        finish(made, measurements={"mate3s": {"points": points}})
    output = " ".join(left_out(step, database=False).split())
    said = "2026-11-29T17-32-14Z (the newest; 2026-10-01T00-00-00Z has more points: 900, not 10)"
    assert output.count(said) == 2, output


def test_site_yml_looks_for_one_before_the_roles_and_tells_after_them() -> None:
    play = yaml.safe_load((TOP / "site.yml").read_text())[-1]
    for when in ("pre_tasks", "post_tasks"):
        imported = [task.get("ansible.builtin.import_tasks") for task in play[when]]
        assert imported.count("playbooks/tasks/left_out.yml") == 1, when


def test_after_the_roles_the_remedy_has_room_for_the_backup_made_first() -> None:
    """The collector has written by then, and a backup is not put over newer points."""
    play = yaml.safe_load((TOP / "site.yml").read_text())[-1]
    early, late = (
        task["vars"]["left_out_first"]
        for when in ("pre_tasks", "post_tasks")
        for task in play[when]
        if task.get("ansible.builtin.import_tasks") == "playbooks/tasks/left_out.yml"
    )
    assert "Ctrl-C" in early
    assert "`sudo systemctl stop power influxdb; sudo find /var/lib/influxdb -mindepth 1 -delete`" in late


@pytest.mark.parametrize("state", ["begun", "done", None])
def test_half_of_a_history_is_not_backed_up(step: Step, tmp_path: Path, state: str | None) -> None:
    (tmp_path / "influxdb").mkdir()
    (tmp_path / "influxdb/influxd.bolt").write_text("half of a history")
    mark = tmp_path / "restored"
    if state:
        mark.write_text(f"{state} 1234\n")
    program(tmp_path / "bin", "dpkg-query", "echo influxdb2 installed 2.9.1")
    code, output = step(
        of_playbook("backup/look.yml"),
        programs=tmp_path / "bin",
        __backup_influxdb=tmp_path / "influxdb",
        __backup_restored=mark,
    )
    assert code != 0
    assert ("was begun and not finished" in output) == (state == "begun")
    assert ("has no rsync" in output) == (state != "begun"), output


def test_copies_of_a_backup_whose_laptop_went_away_do_not_stay(step: Step, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    (copies / "grafana").mkdir(parents=True)
    (copies / "grafana/grafana.db").write_text("half of it")
    first, _ = yaml.safe_load((TOP / "playbooks/tasks/backup/databases.yml").read_text())
    code, output = step(first, __backup_copies=copies)
    assert code == 0, output
    assert list(copies.iterdir()) == []
    assert copies.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("state", "refused"),
    [("inactive", False), ("failed", False), ("activating", True), ("active", True)],
)
def test_what_was_copied_while_influxdb_ran_or_started_is_no_backup(
    step: Step, state: str, refused: bool
) -> None:
    whole = yaml.safe_load((TOP / "playbooks/tasks/backup/cold.yml").read_text())
    (block,) = [task["block"] for task in whole if "block" in task]
    (refuse,) = [task for task in block if task["name"].startswith("Refuse")]
    code, output = step(refuse, backup_still={"rc": 0 if state == "active" else 3, "stdout": state})
    assert (code != 0) == refused, output
    assert ("so that this is no backup" in output) == refused


# Restore


@pytest.mark.parametrize(
    ("grafana", "refused"),
    [(None, False), ("13.0.0", False), ("99.0.0", True)],
    ids=["by hand", "ours", "newer than ours"],
)
def test_only_servers_whose_data_is_brought_must_be_as_new(
    step: Step, folder: Path, tmp_path: Path, grafana: str | None, refused: bool
) -> None:
    """A Grafana that was set up by hand is not brought along, however new it is."""
    if grafana:
        (folder / "grafana").mkdir()
        (folder / "grafana/grafana.db").write_text("users")
    finish(folder, versions={"influxdb2": "2.9.1", "grafana": grafana or "99.0.0"})
    installed = "for name; do case $name in influxdb2) echo influxdb2 2.9.1;; grafana) echo grafana 13.0.0;; esac; done"
    program(tmp_path / "bin", "dpkg-query", installed)
    code, output = step(of_role("versions.yml"), programs=tmp_path / "bin", restore_from=folder)
    assert (code != 0) == refused, output
    assert ("grafana 13.0.0 instead of 99.0.0. They cannot read it." in output) == refused


def test_an_older_influxdb_is_refused_without_a_grafana_too(step: Step, folder: Path, tmp_path: Path) -> None:
    finish(folder, versions={"influxdb2": "2.9.1"})
    program(tmp_path / "bin", "dpkg-query", "echo influxdb2 2.8.0")
    code, output = step(of_role("versions.yml"), programs=tmp_path / "bin", restore_from=folder)
    assert code != 0
    assert "influxdb2 2.8.0 instead of 2.9.1. They cannot read it." in output


def test_the_cards_own_readings_are_set_aside_once_and_told(step: Step, folder: Path, tmp_path: Path) -> None:
    finish(folder, made_at="2026-11-29T17:32:14Z", newest="2026-11-29T17:32:00Z", measurements={})
    store = tmp_path / "power-collector"
    store.mkdir()
    names = {"store.sqlite", "store.sqlite-wal", "site.json"}
    for name in names:
        (store / name).write_text(name)
    tasks = [of_role("set_aside.yml"), of_role("set_aside.yml"), of_role("tell.yml")]
    where = {"__restore_store": store, "restore_from": folder, "restore_points": {"skipped": True}}
    code, output = step(*tasks, **where)
    assert code == 0, output
    assert " changed=1 " in output
    assert not store.exists()
    (aside,) = tmp_path.glob("power-collector.before-restore-2*Z")
    assert {path.name: path.read_text() for path in aside.iterdir()} == {name: name for name in names}
    assert f"is in {aside}. How to have its readings delivered" in output
    # A blank card: the folder is there or not, and nothing was kept in it.
    aside.rename(tmp_path / "elsewhere")
    store.mkdir()
    code, output = step(*tasks, **where)
    assert code == 0, output
    assert " changed=0 " in output
    assert "before-restore" not in output


def test_before_a_restore_is_begun_the_collector_and_its_readings_are_out_of_its_way() -> None:
    """Afterwards the store that is there may be the backup's, and a boot must not start what would add to it."""
    tasks = yaml.safe_load((TOP / "roles/restore/tasks/place.yml").read_text())
    (mark,) = [n for n, task in enumerate(tasks) if "begun" in str(task.get("ansible.builtin.copy"))]
    (aside,) = [
        n for n, task in enumerate(tasks) if task.get("ansible.builtin.import_tasks") == "set_aside.yml"
    ]
    (disabled,) = [
        n
        for n, task in enumerate(tasks)
        if task.get("ansible.builtin.systemd_service") == {"name": "power.service", "enabled": False}
    ]
    assert 0 < disabled < mark
    assert 0 < aside < mark
    assert tasks[aside]["when"] == "not __restore_begun"
    running = yaml.safe_load((TOP / "roles/systemd_unit/tasks/main.yml").read_text())
    assert "enabled: true" in yaml.safe_dump(running)


class Influx(HTTPServer):
    """Answers as InfluxDB does for a database with FIELD_KEYS."""

    recent: dict[str, Any] = {}  # noqa: RUF012
    """Measurement -> its newest point of late."""
    older: dict[tuple[str, str], int] = {}  # noqa: RUF012
    """Field and measurement -> time of its newest point, whenever that was."""
    asked: list[str]

    def answer(self, statement: str) -> dict[str, Any]:
        self.asked.append(statement)
        if statement == "SHOW FIELD KEYS":
            return dict(FIELD_KEYS["results"][0])
        for name, point in self.recent.items():
            if f"FROM {name} WHERE time > now() - 30d ORDER BY time DESC LIMIT 1" in statement:
                return point
        for (field, name), time in self.older.items():
            if statement == f'SELECT "{field}" FROM {name} ORDER BY time DESC LIMIT 1':
                return {
                    "series": [
                        {"name": json.loads(name), "columns": ["time", field], "values": [[time, 1.0]]}
                    ]
                }
        return {}


class Handler(BaseHTTPRequestHandler):
    server: Influx

    def say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.say({"allowed": False})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.say({"results": [self.server.answer(statement) for statement in form["q"][0].split("; ")]})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def influx() -> Iterator[Influx]:
    server = Influx(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def at(time: int) -> dict[str, Any]:
    return {"series": [{"name": "mate3s", "columns": ["time", "Power Usage"], "values": [[time, 3]]}]}


def over_a_database(step: Step, folder: Path, influx: Influx, tmp_path: Path) -> tuple[int, str]:
    """Look at a card that has a database, before the backup in `folder` is put there."""
    (tmp_path / "influxdb").mkdir()
    (tmp_path / "influxdb/influxd.bolt").write_text("a database")
    return step(
        of_role("target.yml"),
        restore_from=folder,
        influxdb_bucket="power",
        __influxdb_url=f"http://127.0.0.1:{influx.server_port}",
        __influxdb_headers={},
        __restore_influxdb=tmp_path / "influxdb",
        __restore_mark=tmp_path / "restored",
    )


@pytest.mark.parametrize(
    ("recent", "older", "said"),
    [
        # The backup's newest point is of day 100, when it was made, too.
        ({'"mate3s"': at(99 * DAY)}, {}, None),
        ({'"mate3s"': at(101 * DAY)}, {}, "has points up to 1970-04-12T00:00:00Z"),
        ({}, {("Power Usage", '"mate3s"'): 101 * DAY}, "has points up to 1970-04-12T00:00:00Z"),
        ({}, {("Power Usage", '"mate3s"'): 99 * DAY}, None),
        ({'"mate3s"': {"error": "timeout"}}, {}, "does not tell how new its points are"),
    ],
    ids=["older", "newer", "newer but not of late", "older and not of late", "refused"],
)
def test_a_database_is_asked_for_its_newest_points_of_late_or_ever(
    step: Step,
    folder: Path,
    influx: Influx,
    tmp_path: Path,
    recent: dict[str, Any],
    older: dict[tuple[str, str], int],
    said: str | None,
) -> None:
    influx.recent, influx.older = recent, older
    measurements = {"mate3s": {"field": "Power Usage", "newest_ns": 100 * DAY, "points": 1}}
    finish(folder, measurements=measurements, newest="1970-04-11T00:00:00Z", made_at="1970-04-11T00:00:00Z")
    code, output = over_a_database(step, folder, influx, tmp_path)
    assert (code != 0) == (said is not None), output
    assert said is None or said in output
    asked_again = ['SELECT "Power Usage" FROM "mate3s" ORDER BY time DESC LIMIT 1'] if not recent else []
    assert [one for one in influx.asked if one.startswith('SELECT "Power')] == asked_again


def test_a_point_of_the_future_in_both_does_not_let_an_older_backup_pass(
    step: Step, folder: Path, influx: Influx, tmp_path: Path
) -> None:
    future = 30_000 * DAY
    influx.recent = {'"mate3s"': at(future)}
    measurements = {"mate3s": {"field": "Power Usage", "newest_ns": future, "points": 1}}
    finish(folder, measurements=measurements, newest="2052-02-20T00:00:00Z", made_at="2026-11-29T17:32:14Z")
    code, output = over_a_database(step, folder, influx, tmp_path)
    assert code != 0
    assert "has points up to 2052-02-20T00:00:00Z" in output


def test_a_backup_counts_what_has_points_of_late_or_ever(step: Step, influx: Influx, tmp_path: Path) -> None:
    token = tmp_path / "secrets" / SITE / SECRET
    token.parent.mkdir(parents=True)
    token.write_text("a" * 64)
    odd = '"odd \\"name\\""'
    influx.recent, influx.older = {'"mate3s"': at(101 * DAY)}, {("a", odd): 3 * NS, ("b", odd): 4 * NS}
    code, output = step(
        of_playbook("backup/count.yml"),
        {"ansible.builtin.debug": {"msg": "{{ __backup_measurements | to_json }}"}},
        influxdb_bucket="power",
        __influxdb_url=f"http://127.0.0.1:{influx.server_port}",
        preflight_fingerprint={"content": base64.b64encode(b"salt sum").decode()},
    )
    assert code == 0, output
    ends = {f"{101 * DAY}", f"{4 * NS}"}
    assert {one.rpartition(" ")[2] for one in influx.asked if one.startswith("SELECT count")} == ends
    assert set(re.findall(r'"field": "([^"]+)"', output.replace("\\", ""))) == {"Power Usage", "b"}, output


def test_another_backup_is_taken_after_a_restore_that_was_begun(
    step: Step, folder: Path, tmp_path: Path
) -> None:
    """Nothing has to be removed before: what is there is a backup's, whatever its time."""
    (tmp_path / "influxdb").mkdir()
    (tmp_path / "influxdb/influxd.bolt").write_text("half of another backup")
    (tmp_path / "restored").write_text("begun 1234\n")
    code, output = step(
        of_role("target.yml"),
        {"ansible.builtin.debug": {"msg": "{{ 'It is wanted' if __restore_wanted else 'It is not' }}"}},
        restore_from=folder,
        __restore_influxdb=tmp_path / "influxdb",
        __restore_mark=tmp_path / "restored",
    )
    assert code == 0, output
    assert "It is wanted" in output


@pytest.mark.parametrize("there", [True, False], ids=["its data are there", "its data have gone"])
def test_a_finished_restore_is_done_again_only_where_its_data_have_gone(
    step: Step, folder: Path, tmp_path: Path, there: bool
) -> None:
    finish(folder)
    mark = tmp_path / "restored"
    mark.write_text(f"done {hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}\n")
    (tmp_path / "influxdb").mkdir()
    if there:
        (tmp_path / "influxdb/influxd.bolt").write_text("the backup and what came since")
    where = {"__restore_influxdb": tmp_path / "influxdb", "__restore_mark": mark}
    code, output = step(
        of_role("target.yml"),
        {"ansible.builtin.debug": {"msg": "{{ 'It is wanted' if __restore_wanted else 'It is not' }}"}},
        restore_from=folder,
        **where,
    )
    assert code == 0, output
    assert ("It is not" if there else "It is wanted") in output
    # The plain run begins a new history: a later one must not take that for the backup's.
    code, output = step(of_role("target.yml"), restore_from="", **where)
    assert code == 0, output
    assert mark.exists() == there


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        ({"series": [{"name": "measurements", "columns": ["name"], "values": [["mate3s"]]}]}, False),
        ({}, True),
    ],
    ids=["the right name", "another name"],
)
def test_a_history_that_was_not_counted_must_be_in_the_bucket_at_least(
    step: Step, folder: Path, found: dict[str, Any], refused: bool
) -> None:
    times = {"made_at": "2026-11-29T17:32:14Z", "newest": "1970-01-01T00:00:00Z"}
    finish(folder, set_up_by="hand", measurements={}, **times)
    tasks = yaml.safe_load((TOP / "roles/restore/tasks/prove.yml").read_text())
    (refuse,) = [task for task in tasks if task["name"] == "Refuse a bucket without anything"]
    code, output = step(
        {"ansible.builtin.include_role": {"name": "restore", "tasks_from": "set_aside.yml", "public": True}},
        refuse,
        of_role("tell.yml"),
        restore_from=folder,
        restore_points={"json": {"results": [found]}},
        influxdb_bucket="pwoer",
        __restore_store=folder / "nothing",
    )
    assert (code != 0) == refused, output
    assert ("not in the bucket pwoer, which is empty" in output) == refused
    assert ("its points were never counted" in output) != refused
    assert "are all there" not in output


def restore_is_begun(step: Step, tmp_path: Path) -> str:
    """What a run without restore_from says of a restore that was cut off: the command that gives it up."""
    data = tmp_path / "influxdb"
    (data / ".hidden").mkdir(parents=True)
    (data / "influxd.bolt").write_text("half of a history")
    (tmp_path / "restored").write_text("begun 1234\n")
    code, output = step(
        of_role("target.yml"), restore_from="", __restore_influxdb=data, __restore_mark=tmp_path / "restored"
    )
    assert code != 0
    assert "was begun and not finished: run it again, with -e restore_from=" in output
    (command,) = set(re.findall(r"`(sudo systemctl stop influxdb [^`]+)`", output))
    return command


@pytest.mark.parametrize("deletes", [True, False])
def test_a_restore_is_given_up_by_the_printed_command_or_stays_begun(
    step: Step, tmp_path: Path, deletes: bool
) -> None:
    command = restore_is_begun(step, tmp_path)
    programs = tmp_path / "bin"
    program(programs, "systemctl", "exit 0")
    program(programs, "sudo", 'exec "$@"')
    if not deletes:
        program(programs, "find", "exit 1")
    # As pi, whose shell may not look into the folder: it leaves a pattern as it is.
    path = {"PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run(["bash", "-fc", command], env=path, check=False, timeout=30, stderr=subprocess.DEVNULL)
    assert (list((tmp_path / "influxdb").iterdir()) == []) == deletes
    assert (tmp_path / "restored").exists() != deletes


def test_no_command_that_is_printed_for_the_pi_has_a_pattern() -> None:
    """Pi's shell would have to look into folders that only root and a service may enter."""
    texts = [
        *TOP.glob("roles/**/*.yml"),
        *TOP.glob("playbooks/**/*.yml"),
        *TOP.glob("docs/*.md"),
        TOP / "README.md",
    ]
    assert len(texts) > 50
    commands = re.compile(r"sudo (?:rm|mv|cp|ls|find|tar|chown|chmod)\b[^`;&|,]*\*")
    found = {text.relative_to(TOP): commands.findall(" ".join(text.read_text().split())) for text in texts}
    assert {text: patterns for text, patterns in found.items() if patterns} == {}
