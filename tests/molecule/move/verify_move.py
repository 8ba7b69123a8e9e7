"""A card that was set up by hand is backed up, and its successor has the history; all as docs/runbook.md says.

The tests run in this order and hand what they know to each other in `moved`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.rehearsal import pi, playbook
from tests.rehearsal.disturb import newest_time, wait_for

BACKUPS = playbook.TOP / "backups" / "rehearsal"
TOKEN = pi.SECRETS / "influxdb_operator_token"
DAY_OF_CYCLES = 24 * 3600 // 15
OLD = {
    "mate3s": ("Inverter Current", "Power Usage", "Battery Voltage"),
    "power_room_totals": ("total_load_power_kw", "battery_voltage"),
    **{f"solar_charger_{number}": ("power_kw",) for number in range(1, 7)},
    "solar_charger_total": ("power_kw",),
}


@pytest.fixture(scope="module")
def moved() -> Iterator[SimpleNamespace]:
    shutil.rmtree(BACKUPS, ignore_errors=True)
    yield SimpleNamespace()
    shutil.rmtree(BACKUPS, ignore_errors=True)


def count(measurement: str, field: str, where: str) -> int:
    series = pi.influxql(f'SELECT count("{field}") FROM "{measurement}" WHERE {where}')
    return int(series[0]["values"][0][1]) if series else 0


def types(measurement: str) -> dict[str, str]:
    """Field -> its types, more than one where shards differ."""
    (series,) = pi.influxql(f'SHOW FIELD KEYS FROM "{measurement}"')
    found: dict[str, str] = {}
    for field, kind in series["values"]:
        found[field] = f"{found[field]} {kind}" if field in found else kind
    return found


def test_without_a_word_a_database_of_others_is_refused_with_the_remedy(moved: SimpleNamespace) -> None:
    moved.old_token = pi.sudo("cat /home/pi/power/influxdb-token.txt").strip()
    run = playbook.site("--tags", "base,influxdb")
    assert run.code != 0
    assert "set up by hand? Then run `ansible-playbook site.yml -e influxdb_take_over=true`" in run.error, (
        run.error
    )
    # It is still the hand-made one, for the backup too.
    assert pi.sudo("ls /etc/power-monitor/secrets.sha256", check=False) == ""
    assert pi.sudo("systemctl is-active power influxdb").split() == ["active", "active"]


def test_the_old_card_is_backed_up_with_its_dashboards(moved: SimpleNamespace) -> None:
    pi.sudo("apt-get -qq install rsync")
    run = playbook.run("playbooks/backup.yml")
    assert run.code == 0, run.error
    (moved.backup,) = BACKUPS.glob("2*Z")
    moved.manifest = json.loads((moved.backup / "manifest.json").read_text())
    assert moved.manifest["set_up_by"] == "hand"
    points = {name: one["points"] for name, one in moved.manifest["measurements"].items()}
    assert points.keys() == OLD.keys()
    assert min(points.values()) >= DAY_OF_CYCLES
    (dashboard,) = (moved.backup / "dashboards").glob("*.json")
    source = json.loads((Path(__file__).parent / "files/dashboard.json").read_text())
    kept = json.loads(dashboard.read_text())
    assert [panel["targets"] for panel in kept["panels"]] == [panel["targets"] for panel in source["panels"]]
    # What this computer has does not fit it, and would be taken for its secrets.
    assert not (moved.backup / "secrets").exists()
    assert not (moved.backup / "grafana").exists()


def test_it_can_be_taken_over_as_it_is(moved: SimpleNamespace) -> None:
    """Without a new card; of the whole site.yml only what differs from a blank card."""
    run = playbook.site("--tags", "influxdb", "-e", "influxdb_take_over=true")
    assert run.code == 0, run.error
    assert re.fullmatch(r"[A-Za-z0-9_-]{86}==", TOKEN.read_text())
    for name, one in moved.manifest["measurements"].items():
        assert count(name, one["field"], f"time <= {one['newest_ns']}") == one["points"]
    # apt works on: it stops altogether where two entries of a repository name different keys.
    assert pi.sudo("ls /etc/apt/sources.list.d") == "influxdata.sources\n"
    pi.sudo("apt-get -qq update")
    run = playbook.site("--tags", "grafana")
    assert run.code != 0
    assert "one that was set up by hand is put aside" in run.error, run.error


def test_one_command_moves_to_a_blank_card(moved: SimpleNamespace) -> None:
    # However new the old Grafana was: it stays behind.
    newer = moved.manifest | {"versions": moved.manifest["versions"] | {"grafana": "99.0.0"}}
    (moved.backup / "manifest.json").write_text(json.dumps(newer))
    for command in ("down", "prepare"):
        subprocess.run([sys.executable, "-m", "tests.rehearsal", command], cwd=playbook.TOP, check=True)
    run = playbook.site("-e", f"restore_from={moved.backup.relative_to(playbook.TOP)}")
    assert run.code == 0, run.error
    moved.output = run.output


@pytest.mark.parametrize(
    ("measurement", "field"), [(name, field) for name, fields in OLD.items() for field in fields]
)
def test_the_history_is_there(moved: SimpleNamespace, measurement: str, field: str) -> None:
    one = moved.manifest["measurements"][measurement]
    assert count(measurement, field, f"time <= {one['newest_ns']}") == one["points"]
    assert count(measurement, field, f"time = {one['newest_ns']}") == 1


def test_new_points_go_in_beside_the_old_ones(moved: SimpleNamespace) -> None:
    """A field of another type would be refused: an old and a new point lie in one shard."""
    for measurement, fields in OLD.items():
        newest = moved.manifest["measurements"][measurement]["newest_ns"]
        for field in fields:
            wait_for(
                f"a new {field} of {measurement}",
                lambda: count(measurement, field, f"time > {newest}") > 0,  # noqa: B023
                60,
            )
        assert not [kind for kind in types(measurement).values() if " " in kind]
    wait_for("the collector's own points", newest_time, 60)
    (series,) = pi.influxql("SELECT last(rejected_points), last(stored_points) FROM collector_status")
    assert series["values"][0][1:] == [0, 0]


def test_the_laptop_has_the_new_token_and_the_administrators_password(moved: SimpleNamespace) -> None:
    new = TOKEN.read_text()
    assert re.fullmatch(r"[A-Za-z0-9_-]{86}==", new)
    assert TOKEN.stat().st_mode & 0o077 == 0
    assert new not in playbook.LOG.read_text(encoding="utf-8")
    for token in (new, moved.old_token):
        # What others still use goes on: it is theirs to delete.
        answer = "curl -sS -o /dev/null -w '%{http_code}' -K - http://127.0.0.1:8086/api/v2/orgs"
        assert pi.sudo(f"{answer} <<< 'header = \"Authorization: Token {token}\"'") == "200"


def test_grafana_starts_from_files(moved: SimpleNamespace) -> None:
    titles = [found["title"] for found in pi.grafana("/api/search?type=dash-db").json()]
    assert "Power room, by hand" not in titles
    assert titles
    login = ("admin", pi.secret("grafana_admin_password"))
    assert pi.grafana("/api/user", login=login).status == 200


def test_the_service_is_ours_and_nothing_changes_any_more(moved: SimpleNamespace) -> None:
    shown = pi.sudo("systemctl show power --property=User,Environment; systemctl is-enabled power")
    assert set(shown.split()) == {"User=power-collector", "Environment=", "enabled"}
    run = playbook.site()
    assert run.code == 0, run.error
    assert run.changed == ()
