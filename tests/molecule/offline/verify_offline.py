"""A bundle of the provisioned Pi, then a blank card where neither the Pi nor the laptop has internet.

The laptop stands on the house LAN, in the room's namespace, and its cache of wheels is set aside. The tests run in this order.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearsal import pi, playbook, report
from tests.rehearsal.disturb import virtual_pi, wait_for
from tests.virtual_pi.host import run
from tests.virtual_pi.network import REPOSITORY_PORT, ROOM, WAN_HOST, WAN_PI

TOP = playbook.TOP
BUNDLES = TOP / "bundles"
CACHE = TOP / ".cache"
IN_ROOM = ("ip", "netns", "exec", ROOM)
PI_BY_DHCP = "192.168.1.150"  # what the dead router gives a Pi that has no address of its own yet


def installed() -> str:
    return pi.sudo("dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\\n'")


@pytest.fixture(scope="module")
def packages() -> str:
    """What the first card has installed."""
    return installed()


@pytest.fixture(scope="module")
def bundle(packages: str) -> Iterator[Path]:
    """The bundle of the first card."""
    before = set(BUNDLES.glob("*"))
    assert not before, f"the test makes its own bundle: remove {', '.join(map(str, before))}"
    made = playbook.run("playbooks/bundle.yml")
    assert made.code == 0, made.error
    (folder,) = BUNDLES.glob("*")
    assert f"-e bundle=bundles/{folder.name}" in made.output
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def blank_card(bundle: Path) -> Iterator[None]:
    """Another card, no internet on the Pi's Wi-Fi, none in the room, and a laptop that keeps no wheels."""
    virtual_pi("down")
    virtual_pi("up")
    repository = f"timeout 3 bash -c '</dev/tcp/{WAN_HOST}/{REPOSITORY_PORT}' && echo reached"
    assert pi.sudo(repository, check=False) == "reached\n"
    virtual_pi("wan", "down")
    assert pi.sudo(repository, check=False) == ""
    assert run(*IN_ROOM, "ip", "route", "show", "default").stdout == ""
    aside = CACHE.rename(pi.STATE / "cache")
    yield
    shutil.rmtree(CACHE, ignore_errors=True)
    aside.rename(CACHE)


@pytest.fixture(scope="module")
def by_cable() -> Path:
    """The rehearsal's inventory with the address that a blank card has on the cable."""
    copy = pi.STATE / "inventory"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(TOP / playbook.INVENTORY, copy)
    hosts = copy / "hosts.yml"
    hosts.write_text(hosts.read_text().replace(WAN_PI, PI_BY_DHCP))
    return copy


def site(bundle: Path, inventory: Path) -> playbook.Run:
    return playbook.site("-e", f"bundle={bundle}", inventory=str(inventory), within=IN_ROOM)


def test_a_package_that_no_source_offers_any_more_is_named(packages: str) -> None:
    pi.sudo("mkdir /root/aside && mv /etc/apt/sources.list.d/{influxdata,grafana}.sources /root/aside")
    try:
        run = playbook.run("playbooks/bundle.yml")
    finally:
        pi.sudo("mv /root/aside/* /etc/apt/sources.list.d && rmdir /root/aside")
    assert run.code != 0
    assert "no package source offers any more: grafana " in run.error, run.error
    assert ", influxdb2 " in run.error, run.error
    assert list(BUNDLES.glob("*")) == []


def test_a_screen_that_was_switched_on_since_needs_a_provisioned_pi(packages: str) -> None:
    run = playbook.run("playbooks/bundle.yml", "-e", '{"kiosk_enabled": true}')
    assert run.code != 0
    assert "The Pi lacks brightnessctl, chromium" in run.error, run.error
    assert "run site.yml first" in run.error, run.error


def test_the_bundle_holds_what_was_installed_since_the_image(bundle: Path, packages: str) -> None:
    run("sh", "-c", f"cd {bundle} && sha256sum --check --strict SHA256SUMS")
    image, *first = (bundle / "packages.first").read_text().splitlines()
    assert image.startswith("image: Debian 13")
    added = (bundle / "packages.added").read_text().splitlines()
    now = {line.split(" ", 2)[2] for line in packages.splitlines() if line.startswith(("ii", "hi"))}
    assert set(added) == now - set(first)
    assert {"influxdb2", "grafana", "python3-debian"} <= {line.split()[0] for line in added}
    with tarfile.open(bundle / "packages.tar") as tar:
        names = tar.getnames()
        index = tar.extractfile("Packages")
        assert index is not None
        entries = index.read().decode().split("\n\n")
    assert len(entries) == len(added) == sum(name.endswith(".deb") for name in names)
    assert any(name.startswith("keys/") for name in names)


def test_the_pi_is_left_as_it_was(bundle: Path, packages: str) -> None:
    assert installed() == packages
    assert {"bundle", "packing"}.isdisjoint(pi.sudo("ls /var/lib/power-monitor").split())


def edited(bundle: Path, copy: Path, name: str, content: bytes) -> Path:
    """A bundle that is whole, but has another file."""
    shutil.copytree(bundle, copy)
    manifest = copy / "SHA256SUMS"
    right, other = (hashlib.sha256(text).hexdigest() for text in ((copy / name).read_bytes(), content))
    (copy / name).write_bytes(content)
    manifest.write_text(manifest.read_text().replace(right, other))
    return copy


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image: Debian 13", "image: Raspberry Pi reference 2024-11-19", "a card with Raspberry Pi reference 2024-11-19"),
        ("\nadduser ", "\nadded-by-hand 1.0 all\nadduser ", "it lacks added-by-hand 1.0 all"),
    ],
    ids=["name", "packages"],
)  # fmt: skip
def test_a_card_with_another_image_is_refused(
    bundle: Path, blank_card: None, by_cable: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    before = installed()
    first = (bundle / "packages.first").read_text().replace(old, new, 1)
    run = site(edited(bundle, tmp_path / "other", "packages.first", first.encode()), by_cable)
    assert run.code != 0
    assert "The bundle was made for another image" in run.error, run.error
    assert words in run.error, run.error
    assert installed() == before


def test_wheels_of_another_checkout_are_refused_before_anything_is_installed(
    bundle: Path, blank_card: None, by_cable: Path, tmp_path: Path
) -> None:
    before = installed()
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    empty = (tmp_path / "empty.tar").read_bytes()
    run = site(edited(bundle, tmp_path / "other", "wheels.tar", empty), by_cable)
    assert run.code != 0
    assert "The bundle's wheels do not fit this checkout" in run.error, run.error
    assert installed() == before


def test_a_blank_card_is_provisioned_without_internet(
    bundle: Path, blank_card: None, by_cable: Path, packages: str
) -> None:
    run = site(bundle, by_cable)
    assert run.code == 0, run.error
    assert "no internet is used" in run.output
    wait_for("values of all devices", lambda: not report.missing_devices(report.values()), 60)
    assert installed() == packages


def test_nothing_of_the_bundle_stays(blank_card: None) -> None:
    assert {"bundle", "packing"}.isdisjoint(pi.sudo("ls /var/lib/power-monitor").split())
    assert pi.sudo("grep -rl power-monitor /etc/apt || true") == ""


def test_the_next_run_changes_nothing_and_needs_no_internet_either(blank_card: None) -> None:
    run = playbook.site("-e", "ansible_host=192.168.1.109", within=IN_ROOM)
    assert run.code == 0, run.error
    assert run.changed == ()
