"""Cards: the base card that is built once and cached, and the blank card of each run with its preset."""

import hashlib
import json
import os
import platform
import shutil
import textwrap
from pathlib import Path

from . import mirror
from .host import Say, VirtualPiError, run
from .state import HOME, State

CARD = HOME / "card.img"
MOUNT = HOME / "card"
PRESET = HOME / "preset"
KEY = HOME / "id_ed25519"
HOST_KEY = HOME / "host_ed25519"
KNOWN_HOSTS = HOME / "known_hosts"
SIZE = "4G"
# What a Raspberry Pi OS Lite card plausibly has, and nothing that a role would have to bring.
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-timesyncd", "dbus", "python3", "python3-venv", "iproute2", "procps", "sudo",
    "openssh-server", "network-manager", "netplan.io", "cloud-init", "avahi-daemon", "ca-certificates", "curl",
)  # fmt: skip
# As Raspberry Pi OS Trixie: cloud-init reads its preset from the boot partition.
FILES = {
    "etc/cloud/cloud.cfg.d/99_boot_firmware.cfg": (
        "datasource_list: [NoCloud, None]\ndatasource:\n  NoCloud:\n    seedfrom: file:///boot/firmware\n"
    ),
    "etc/machine-id": "",
}
REMOVED = ("etc/hostname", "etc/resolv.conf", "etc/ssh/ssh_host_*", "var/log/*.log", "var/log/apt/*")
DISABLED = ("ssh.service", "ssh.socket")

USER_DATA = """\
#cloud-config
hostname: power
manage_etc_hosts: true
user:
  name: pi
  shell: /bin/bash
  lock_passwd: true
  sudo: ALL=(ALL) NOPASSWD:ALL
  ssh_authorized_keys:
    - {public_key}
ssh_pwauth: false
ssh_keys:
  ed25519_private: |
{host_private_key}
  ed25519_public: {host_public_key}
runcmd:
  - [systemctl, enable, --now, ssh.service]
"""
# Imager's file, but for wlan0: netplan's `wifis:` does not attach to a virtual Ethernet pair. The metric is Wi-Fi's.
NETWORK_CONFIG = """\
network:
  version: 2
  renderer: NetworkManager
  ethernets:
    eth0:
      dhcp4: true
      optional: true
    wlan0:
      dhcp4: true
      optional: true
      dhcp4-overrides:
        route-metric: 600
"""


def cache_directory() -> Path:
    """Where base cards are kept between runs and between checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "power-rehearsal"


def recipe_key(source: mirror.Mirror, options: list[str]) -> str:
    """A name for everything that decides what is on the base card."""
    recipe = [platform.machine(), SIZE, PACKAGES, FILES, REMOVED, DISABLED, source.sources(), options]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def base_card(state: State, say: Say) -> Path:
    """Return the cached base card, building it first where it is not there yet."""
    source, options, cache = mirror.find(), mirror.options(), cache_directory()
    image = cache / f"base-{recipe_key(source, options)}.ext4"
    if image.exists():
        return image
    say("base card: building it with mmdebstrap (once; half a minute to two minutes)")
    work = cache / "building"
    state.record("path", str(work))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    run(
        # Own mount and process namespaces: whatever ends this, no mount and no process of the build stays behind.
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "mmdebstrap", "--quiet", "--variant=apt",
        *(f"--aptopt={option}" for option in options),
        f"--include={','.join(PACKAGES)}", mirror.SUITE, root, *source.sources(),
        timeout=900,
    )  # fmt: skip
    for pattern in REMOVED:
        for file in root.glob(pattern):
            file.unlink()
    for name, content in FILES.items():
        (root / name).write_text(content, encoding="utf-8")
    (root / "boot/firmware").mkdir()
    run("systemctl", f"--root={root}", "disable", *DISABLED)
    say("base card: making its file system")
    new = work / "card.ext4"
    run("truncate", "-s", SIZE, new)
    run("mkfs.ext4", "-q", "-L", "rootfs", "-E", "assume_storage_prezeroed=1", "-d", root, new, timeout=300)
    with new.open("rb") as written:
        os.fsync(written.fileno())
    for older in cache.glob("base-*.ext4"):
        older.unlink()
    new.replace(image)
    shutil.rmtree(work)
    return image


def blank_card(state: State, base: Path) -> None:
    """Make this run's card: a copy of the base card with the preset on its boot partition, as Imager leaves it."""
    for path in (CARD, MOUNT, PRESET):
        state.record("path", str(path))
    state.record("loop", str(CARD))
    run("cp", "--sparse=always", "--reflink=auto", base, CARD, timeout=300)
    MOUNT.mkdir(exist_ok=True)
    _write_preset()
    # Mounts are made in a mount namespace of their own, here and in machine.py: the kernel undoes them with their last
    # process, however that ends, and the loop device with them.
    script = 'mount -o loop "$1" "$2" && cp "$3"/* "$2/boot/firmware/" && umount "$2"'
    run("unshare", "--mount", "sh", "-c", script, "sh", CARD, MOUNT, PRESET)


def make_keys(hosts: str) -> None:
    """Make the user's key and the machine's host key once; ``hosts`` are the known_hosts patterns it answers to."""
    HOME.mkdir(exist_ok=True)
    for key in (KEY, HOST_KEY):
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f", key)
    KNOWN_HOSTS.write_text(f"{hosts} {_public(HOST_KEY)}\n", encoding="utf-8")


def user_data(public_key: str, host_private_key: str, host_public_key: str) -> str:
    """What Imager writes as user-data, and the host key, so that known_hosts can be strict."""
    return USER_DATA.format(
        public_key=public_key,
        host_private_key=textwrap.indent(host_private_key.strip(), "    "),
        host_public_key=host_public_key,
    )


def _write_preset() -> None:
    PRESET.mkdir(mode=0o700, exist_ok=True)
    user = user_data(_public(KEY), HOST_KEY.read_text(encoding="utf-8"), _public(HOST_KEY))
    (PRESET / "user-data").write_text(user, encoding="utf-8")
    (PRESET / "network-config").write_text(NETWORK_CONFIG, encoding="utf-8")
    (PRESET / "meta-data").write_text("instance-id: rehearsal\n", encoding="utf-8")


def _public(key: Path) -> str:
    return key.with_suffix(".pub").read_text(encoding="utf-8").strip()


def require_space() -> None:
    """Refuse where the card could not grow."""
    if (free := shutil.disk_usage(HOME.parent).free) < 5 * 2**30:
        raise VirtualPiError(f"only {free / 2**30:.1f} GiB are free beside the checkout: make room for 5 GiB")
