"""Reboots, second runs, drift and changes on site: each seen from outside.

The tests run in this order; each leaves the site as it found it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.rehearsal import pi, playbook, report
from tests.rehearsal.disturb import newest_time, room_control, virtual_pi, wait_for
from tests.rehearsal.footprint import footprint
from tests.virtual_pi.network import ROOM

TOP = playbook.TOP
ROOM_POWER = TOP / playbook.INVENTORY / "group_vars" / "all" / "power_room.yml"


def test_check_mode_has_nothing_to_report() -> None:
    before = footprint()
    run = playbook.site("--check", "--diff")
    assert run.code == 0, run.error
    assert run.changed == ()
    assert footprint() == before


def test_data_flows_within_a_minute_of_a_reboot() -> None:
    before = pi.boot_id()
    virtual_pi("reboot")
    booted = int(time.time())
    assert pi.boot_id() != before
    wait_for("a point after the reboot", lambda: newest_time() >= booted - 15, 60)
    wait_for("values of all devices", lambda: not report.missing_devices(report.values()), 60)


DRIFT = """
systemctl stop power
echo '# edited by hand' >> /etc/power-collector/config.toml
chmod 0644 /etc/power-collector/influxdb.token
"""


def test_drift_is_mended_and_reported_as_exactly_that() -> None:
    before = pi.sudo("sha256sum /etc/power-collector/config.toml")
    pi.sudo(DRIFT)
    run = playbook.site()
    assert run.code == 0, run.error
    text = " / ".join(run.changed).lower()
    assert "configuration" in text or "config" in text, run.changed
    assert "token" in text, run.changed
    assert "start" in text, run.changed
    assert len(run.changed) <= 4, run.changed
    assert pi.sudo("sha256sum /etc/power-collector/config.toml") == before
    assert pi.sudo("stat -c %a /etc/power-collector/influxdb.token").strip() == "640"
    assert pi.sudo("systemctl is-active power").strip() == "active"


def test_a_lost_data_source_comes_back() -> None:
    login = ("admin", pi.secret("grafana_admin_password"))
    assert pi.grafana("/api/datasources/uid/influxdb").status == 200
    # The server refuses to delete a provisioned source: it is taken out of its database.
    pi.sudo(
        "systemctl stop grafana-server\n"
        "python3 - <<'EOF'\n"
        "import sqlite3\n"
        "db = sqlite3.connect('/var/lib/grafana/grafana.db')\n"
        "db.execute('DELETE FROM data_source')\n"
        "db.commit()\n"
        "EOF\n"
        "mv /etc/grafana/provisioning/datasources /root/datasources\n"
        "systemctl start grafana-server\n"
    )
    try:
        wait_for("Grafana without its data source", lambda: pi.grafana("/api/health").status == 200, 60)
        assert pi.grafana("/api/datasources/uid/influxdb", login=login).status == 404
    finally:
        # Back with its old times: nothing newer than the service's start tells the role about it.
        pi.sudo("mv /root/datasources /etc/grafana/provisioning/datasources")
    run = playbook.site("--tags", "grafana")
    assert run.code == 0, run.error
    assert any("data source" in task.lower() or "grafana" in task.lower() for task in run.changed), (
        run.changed
    )
    assert pi.grafana("/api/datasources/uid/influxdb").status == 200


def inventory_with(room: dict[str, Any], scratch: Path) -> Path:
    """A copy of the rehearsal's inventory with another power room."""
    inventory = scratch / "inventory"
    subprocess.run(["cp", "-rL", str(TOP / playbook.INVENTORY), str(inventory)], check=True)
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("{{ inventory_dir }}/../..", str(TOP)))
    (inventory / "group_vars" / "all" / "power_room.yml").write_text(yaml.safe_dump(room))
    return inventory


def test_the_power_room_that_the_probe_finds_is_provisioned_already_and_nothing_changes(
    tmp_path: Path,
) -> None:
    room = yaml.safe_load(ROOM_POWER.read_text())
    described = {key: room.pop(key) for key in ("power_room_inverters", "power_room_devices")}
    found = yaml.safe_load(pi.sudo(f"{report.PROBE} --format yaml"))
    assert found == described
    before = footprint()
    run = playbook.site(inventory=str(inventory_with(room | found, tmp_path)))
    assert run.code == 0, run.error
    assert run.changed == ()
    assert footprint() == before


@contextlib.contextmanager
def moved_device(name: str, address: str, scratch: Path) -> Iterator[Path]:
    """A device that got another address on site; yields an inventory that says so."""
    room = yaml.safe_load(ROOM_POWER.read_text())
    for device in room["power_room_devices"]:
        if device["name"] == name:
            device["host"] = address
            port = device["port"]
    inventory = inventory_with(room, scratch)
    config = scratch / "moved.toml"
    config.write_text(
        f'[[devices]]\nname = "{name}"\ndriver = "tristar-mppt-600v"\nhost = "{address}"\nport = {port}\n'
    )
    room_control({name: {"fault": "refusing"}})
    subprocess.run(["ip", "-n", ROOM, "address", "add", f"{address}/24", "dev", "lan"], check=True)
    simulator = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            ROOM,
            sys.executable,
            "-m",
            "power_collector",
            "simulate",
            "--config",
            str(config),
        ]
    )
    try:
        yield inventory
    finally:
        simulator.terminate()
        simulator.wait(10)
        subprocess.run(["ip", "-n", ROOM, "address", "del", f"{address}/24", "dev", "lan"], check=True)
        room_control({})


def test_a_moved_device_needs_no_internet(tmp_path: Path) -> None:
    virtual_pi("wan", "down")
    try:
        with moved_device("sc6", "192.168.1.116", tmp_path) as inventory:
            run = playbook.site(inventory=str(inventory))
            assert run.code == 0, run.error
            assert 1 <= len(run.changed) <= 3, run.changed
            since = int(time.time())
            wait_for("sc6 at its new address", lambda: report.values().get("sc6", (0, 0))[1] > since, 60)
        run = playbook.site("--tags", "collector")
        assert run.code == 0, run.error
    finally:
        virtual_pi("wan", "up")


def test_a_silent_device_is_shown_as_down_and_stops_nothing() -> None:
    room_control({"sc3": {"fault": "silent"}})
    try:
        since = int(time.time()) + 15

        def last(field: str, where: str) -> list[object]:
            found = pi.influxql(f'SELECT last("{field}") FROM {where}')
            return list(found[0]["values"][0]) if found else [0, None]

        wait_for(
            "sc3 down, sc4 up",
            lambda: (
                last("up", "device_status WHERE device = 'sc3'")[1] == 0
                and int(str(last("output_power_w", "charge_controller WHERE device = 'sc4'")[0])) > since
            ),
            90,
        )
        assert last("read", "solar_charger_partial")[1] == 5
        run = playbook.site("--tags", "collector")
        assert run.code == 0, run.error
    finally:
        room_control({})
    wait_for("sc3 back", lambda: last("up", "device_status WHERE device = 'sc3'")[1] == 1, 90)


def test_a_run_over_the_cable_mends_the_cable() -> None:
    """The profile of eth0 is damaged, and Ansible comes over eth0: applied by a detached unit, confirmed afterwards."""
    profile = pi.sudo("ls /etc/NetworkManager/system-connections/ | grep -v netplan | head -1").strip()
    pi.sudo(
        f"sed -i 's/^autoconnect-priority=.*/autoconnect-priority=7/' /etc/NetworkManager/system-connections/{profile}"
    )
    moment = int(time.time())
    run = playbook.site("-e", "ansible_host=192.168.1.109", within=("ip", "netns", "exec", ROOM))
    assert run.code == 0, run.error
    assert "autoconnect-priority=100" in pi.sudo(f"cat /etc/NetworkManager/system-connections/{profile}")
    # Unconfirmed, the unit would wait for its whole minute, and then say that it goes back.
    ended = "inactive"
    wait_for(
        "its end", lambda: pi.sudo("systemctl is-active power-network", check=False).strip() == ended, 10
    )
    said = pi.sudo(f"journalctl --no-pager -o cat -u power-network --since @{moment}")
    assert "Started" in said
    assert "back to the old profile" not in said
    routes = json.loads(pi.sudo("ip -j route show default"))
    assert [route["dev"] for route in routes] == ["wlan0"]


def test_a_wrong_vendor_key_is_refused() -> None:
    before = footprint()
    for package in ("influxdb", "grafana"):
        run = playbook.site("--tags", package, "-e", f"{package}_repository_key_fingerprint={'0' * 40}")
        assert run.code != 0
        assert "Refused, and nothing of" in run.error, run.error
        assert "the pinned key is " + "0" * 40 in run.error, run.error
    assert footprint() == before


def test_a_laptop_without_one_of_the_sites_secrets_is_refused_and_makes_none() -> None:
    secret = pi.SECRETS / "grafana_secret_key"
    away = pi.STATE / "away"
    secret.rename(away)
    try:
        run = playbook.site()
        assert not secret.exists()
    finally:
        away.rename(secret)
    assert run.code != 0
    assert "is set up already" in run.error, run.error
    assert "lacks grafana_secret_key" in run.error, run.error
    assert run.changed == ()


def test_another_release_is_refused_in_one_line() -> None:
    pi.sudo(
        'cp --remove-destination $(readlink -f /etc/os-release) /root/os-release; sed \'s/trixie/bookworm/g; s/"13"/"12"/\' /root/os-release > /root/other'
    )
    pi.sudo("mount --bind /root/other $(readlink -f /etc/os-release)")
    try:
        run = playbook.site()
    finally:
        pi.sudo("umount $(readlink -f /etc/os-release); rm /root/other /root/os-release")
    assert run.code != 0
    assert "trixie" in run.error.lower(), run.error
    assert run.changed == ()


def test_a_missing_sudo_password_is_named_with_its_remedy() -> None:
    rights = pi.sudo("grep -rl '^pi ' /etc/sudoers.d").split()
    pi.sudo("echo 'pi:a-password-of-pi' | chpasswd; cp -a /etc/sudoers.d /root/sudoers.d")
    # Root's way back, while user pi has to give a password.
    pi.sudo(
        "systemd-run --quiet --unit=sudo-comes-back --on-active=120 "
        "sh -c 'cp -a /root/sudoers.d/. /etc/sudoers.d/'\n"
        f"sed -i 's/NOPASSWD://' {' '.join(rights)}"
    )
    try:
        missing = playbook.site()
        wrong = playbook.site("-e", "ansible_become_password=not-this-one")
    finally:
        playbook_back = subprocess.run(
            [
                *pi.ssh_command(
                    "sudo",
                    "-S",
                    "-p",
                    "''",
                    "bash",
                    "-c",
                    "'cp -a /root/sudoers.d/. /etc/sudoers.d/; systemctl stop sudo-comes-back.timer; passwd -l pi; rm -r /root/sudoers.d'",
                )
            ],
            input="a-password-of-pi\n",
            text=True,
            check=False,
        )
    assert playbook_back.returncode == 0
    for run in (missing, wrong):
        assert run.code != 0
        assert "sudo" in run.error.lower(), run.error
        assert run.changed == ()
    assert "-K" in missing.error or "become" in missing.error.lower(), missing.error
    assert "not-this-one" not in wrong.output
