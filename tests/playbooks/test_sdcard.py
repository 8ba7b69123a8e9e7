"""playbooks/sdcard.yml on a made-up boot partition: what is refused, what is written, and that nothing of it is told.

Whether cloud-init and netplan take the files, and what a card that booted from them is like, is looked at on the virtual Pi
(tests/molecule/default/verify_blank_card.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.virtual_pi import boot_partition

TOP = Path(__file__).resolve().parents[2]
PASSWORD = 'Wi-Fi "words" of the test'
VALUES = {"sdcard_wifi_network": 'the "hotspot"', "sdcard_wifi_country": "US"}


@dataclass(frozen=True)
class Run:
    code: int
    output: str

    @property
    def changed(self) -> int:
        recap = self.output.partition("PLAY RECAP")[2]
        return sum(int(word.partition("=")[2]) for word in recap.split() if word.startswith("changed="))


class Laptop:
    """A laptop with a key, and with secrets of a site of its own."""

    def __init__(self, site: str, folder: Path) -> None:
        self.site = site
        self.key = folder / "id_ed25519"
        self.key.with_suffix(".pub").write_text("ssh-ed25519 AAAAlaptop me@laptop\n")
        self.secrets = TOP / "secrets" / site
        self.forget()

    def forget(self) -> None:
        shutil.rmtree(self.secrets, ignore_errors=True)

    def know_the_password(self) -> None:
        self.secrets.mkdir(mode=0o700, parents=True)
        (self.secrets / "wifi_password").write_text(PASSWORD + "\n")

    def sdcard(
        self,
        card: Path | None,
        *arguments: str,
        within: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **values: Any,
    ) -> Run:
        said = {
            **VALUES,
            "power_room_site": self.site,
            "ansible_ssh_private_key_file": str(self.key),
            **values,
        }
        if card is not None:
            said["card"] = str(card)
        done = subprocess.run(
            [
                *within,
                Path(sys.executable).with_name("ansible-playbook"),
                *("-i", "inventory/ranch/hosts.yml", "playbooks/sdcard.yml", "-e", json.dumps(said)),
                *arguments,
            ],
            cwd=TOP,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Run(done.returncode, " ".join((done.stdout + done.stderr).split()))


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop("sdcard-test", tmp_path)
    yield laptop
    laptop.forget()


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return boot_partition.lay(tmp_path / "me" / "bootfs")


def contents(card: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in card.iterdir()}


def replace(card: Path, name: str, old: str, new: str) -> None:
    text = (card / name).read_text()
    assert old in text
    (card / name).write_text(text.replace(old, new))


# What is refused


def bookworm(card: Path) -> None:
    replace(card, "cmdline.txt", "resize", "quiet init=/usr/lib/raspberrypi-sys-mods/firstboot")
    for name in ("user-data", "meta-data", "network-config"):
        (card / name).unlink()


def first_trixie(card: Path) -> None:
    replace(card, "issue.txt", "2026-06-18", "2025-10-01")


def ubuntu(card: Path) -> None:
    (card / "issue.txt").unlink()


def other_system(card: Path) -> None:
    (card / "issue.txt").write_text("Some other system 2026-06-18\n")


def of_32_bits(card: Path) -> None:
    (card / "kernel7.img").touch()


def booted(card: Path) -> None:
    replace(card, "cmdline.txt", " resize", "")


def empty(card: Path) -> None:
    for path in card.iterdir():
        path.unlink()


REFUSED: list[tuple[Callable[[Path], None], str, str]] = [
    (empty, "no boot partition of Raspberry Pi OS (no config.txt, no cmdline.txt, no issue.txt)", "`bootfs`"),
    (ubuntu, "no boot partition of Raspberry Pi OS (no issue.txt)", "`bootfs`"),
    (other_system, "issue.txt is of another system", "`bootfs`"),
    (bookworm, "not Raspberry Pi OS Trixie", "flash Raspberry Pi OS (64-bit)"),
    (first_trixie, "an image of 2025-10-01", "flash Raspberry Pi OS (64-bit)"),
    (of_32_bits, "32-bit", "flash Raspberry Pi OS (64-bit)"),
    (booted, "has booted already", "flash it again"),
]


@pytest.mark.parametrize(("how", "cause", "remedy"), REFUSED, ids=[case[0].__name__ for case in REFUSED])
def test_what_is_no_fresh_trixie_card_is_refused_and_left_alone(
    laptop: Laptop, card: Path, how: Callable[[Path], None], cause: str, remedy: str
) -> None:
    laptop.know_the_password()
    how(card)
    before = contents(card)
    run = laptop.sdcard(card)
    assert run.code != 0
    assert cause in run.output, run.output
    assert remedy in run.output
    assert contents(card) == before
    assert [path.name for path in laptop.secrets.iterdir()] == ["wifi_password"]


def test_a_card_that_is_not_named_or_not_there_is_asked_for(laptop: Laptop, tmp_path: Path) -> None:
    for where, cause in ((None, "Where is the card?"), (tmp_path / "gone", "gone is no directory")):
        run = laptop.sdcard(where)
        assert run.code != 0
        assert cause in run.output, run.output
        assert "-e card=/media/me/bootfs" in run.output


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a directory read-only: run as root on Linux")
def test_a_locked_card_is_refused(laptop: Laptop, card: Path) -> None:
    laptop.know_the_password()
    lock = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    run = laptop.sdcard(card, within=("unshare", "--mount", "sh", "-c", lock, str(card)))
    assert run.code != 0
    assert "cannot be written to: slide the card's lock open" in run.output, run.output


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"sdcard_wifi_network": None}, "sdcard_wifi_network is the name"),
        ({"sdcard_wifi_country": "usa"}, "sdcard_wifi_country"),
        ({"sdcard_wifi_contry": "US"}, "unknown variable (misspelt?): sdcard_wifi_contry"),
        ({"power_room_timezone": "America/Nowhere"}, "America/Nowhere"),
        ({"power_room_site": "../ranch"}, "power_room_site"),
        ({"ansible_ssh_private_key_file": "/nowhere/id"}, "/nowhere/id.pub"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_refused_by_name(
    laptop: Laptop, card: Path, value: dict[str, Any], named: str
) -> None:
    before = contents(card)
    run = laptop.sdcard(card, **value)
    assert run.code != 0
    assert named in run.output, run.output
    assert contents(card) == before
    assert not laptop.secrets.exists()


def test_an_unknown_or_impossible_wifi_password_is_refused_before_the_card_is_touched(
    laptop: Laptop, card: Path
) -> None:
    before = contents(card)
    run = laptop.sdcard(card)
    assert run.code != 0
    assert f"write it into {laptop.secrets}/wifi_password" in run.output, run.output
    (laptop.secrets / "wifi_password").write_text("short12\n")
    run = laptop.sdcard(card)
    assert run.code != 0
    assert "8 to 63" in run.output, run.output
    assert "short12" not in run.output
    assert contents(card) == before


# What is written


@dataclass(frozen=True)
class Preset:
    """A card that was preset, the laptop that did it, and what it showed meanwhile."""

    laptop: Laptop
    card: Path
    run: Run


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preset]:
    folder = tmp_path_factory.mktemp("preset")
    laptop = Laptop("sdcard-preset-test", folder)
    laptop.know_the_password()
    (laptop.secrets / "wifi_password").chmod(0o644)
    card = boot_partition.lay(folder / "bootfs")
    yield Preset(laptop, card, laptop.sdcard(card, "-vvv", "--diff"))
    laptop.forget()


def test_the_card_holds_what_the_inventory_says(preset: Preset) -> None:
    assert preset.run.code == 0, preset.run.output
    card = preset.card

    text = (card / "user-data").read_text()
    assert text.startswith("#cloud-config\n")
    user = yaml.safe_load(text)
    assert (user["hostname"], user["timezone"]) == ("power", "America/Los_Angeles")
    assert user["user"] == {
        "name": "pi",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": ["ssh-ed25519 AAAAlaptop me@laptop"],
    }
    assert user["ssh_pwauth"] is False
    assert ["systemctl", "enable", "ssh.service"] in user["runcmd"]

    network = yaml.safe_load((card / "network-config").read_text())["network"]
    assert network["ethernets"] == {"eth0": {"dhcp4": True, "optional": True}}
    wlan0 = network["wifis"]["wlan0"]
    assert wlan0["regulatory-domain"] == "US"
    assert wlan0["access-points"] == {'the "hotspot"': {"password": PASSWORD}}

    fresh = boot_partition.FILES["cmdline.txt"].strip()
    ours = f"cgroup_enable=memory cfg80211.ieee80211_regdom=US ds=nocloud;i={instance(card)}"
    assert (card / "cmdline.txt").read_text() == f"{fresh} {ours}\n"

    assert contents(card).keys() == boot_partition.FILES.keys()
    for name in ("config.txt", "issue.txt", "kernel8.img"):
        assert (card / name).read_text() == boot_partition.FILES[name]


def instance(card: Path) -> str:
    return str(yaml.safe_load((card / "meta-data").read_text())["instance-id"])


def test_secrets_are_readable_by_their_owner_only_and_never_shown(preset: Preset) -> None:
    secrets = preset.laptop.secrets
    assert "Write what the first boot reads" in preset.run.output
    assert "BEGIN OPENSSH" not in preset.run.output
    assert (secrets / "ssh_host_ed25519_key").read_text().splitlines()[1] not in preset.run.output
    assert PASSWORD not in preset.run.output
    assert json.dumps(PASSWORD)[1:-1] not in preset.run.output
    for path in [secrets, *secrets.rglob("*")]:
        assert oct(path.stat().st_mode)[-3:] == ("700" if path.is_dir() else "600"), path


def test_a_second_run_changes_nothing_and_what_is_replaced_is_kept(preset: Preset) -> None:
    laptop, card = preset.laptop, preset.card
    written = contents(card)
    flashed = {name: text.encode() for name, text in boot_partition.FILES.items()}
    kept = {path.name: path.read_bytes() for path in laptop.secrets.glob("replaced/*/*")}
    assert kept == {name: flashed[name] for name in flashed if written[name] != flashed[name]}

    run = laptop.sdcard(card)
    assert run.code == 0, run.output
    assert run.changed == 0
    assert contents(card) == written

    replace(card, "user-data", "timezone: America/Los_Angeles", "timezone: Asia/Tokyo")
    by_hand = (card / "user-data").read_text()
    assert laptop.sdcard(card).code == 0
    assert contents(card) == written
    assert by_hand in [path.read_text() for path in laptop.secrets.glob("replaced/*/user-data")]


def test_a_new_card_is_another_instance_with_the_same_host_key(preset: Preset, card: Path) -> None:
    secrets = preset.laptop.secrets
    known = (secrets / "known_hosts").read_text()
    assert preset.laptop.sdcard(card).code == 0
    assert instance(card) != instance(preset.card)
    assert (secrets / "known_hosts").read_text() == known
    public = subprocess.check_output(["ssh-keygen", "-y", "-f", secrets / "ssh_host_ed25519_key"], text=True)
    assert known == f"power-{preset.laptop.site} {public}"
    for one in (preset.card, card):
        files = {
            file["path"]: file for file in yaml.safe_load((one / "user-data").read_text())["write_files"]
        }
        host_key = files["/etc/ssh/power_host_ed25519_key"]
        assert host_key["content"] == (secrets / "ssh_host_ed25519_key").read_text()
        assert host_key["permissions"] == "0600"
        assert "power_host_ed25519_key" in files["/etc/ssh/sshd_config.d/10-power.conf"]["content"]


def test_what_imager_presets_gives_way(laptop: Laptop, card: Path) -> None:
    """Its instance ID on the kernel's command line would go before ours."""
    laptop.know_the_password()
    replace(card, "cmdline.txt", "\n", " cfg80211.ieee80211_regdom=GB ds=nocloud;i=rpi-imager-1764430000000")
    (card / "meta-data").write_text("instance-id: rpi-imager-1764430000000\n")
    assert laptop.sdcard(card).code == 0
    line = (card / "cmdline.txt").read_text()
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert "rpi-imager" not in line + (card / "meta-data").read_text()
    assert [word for word in line.split() if "regdom" in word] == ["cfg80211.ieee80211_regdom=US"]


def test_without_wifi_there_is_neither_section_nor_password(laptop: Laptop, card: Path) -> None:
    run = laptop.sdcard(card, sdcard_wifi_network="")
    assert run.code == 0, run.output
    assert "wifis" not in (card / "network-config").read_text()
    assert "regdom" not in (card / "cmdline.txt").read_text()
    assert not (laptop.secrets / "wifi_password").exists()


# As on FAT: a mode other than the one that all files have is refused. Stands in for a real one, which not every kernel can mount.
FAT = """
import errno, os
CARD = {card!r}
for name in ("chmod", "chown"):
    def refusing(path, *values, _name=name, _real=getattr(os, name), **options):
        if os.fsdecode(path).startswith(CARD) and (_name == "chown" or values[0] & 0o777 != 0o755):
            raise PermissionError(errno.EPERM, "as on FAT", path)
        return _real(path, *values, **options)
    setattr(os, name, refusing)
"""


def test_a_file_system_without_modes_and_owners_will_do(laptop: Laptop, card: Path, tmp_path: Path) -> None:
    laptop.know_the_password()
    for path in card.iterdir():
        path.chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(FAT.format(card=str(card)))
    run = laptop.sdcard(card, environment={"PYTHONPATH": str(tmp_path)})
    assert run.code == 0, run.output
    assert "hostname: power" in (card / "user-data").read_text()
    assert {path.name for path in card.iterdir()} == boot_partition.FILES.keys()
