"""A site with a day of history is backed up, its card dies, and one command brings a blank card to where it was.

The tests run in this order and hand what they know to each other in `site`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.rehearsal import history, pi, playbook, report
from tests.rehearsal.disturb import newest_time, wait_for

BACKUPS = playbook.TOP / "backups" / "rehearsal"
SECRETS = pi.SECRETS
CYCLES = "SELECT count(points) FROM collector_status WHERE time >= {}s AND time <= {}s"


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    shutil.rmtree(BACKUPS, ignore_errors=True)
    yield SimpleNamespace()
    shutil.rmtree(BACKUPS, ignore_errors=True)


def backup(*arguments: str) -> tuple[Path, dict[str, Any]]:
    """Make a backup; its folder and its manifest."""
    before = set(BACKUPS.glob("2*Z"))
    run = playbook.run("playbooks/backup.yml", *arguments)
    assert run.code == 0, run.error
    (made,) = set(BACKUPS.glob("2*Z")) - before
    return made, json.loads((made / "manifest.json").read_text())


def count(statement: str) -> int:
    series = pi.influxql(statement)
    return int(series[0]["values"][0][1]) if series else 0


def counts(manifest: dict[str, Any]) -> dict[str, int]:
    """What the database holds of the manifest's measurements, each up to the manifest's newest time."""
    return {
        name: count(f'SELECT count("{one["field"]}") FROM "{name}" WHERE time <= {one["newest_ns"]}')
        for name, one in manifest["measurements"].items()
    }


def wanted(manifest: dict[str, Any]) -> dict[str, int]:
    return {name: one["points"] for name, one in manifest["measurements"].items()}


def stored() -> list[tuple[int, int]]:
    """First and last time of each batch in the collector's store."""
    script = (
        "import sqlite3; db = sqlite3.connect('/var/lib/power-collector/store.sqlite'); "
        "print(db.execute('SELECT first_time, last_time FROM batches').fetchall())"
    )
    return [
        tuple(map(int, pair)) for pair in re.findall(r"\((\d+), (\d+)\)", pi.sudo(f'python3 -c "{script}"'))
    ]


def leave_readings_waiting() -> list[tuple[int, int]]:
    """InfluxDB is away, and the collector is ended before it can deliver; what is in its store then."""
    pi.sudo("systemctl stop influxdb")
    since = int(time.time())
    wait_for("a cycle without a database", lambda: time.time() >= since + 31, 40)
    pi.sudo("systemctl stop power")
    waiting = stored()
    assert sum(last - first for first, last in waiting) >= 15
    return waiting


def wait_until_delivered(waiting: list[tuple[int, int]]) -> None:
    for first, last in waiting:
        wait_for(
            "what waited in the store",
            lambda: count(CYCLES.format(first, last)) == (last - first) // 15 + 1,  # noqa: B023
            60,
        )


def history_files(folder: Path) -> dict[str, os.stat_result]:
    """The files of InfluxDB in a backup, which are what is large."""
    return {
        str(path.relative_to(folder)): path.stat()
        for path in (folder / "influxdb").rglob("*")
        if path.is_file()
    }


def test_a_backup_counts_a_day_of_history_and_no_reading_is_lost_meanwhile(site: SimpleNamespace) -> None:
    cycles, first = history.write_a_day()
    started = int(time.time())
    made, manifest = backup()
    assert counts(manifest) == wanted(manifest)
    assert wanted(manifest)["collector_status"] >= cycles
    assert 0 < manifest["downtime_s"] < 60
    assert manifest["versions"].keys() == {"influxdb2", "grafana", "power-collector", "rsync"}
    # The collector has read on, and delivered what it had read.
    ended = int(time.time()) // 15 * 15
    wait_for("the cycle after the backup", lambda: newest_time() >= ended, 60)
    begin = started // 15 * 15
    assert count(CYCLES.format(begin, ended)) == (ended - begin) // 15 + 1
    mark = pi.sudo(
        "stat --format=%a /var/lib/power-monitor/last_backup; cat /var/lib/power-monitor/last_backup"
    )
    assert mark.split() == ["644", manifest["made_at"]]
    assert BACKUPS.stat().st_mode & 0o077 == 0
    site.first, site.first_manifest, site.oldest = made, manifest, first


def test_the_next_one_transfers_only_what_changed_and_the_last_n_are_kept(site: SimpleNamespace) -> None:
    site.waiting = leave_readings_waiting()
    pi.sudo("systemctl start influxdb")
    before = history_files(site.first)
    made, manifest = backup("-e", "backup_keep=1")
    after = history_files(made)
    unchanged = [
        name
        for name in before.keys() & after.keys()
        if (before[name].st_size, before[name].st_mtime_ns) == (after[name].st_size, after[name].st_mtime_ns)
    ]
    assert sum(before[name].st_size for name in unchanged) > 1_000_000
    assert [name for name in unchanged if before[name].st_ino != after[name].st_ino] == []
    assert list(BACKUPS.iterdir()) == [made]
    assert counts(manifest) == wanted(manifest)
    site.backup, site.manifest = made, manifest


def test_a_backup_is_not_put_over_newer_points(site: SimpleNamespace) -> None:
    pi.sudo("systemctl start power")
    newest = site.manifest["measurements"]["collector_status"]["newest_ns"] // 10**9
    wait_for("a newer point", lambda: newest_time() > newest, 60)
    before = counts(site.manifest)
    run = playbook.site("-e", f"restore_from={site.backup}")
    assert run.code != 0
    assert f"the backup ends at {site.manifest['newest']}" in run.error, run.error
    assert run.changed == ()
    assert counts(site.manifest) == before


def test_one_command_brings_the_history_back_to_a_blank_card(site: SimpleNamespace) -> None:
    host_key = pi.sudo("ssh-keygen -y -f /etc/ssh/power_host_ed25519_key")
    secrets = {path.name: path.read_text() for path in SECRETS.iterdir()}
    for command in ("down", "prepare"):
        subprocess.run([sys.executable, "-m", "tests.rehearsal", command], cwd=playbook.TOP, check=True)
    assert pi.sudo("ls /var/lib/influxdb /opt", check=False) == "/opt:\n"
    assert pi.sudo("ssh-keygen -y -f /etc/ssh/power_host_ed25519_key") == host_key
    # The laptop is another one, too.
    shutil.rmtree(SECRETS)
    started = time.monotonic()
    run = playbook.site("-e", f"restore_from={site.backup.relative_to(playbook.TOP)}")
    assert run.code == 0, run.error
    total = sum(wanted(site.manifest).values())
    assert f"{total} points of {len(site.manifest['measurements'])} measurements" in " ".join(
        run.output.split()
    )
    assert {path.name: path.read_text() for path in SECRETS.iterdir()} == secrets
    wait_for("live data of all devices", lambda: not report.missing_devices(report.values()), 90)
    print(
        f"from the blank card's boot to live data with the history back: {time.monotonic() - started:.0f} s"
    )


def test_everything_is_back(site: SimpleNamespace) -> None:
    assert counts(site.manifest) == wanted(site.manifest)
    (oldest,) = pi.influxql("SELECT first(points) FROM collector_status")
    assert oldest["values"][0][0] == site.oldest
    wait_until_delivered(site.waiting)
    for folder, owner in (
        ("/var/lib/influxdb", "influxdb"),
        ("/var/lib/grafana/grafana.db", "grafana"),
        ("/var/lib/power-collector", "power-collector"),
    ):
        assert pi.sudo(f"find {folder} ! -user {owner} -o ! -group {owner}") == "", folder
    login = ("admin", pi.secret("grafana_admin_password"))
    assert pi.grafana("/api/user", login=login).status == 200


def test_the_same_command_once_more_changes_nothing(site: SimpleNamespace) -> None:
    newest = newest_time()
    run = playbook.site("-e", f"restore_from={site.backup}")
    assert run.code == 0, run.error
    assert run.changed == ()
    assert "left as it is" in run.output
    assert newest_time() >= newest


def test_a_history_with_a_loss_does_not_go_into_service(site: SimpleNamespace) -> None:
    """On a card that has lost its database, but not what its collector has read since the backup."""
    site.own = leave_readings_waiting()
    pi.sudo("find /var/lib/influxdb -mindepth 1 -delete")
    manifest = (site.backup / "manifest.json").read_text()
    more = json.loads(manifest)
    more["measurements"]["collector_status"]["points"] += 1000
    (site.backup / "manifest.json").write_text(json.dumps(more))
    run = playbook.site("-e", f"restore_from={site.backup}")
    (site.backup / "manifest.json").write_text(manifest)
    assert run.code != 0
    assert "Not everything is back: collector_status: " in run.error, run.error
    assert pi.sudo("systemctl is-active power", check=False) == "inactive\n"
    assert pi.sudo("systemctl is-enabled power", check=False) == "disabled\n"


def test_a_restore_that_was_cut_off_is_done_again_and_neither_without_it_nor_by_older_servers(
    site: SimpleNamespace,
) -> None:
    """As a power cut leaves it: the collector never ran, and InfluxDB's files are not all there."""
    pi.sudo(
        "set -e\n"
        "systemctl stop influxdb\n"
        "grep -q ^begun /var/lib/power-monitor/restored\n"
        "largest=$(find /var/lib/influxdb -type f -printf '%s %p\\n' | sort -n | tail -1)\n"
        'rm "${largest#* }" /var/lib/influxdb/influxd.bolt\n'
    )
    run = playbook.site()
    assert run.code != 0
    assert "begun and not finished: run it again, with -e restore_from=" in run.error, run.error
    manifest = (site.backup / "manifest.json").read_text()
    newer = site.manifest | {"versions": {"influxdb2": "99.0.0"}}
    (site.backup / "manifest.json").write_text(json.dumps(newer))
    run = playbook.site("-e", f"restore_from={site.backup}")
    assert run.code != 0
    assert "instead of 99.0.0. They cannot read it." in run.error, run.error
    assert pi.sudo("systemctl is-active influxdb power", check=False).split() == ["inactive", "inactive"]
    (site.backup / "manifest.json").write_text(manifest)
    run = playbook.site("-e", f"restore_from={site.backup}")
    assert run.code == 0, run.error
    assert counts(site.manifest) == wanted(site.manifest)
    wait_for("live data", lambda: newest_time() > time.time() - 20, 60)
    assert pi.sudo("systemctl is-enabled power") == "enabled\n"
    (site.aside,) = pi.sudo("ls -d /var/lib/power-collector.before-restore-*").split()
    assert site.aside in run.output


def test_what_the_card_had_read_itself_is_delivered_as_the_runbook_says(site: SimpleNamespace) -> None:
    export = "/opt/power-collector/bin/power-collector export"
    wait_for("the backup's readings to be delivered", lambda: pi.sudo(export) == "", 60)
    pi.sudo(
        "systemctl stop power\n"
        "mv /var/lib/power-collector /var/lib/power-collector.restored\n"
        f"mv {site.aside} /var/lib/power-collector\n"
        "systemctl start power\n"
    )
    wait_until_delivered(site.own)


def test_no_secret_was_shown() -> None:
    output = playbook.LOG.read_text(encoding="utf-8")
    assert [path.name for path in SECRETS.iterdir() if path.read_text().strip() in output] == []
