"""A card that has booted once, before site.yml: what must be refused, and leave nothing behind."""

from __future__ import annotations

import time

from tests.rehearsal import pi, playbook


def installed() -> str:
    return pi.sudo("dpkg-query -W -f '${Package} ${Version}\\n'; ls /etc/apt/sources.list.d /opt")


def test_without_the_network_role_the_run_goes_red_and_says_why() -> None:
    """The router on the cable offers a gateway and a name server that lead nowhere, and the cable wins."""
    before = installed()
    started = time.monotonic()
    run = playbook.site("--skip-tags", "network")
    assert run.code != 0
    assert "eth0" in run.error, run.error
    assert "network" in run.error, run.error
    assert time.monotonic() - started < 90
    assert installed() == before


def test_a_wrong_vendor_key_is_refused_and_nothing_of_the_vendor_installed() -> None:
    run = playbook.site("-e", f"influxdb_repository_key_fingerprint={'0' * 40}")
    assert run.code != 0
    assert "nothing of influxdb2 was installed" in run.error, run.error
    assert "influxdb" not in installed()
