"""The upgrade of a running site, and what a power cut leaves that is rarely met. The tests run in this order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.powercut.running import KILLABLE
from tests.rehearsal import pi, playbook, report
from tests.rehearsal.disturb import newest_time, virtual_pi, wait_for
from tests.rehearsal.footprint import footprint, stale_services
from tests.vendor.prepare import VENDORS, offer_newer

VENDOR_STATE = pi.STATE / "vendor"
PACKAGES = tuple(vendor.names[0] for vendor in VENDORS)


def versions() -> dict[str, str]:
    shown = pi.sudo(f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {' '.join(PACKAGES)}")
    return dict(line.split() for line in shown.splitlines())


@pytest.fixture(scope="module")
def older() -> dict[str, str]:
    """Package -> the version that is installed before the upgrade."""
    return versions()


def points_until(moment: int) -> int:
    (one,) = pi.influxql(f"SELECT count(points) FROM collector_status WHERE time <= {moment}s")
    return int(one["values"][0][1])


@pytest.fixture(scope="module")
def newer() -> dict[str, str]:
    """Package -> a newer version, which the repository offers beside the one that is installed."""
    offered = offer_newer(VENDOR_STATE, os.environ)
    if not offered:
        pytest.skip("no newer package is known: name a folder of them in POWER_VENDOR_DEBS_NEWER")
    return offered


def pinned(to: dict[str, str]) -> list[str]:
    """The arguments that stand for an inventory with these versions."""
    role = {vendor.names[0]: vendor.role for vendor in VENDORS}
    return [word for name, version in to.items() for word in ("-e", f"{role[name]}_package={name}={version}")]


def test_a_version_that_nobody_offers_is_refused_with_what_there_is(
    older: dict[str, str], newer: dict[str, str]
) -> None:
    run = playbook.site("--tags", "influxdb", "-e", "influxdb_package=influxdb2=99.*")
    assert run.code != 0
    assert "No version matches influxdb2=99.*" in run.error
    for version in (older["influxdb2"], newer["influxdb2"]):
        assert version in run.error
    assert versions() == older


def test_a_half_unpacked_package_is_finished_at_the_pinned_version(
    older: dict[str, str], newer: dict[str, str]
) -> None:
    """As a power cut leaves it, and although the repository offers a newer one."""
    pi.sudo(
        "sed -i '/^Package: influxdb2$/,/^$/s/^Status: .*/Status: install reinstreq half-installed/' /var/lib/dpkg/status"
    )
    assert pi.sudo("dpkg --audit") != ""
    run = playbook.site("--tags", "base,influxdb", *pinned(older))
    assert run.code == 0, run.error
    assert pi.sudo("dpkg --audit") == ""
    assert versions() == older
    assert "influxdb2" in pi.sudo("apt-mark showhold").split()


# The times stay: the server answers that it has nothing newer.
TEAR = """
cd /var/lib/apt/lists
for file in *_InRelease *_Packages; do
    touch -r "$file" /root/times
    : >"$file"
    touch -r /root/times "$file"
done
rm /root/times
sync
"""


def test_the_raised_versions_are_installed_in_place_and_the_readings_kept(
    older: dict[str, str], newer: dict[str, str]
) -> None:
    """After a power cut that tore apt's lists."""
    pi.sudo(TEAR)
    virtual_pi("power-cut")
    wait_for("the database", lambda: pi.sudo("systemctl is-active influxdb", check=False) == "active\n", 60)
    moment = int(time.time()) - 30
    kept = points_until(moment)
    assert kept > 0
    run = playbook.site(*pinned(newer))
    assert run.code == 0, run.error
    assert versions() == older | newer
    held = pi.sudo("apt-mark showhold").split()
    assert set(PACKAGES) <= set(held)
    assert stale_services() == []
    assert points_until(moment) == kept
    now = int(time.time())
    wait_for("new readings", lambda: newest_time() > now, 60)
    assert not report.missing_devices(report.values())


def test_a_second_run_changes_nothing(newer: dict[str, str]) -> None:
    before = footprint()
    run = playbook.site(*pinned(newer))
    assert run.code == 0, run.error
    assert run.changed == ()
    assert footprint() == before


def test_the_way_back_is_refused_with_what_there_is(older: dict[str, str], newer: dict[str, str]) -> None:
    run = playbook.site("--tags", "influxdb", *pinned(older))
    assert run.code != 0
    assert f"influxdb2 {newer['influxdb2']} is installed" in run.error
    assert "a fresh card" in run.error
    assert versions() == older | newer


def test_a_run_waits_for_what_a_killed_one_left_at_work() -> None:
    ansible = str(Path(sys.executable).with_name("ansible"))
    left = "sleep 45"
    call = [ansible, "-i", playbook.INVENTORY, "monitor", "-b", "-m", "ansible.builtin.command", "-a", left]
    with subprocess.Popen([*KILLABLE, *call], cwd=playbook.TOP, stdout=subprocess.DEVNULL) as killed:
        wait_for("the task", lambda: pi.sudo(f"pgrep -fx '{left}'", check=False), 60)
        killed.kill()
    assert pi.sudo(f"pgrep -fx '{left}'", check=False) != ""
    run = playbook.site("--tags", "network")
    assert run.code == 0, run.error
    assert pi.sudo(f"pgrep -fx '{left}'", check=False) == ""


# Without the operator token and without a reading: as a server that a power cut met in the middle of its setup.
HALF_SET_UP = """
systemctl stop power influxdb
find /var/lib/influxdb -mindepth 1 -delete
systemctl start influxdb
curl -sS --fail --retry 30 --retry-all-errors -o /dev/null http://127.0.0.1:8086/ready
curl -sS --fail -o /dev/null http://127.0.0.1:8086/api/v2/setup --data \
    '{"username": "admin", "password": "of-another", "org": "Parks Ranch", "bucket": "power", "token": "of-another"}'
"""


def test_a_setup_that_was_cut_off_is_begun_anew(older: dict[str, str], newer: dict[str, str]) -> None:
    """The last test: no reading is left for another."""
    pi.sudo(HALF_SET_UP, timeout_s=120)
    run = playbook.site("--tags", "influxdb,collector", *pinned(newer))
    assert run.code == 0, run.error
    assert "Set it up" in " ".join(run.changed)
    now = int(time.time())
    wait_for("new readings", lambda: newest_time() > now, 90)
