"""playbooks/check.yml on the provisioned site: green where it is healthy, and it names exactly what was broken."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator

from tests.rehearsal import pi, playbook
from tests.rehearsal.disturb import newest_time, wait_for
from tests.virtual_pi.network import ROOM

UNPLUGGED = "192.168.1.103"
ROW = re.compile(r"^ +(?P<level>ok|warning|FAIL) +(?P<name>\S.*?)  ", re.MULTILINE)
# What the running services go on writing, and the empty folders for temporary files of systemd and Ansible.
ALIVE = r"/var/lib/(influxdb|grafana|power-collector|systemd|NetworkManager)(/|$)|/var/log/|(/run|.*/tmp|/var/tmp/systemd-[^/]*)$"


def check() -> tuple[playbook.Run, list[str]]:
    """Run the check; the names of the rows that fail."""
    run = playbook.run("playbooks/check.yml")
    rows = [(match["level"], match["name"]) for match in ROW.finditer(run.output)]
    assert len(rows) >= 20, run.output
    assert run.changed == ()
    return run, [name for level, name in rows if level == "FAIL"]


def written_since(moment: int) -> list[str]:
    """Files and folders that were made or changed since then, on every file system that keeps them."""
    found = pi.sudo(f"find / -xdev -newerct @{moment} ! -type s", timeout_s=120)
    return [path for path in found.splitlines() if not re.match(ALIVE, path)]


def up(name: str) -> bool:
    latest = json.loads(pi.sudo("cat /run/power-collector/latest.json", check=False) or '{"devices": []}')
    return any(one["up"] for one in latest["devices"] if one["name"] == name)


@contextlib.contextmanager
def nearly_full_disk() -> Iterator[None]:
    pi.sudo("fallocate -l $(( $(df --block-size=1 --output=avail / | tail -1) - 100000000 )) /root/ballast")
    try:
        yield
    finally:
        pi.sudo("rm /root/ballast")


@contextlib.contextmanager
def stopped_database() -> Iterator[None]:
    pi.sudo("systemctl stop influxdb")
    try:
        yield
    finally:
        pi.sudo("systemctl start influxdb")


@contextlib.contextmanager
def unplugged_device() -> Iterator[None]:
    """Nobody has its address any more, as after pulling its cable."""
    device = ("dev", "lan")
    subprocess.run(["ip", "-n", ROOM, "address", "del", f"{UNPLUGGED}/24", *device], check=True)
    try:
        wait_for("sc3 down", lambda: not up("sc3"), 30)
        yield
    finally:
        subprocess.run(["ip", "-n", ROOM, "address", "add", f"{UNPLUGGED}/24", *device], check=True)


def test_a_healthy_site_is_green_and_nothing_is_written() -> None:
    wait_for("a fresh point", lambda: newest_time() > time.time() - 20, 60)
    moment = int(time.time())
    run, failing = check()
    assert failing == []
    assert run.code == 0, run.error
    assert written_since(moment) == []


def test_a_nearly_full_disk_alone_is_named() -> None:
    with nearly_full_disk():
        run, failing = check()
    assert failing == ["disk (/)"]
    assert run.code != 0


def test_a_stopped_database_alone_is_named() -> None:
    with stopped_database():
        run, failing = check()
    assert failing == ["influxdb"]
    assert run.code != 0


def test_an_unplugged_device_is_named_alone_and_with_the_others_and_then_all_is_green_again() -> None:
    with unplugged_device():
        run, failing = check()
        assert failing == ["sc3"]
        assert run.code != 0
        assert "network cable in at both ends" in " ".join(run.output.split())
        with stopped_database(), nearly_full_disk():
            run, failing = check()
        assert sorted(failing) == ["disk (/)", "influxdb", "sc3"]
        assert run.code != 0
    # Else its back-off would be waited for. As after site.yml, the check waits for the first cycle by itself.
    pi.sudo("systemctl restart power")
    run, failing = check()
    assert failing == []
    assert run.code == 0, run.error
