"""Cards: the base card that is built once and cached, and the blank card of each run with its preset."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from . import boot_partition, mirror, network
from .architecture import architecture, files, is_emulated
from .host import Say, VirtualPiError, program, run
from .state import CHECKOUT, HOME, State

CARD = HOME / "card.img"
MOUNT = HOME / "card"
BOOT = HOME / "bootfs"  # what playbooks/sdcard.yml has written
NETWORK_CONFIG = HOME / "network-config"
KEY = HOME / "id_ed25519"
INVENTORY = CHECKOUT / "inventory/rehearsal"
SECRETS = CHECKOUT / "secrets/rehearsal"
KNOWN_HOSTS = (
    HOME / "known_hosts"
)  # the site's, as it was when the card was made: tests take the secrets away
HOST_KEY_ALIAS = "power-rehearsal"
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
DISABLED_UNDER_QEMU = ("NetworkManager.service", "NetworkManager-wait-online.service")


def cache_directory() -> Path:
    """Where base cards are kept between runs and between checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "power-rehearsal"


def content() -> dict[str, str]:
    """The base card's own files: path -> content."""
    return FILES | files(network.resolvers() if is_emulated() else [])


def disabled() -> tuple[str, ...]:
    """Units that do not start at a boot."""
    return DISABLED + (DISABLED_UNDER_QEMU if is_emulated() else ())


def recipe_key(source: mirror.Mirror, options: list[str]) -> str:
    """A name for everything that decides what is on the base card."""
    recipe = [architecture(), SIZE, PACKAGES, content(), REMOVED, disabled(), source.sources(), options]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def base_card(state: State, say: Say) -> Path:
    """Return the cached base card, building it first where it is not there yet."""
    source, options, cache = mirror.find(), mirror.options(), cache_directory()
    image = cache / f"base-{architecture()}-{recipe_key(source, options)}.ext4"
    cache.mkdir(parents=True, exist_ok=True)
    lock = os.open(cache, os.O_RDONLY)  # two lanes share the cache
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            _build_base_card(image, source, options, state, say)
    finally:
        os.close(lock)
    return image


def _build_base_card(image: Path, source: mirror.Mirror, options: list[str], state: State, say: Say) -> None:
    cache = image.parent
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
        f"--architectures={architecture()}", f"--include={','.join(PACKAGES)}", mirror.SUITE, root, *source.sources(),
        timeout=5400 if is_emulated() else 1800,
    )  # fmt: skip
    for pattern in REMOVED:
        for file in root.glob(pattern):
            file.unlink()
    for name, text in content().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "boot/firmware").mkdir()
    run("systemctl", f"--root={root}", "disable", *disabled())
    say("base card: making its file system")
    new = work / "card.ext4"
    run("truncate", "-s", SIZE, new)
    run("mkfs.ext4", "-q", "-L", "rootfs", "-E", "assume_storage_prezeroed=1", "-d", root, new, timeout=300)
    with new.open("rb") as written:
        os.fsync(written.fileno())
    for older in cache.glob(f"base-{architecture()}-*.ext4"):
        older.unlink()
    new.replace(image)
    shutil.rmtree(work)


def blank_card(state: State, base: Path, say: Say) -> None:
    """Make this run's card: a copy of the base card, preset by playbooks/sdcard.yml as an owner would do it."""
    for path in (CARD, MOUNT, BOOT, NETWORK_CONFIG):
        state.record("path", str(path))
    state.record("loop", str(CARD))
    run("cp", "--sparse=always", "--reflink=auto", base, CARD, timeout=300)
    MOUNT.mkdir(exist_ok=True)
    preset()
    say("card: no radio here: an Ethernet wlan0 stands in for the Wi-Fi section of network-config")
    NETWORK_CONFIG.write_text(
        without_radio((BOOT / "network-config").read_text(encoding="utf-8")), encoding="utf-8"
    )
    # Mounts are made in a mount namespace of their own, here and in machine.py: the kernel undoes them with their last
    # process, however that ends, and the loop device with them.
    script = 'mount -o loop "$1" "$2" && cp "$3"/* "$2/boot/firmware/" && cp "$4" "$2/boot/firmware/" && umount "$2"'
    run("unshare", "--mount", "sh", "-c", script, "sh", CARD, MOUNT, BOOT, NETWORK_CONFIG)


def make_key() -> None:
    """Make the laptop's key once."""
    HOME.mkdir(exist_ok=True)
    if not KEY.with_suffix(".pub").exists():
        KEY.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f", KEY)


def preset() -> None:
    """Run playbooks/sdcard.yml on a fresh boot partition."""
    shutil.rmtree(BOOT, ignore_errors=True)
    boot_partition.lay(BOOT)
    SECRETS.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = SECRETS / "wifi_password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
    run(
        # A process namespace of its own: whatever ends this, no task goes on.
        "unshare", "--pid", "--fork", "--kill-child",
        "env", "ANSIBLE_NOCOLOR=1", f"ANSIBLE_CONFIG={CHECKOUT / 'ansible.cfg'}", program("ansible-playbook"),
        "-i", INVENTORY / "hosts.yml", CHECKOUT / "playbooks/sdcard.yml", "-e", json.dumps({"card": str(BOOT)}),
        timeout=120,
    )  # fmt: skip
    shutil.copy(SECRETS / "known_hosts", KNOWN_HOSTS)
    shutil.rmtree(SECRETS / "replaced", ignore_errors=True)  # of a card that was made up


def without_radio(network_config: str) -> str:
    """Put an Ethernet wlan0 in place of the Wi-Fi one: netplan's `wifis:` does not attach to a virtual Ethernet pair."""
    import yaml  # not at the top: a machine without the virtual environment is to hear a better word of it

    content = yaml.safe_load(network_config)
    wlan0 = content["network"].pop("wifis")["wlan0"]
    # The metric is Wi-Fi's.
    content["network"]["ethernets"]["wlan0"] = {
        "dhcp4": wlan0["dhcp4"],
        "optional": wlan0["optional"],
        "dhcp4-overrides": {"route-metric": 600},
    }
    return str(yaml.safe_dump(content))


def require_space() -> None:
    """Refuse where the card could not grow."""
    if (free := shutil.disk_usage(HOME.parent).free) < 5 * 2**30:
        raise VirtualPiError(f"only {free / 2**30:.1f} GiB are free beside the checkout: make room for 5 GiB")
