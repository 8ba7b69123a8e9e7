"""A card that has booted once, before site.yml: what its preset has made of it, and what must be refused and leave nothing behind."""

from __future__ import annotations

import base64
import subprocess
import time
from pathlib import Path

import yaml

from tests.rehearsal import pi, playbook
from tests.virtual_pi.card import BOOT, HOST_KEY_ALIAS, KNOWN_HOSTS
from tests.virtual_pi.network import WAN_PI


def installed() -> str:
    return pi.sudo("dpkg-query -W -f '${Package} ${Version}\\n'; ls /etc/apt/sources.list.d /opt")


def test_the_first_boot_did_what_the_preset_says() -> None:
    assert pi.sudo("hostname; timedatectl show --property Timezone --value").split() == [
        "power",
        "America/Los_Angeles",
    ]
    instance = yaml.safe_load((BOOT / "meta-data").read_text(encoding="utf-8"))["instance-id"]
    assert pi.sudo("cat /var/lib/cloud/data/instance-id").strip() == instance
    assert pi.sudo("sshd -T | grep -i ^passwordauthentication").split()[1] == "no"
    assert pi.sudo("sudo -u pi sudo -n id -un").strip() == "root"


def test_the_pi_shows_the_sites_host_key_and_no_other() -> None:
    shown = subprocess.run(
        ["ssh-keyscan", "-T", "10", WAN_PI], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    known = pi.secret("known_hosts").split()
    assert known[0] == HOST_KEY_ALIAS
    assert [line.split()[1:3] for line in shown if not line.startswith("#")] == [known[1:3]]


def test_another_host_key_than_the_sites_is_refused_with_the_remedy(tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True, timeout=30)
    known = KNOWN_HOSTS.read_text(encoding="utf-8")
    KNOWN_HOSTS.write_text(f"{HOST_KEY_ALIAS} {other.with_suffix('.pub').read_text()}", encoding="utf-8")
    try:
        run = playbook.site("-e", "ansible_control_path=none")  # an open connection would be believed
    finally:
        KNOWN_HOSTS.write_text(known, encoding="utf-8")
    assert run.code != 0
    assert "has another host key than the one in secrets/rehearsal/known_hosts" in run.error, run.error
    assert f"ssh-keygen -R {HOST_KEY_ALIAS} -f secrets/rehearsal/known_hosts" in run.error


def test_after_the_first_boot_a_services_user_finds_neither_host_key_nor_wifi_password() -> None:
    password = pi.secret("wifi_password")
    assert password in (BOOT / "network-config").read_text(encoding="utf-8")
    line = pi.secret("ssh_host_ed25519_key").splitlines()[1]
    search = f"grep -rlsF -e '{password}' -e '{line}' /boot /etc /var /run"
    assert "/etc/ssh/power_host_ed25519_key" in pi.sudo(search).split()
    assert pi.sudo(f"setpriv --reuid=65534 --regid=65534 --clear-groups {search}", check=False) == ""
    assert "hostname: power" in pi.sudo("cat /boot/firmware/user-data")


def test_cloud_init_and_netplan_take_the_files_as_they_were_written() -> None:
    """With the Wi-Fi section, for which the virtual card has an Ethernet one."""
    put = "".join(
        f"base64 -d > {name} <<< {base64.b64encode((BOOT / name).read_bytes()).decode()}\n"
        for name in ("user-data", "network-config")
    )
    try:
        pi.sudo(
            f"set -e\nmkdir -p /root/preset/etc/netplan\ncd /root/preset\n{put}"
            "cloud-init schema --config-file user-data\n"
            "cloud-init schema --config-file network-config --schema-type network-config\n"
            "install -m 600 network-config etc/netplan/50-cloud-init.yaml\n"
            "netplan generate --root-dir /root/preset\n"
        )
        wifi = pi.sudo("cat /root/preset/run/NetworkManager/system-connections/netplan-wlan0-*")
        assert "ssid=a hotspot" in wifi
        assert f"psk={pi.secret('wifi_password')}" in wifi
        assert "iw reg set US" in pi.sudo("cat /root/preset/run/systemd/system/netplan-regdom.service")
    finally:
        pi.sudo("rm -rf /root/preset")


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
    """Nor is the Pi bound to the secrets of the run before, which set nothing up: a lost one is made anew."""
    (pi.SECRETS / "influxdb_operator_token").unlink()
    run = playbook.site("-e", f"influxdb_repository_key_fingerprint={'0' * 40}")
    assert run.code != 0
    assert "nothing of influxdb2 was installed" in run.error, run.error
    assert "influxdb" not in installed()
