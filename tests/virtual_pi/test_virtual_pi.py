"""The virtual Pi's tool: its pure parts everywhere, the machine itself where there is root."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from . import architecture, card, host, machine, mirror, network, room, state
from .host import VirtualPiError

TOOL = [sys.executable, "-m", "tests.virtual_pi"]
NEEDS_ROOT = "boots a machine under systemd-nspawn: run as root on Linux"


# --- pure parts


def test_an_ethernet_wlan0_behind_the_cable_stands_in_for_the_radio() -> None:
    written = """
        network:
          version: 2
          ethernets: {eth0: {dhcp4: true, optional: true}}
          wifis: {wlan0: {dhcp4: true, optional: true, access-points: {home: {password: "secret words"}}}}
    """
    network = yaml.safe_load(card.without_radio(written))["network"]

    assert "wifis" not in network
    assert network["ethernets"]["eth0"] == {"dhcp4": True, "optional": True}
    wlan0 = {"dhcp4": True, "optional": True, "dhcp4-overrides": {"route-metric": 600}}
    assert network["ethernets"]["wlan0"] == wlan0


def test_another_recipe_is_another_base_card(monkeypatch: pytest.MonkeyPatch) -> None:
    here = mirror.Mirror("http://archive.test/debian")
    keys = {card.recipe_key(here, []), card.recipe_key(mirror.Mirror("http://other.test/debian"), [])}
    keys.add(card.recipe_key(here, ['Acquire::Retries "3";']))
    monkeypatch.setattr(card, "PACKAGES", (*card.PACKAGES, "tree"))
    keys.add(card.recipe_key(here, []))

    assert len(keys) == 4


@pytest.mark.parametrize(("wanted", "sandboxes"), [("amd64", True), ("arm64", False)])
def test_services_do_without_sandboxes_where_qemu_runs_them(
    monkeypatch: pytest.MonkeyPatch, wanted: str, sandboxes: bool
) -> None:
    monkeypatch.setattr(architecture, "native", lambda: "amd64")
    monkeypatch.setenv(architecture.WANTED, wanted)
    content = architecture.files(["192.0.2.1"])
    assert any("\nProtectSystem=no\n" in text for text in content.values()) is not sandboxes
    assert ("nameserver 192.0.2.1\n" in content.values()) is not sandboxes


def test_an_architecture_that_cannot_be_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "native", lambda: "amd64")
    monkeypatch.setenv(architecture.WANTED, "armhf")
    with pytest.raises(VirtualPiError, match="only amd64 and arm64 can be run here"):
        architecture.architecture()


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, content in files.items():
        (folder / "sources.list.d" / name.replace("_", ".")).write_text(content)
    return folder


def test_the_mirror_is_the_hosts_own_in_either_format(tmp_path: Path) -> None:
    sources = (
        "Types: deb\nURIs: http://off.test/debian\nEnabled: no\n\n"
        "Types: deb\nURIs: http://m.test/debian/\nSuites: bookworm\n\n"
        "Types: deb\nURIs: http://m.test/debian-security\nSuites: bookworm-security\n"
    )
    found = mirror.find(apt(tmp_path, debian_sources=sources, x_list="deb http://vendor.test/x y z\n"), {})

    assert found == mirror.Mirror("http://m.test/debian", "http://m.test/debian-security")
    assert found.sources()[0] == "deb http://m.test/debian trixie main"
    assert found.sources()[-1] == "deb http://m.test/debian-security trixie-security main"


def test_the_mirror_is_found_in_a_list_and_in_a_mirror_file(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"
    mirrors.write_text("https://cloud.test/debian\n")
    (tmp_path / "sources.list").write_text(f"# old\ndeb [arch=amd64] mirror+file:{mirrors} bookworm main\n")

    assert mirror.find(tmp_path, {}) == mirror.Mirror("https://cloud.test/debian")


def test_a_host_without_a_debian_archive_is_told_the_remedy(tmp_path: Path) -> None:
    apt(tmp_path, ubuntu_list="deb http://archive.test/ubuntu noble main\n")

    with pytest.raises(VirtualPiError, match="POWER_DEBIAN_MIRROR=http"):
        mirror.find(tmp_path, {})
    named = mirror.find(tmp_path, {"POWER_DEBIAN_MIRROR": "http://m.test/debian/"})
    assert named == mirror.Mirror("http://m.test/debian")


def test_name_servers_on_loopback_are_no_use_to_the_pi(tmp_path: Path) -> None:
    stub, upstream = tmp_path / "stub", tmp_path / "upstream"
    stub.write_text("nameserver 127.0.0.53\nnameserver ::1\n")
    with pytest.raises(VirtualPiError, match="no name server"):
        network.resolvers(stub, upstream)
    upstream.write_text("search test\nnameserver 192.0.2.53\n")
    assert network.resolvers(stub, upstream) == ["192.0.2.53"]


def test_the_house_lan_is_derived_from_the_devices() -> None:
    addresses = network.RoomAddresses(["192.168.7.101", "192.168.7.20", "192.168.7.101"])

    assert addresses.devices == ["192.168.7.20", "192.168.7.101"]
    assert (addresses.router, addresses.laptop) == ("192.168.7.1", "192.168.7.50")


@pytest.mark.parametrize("devices", [["192.168.7.2", "192.168.8.2"], ["192.168.7.2", "192.168.7.1"]])
def test_a_device_outside_of_the_lan_or_on_the_routers_address_is_refused(devices: list[str]) -> None:
    with pytest.raises(VirtualPiError, match="mend power_room_devices"):
        network.RoomAddresses(devices)


def inventory(folder: Path, devices: str) -> Path:
    file = folder / "group_vars/all/power_room.yml"
    file.parent.mkdir(parents=True)
    file.write_text(f"---\npower_room_devices: {devices}\n")
    return folder


def test_the_devices_come_from_the_inventory(tmp_path: Path) -> None:
    found = room.devices(inventory(tmp_path, "[{host: 192.168.1.100, port: 1025}, {host: 192.168.1.101}]"))

    assert found == [room.Endpoint("192.168.1.100", 1025), room.Endpoint("192.168.1.101", 502)]


@pytest.mark.parametrize("devices", ["", "[]", "[{port: 1}]", "[{host: h, port: x}]", "[", "3"])
def test_an_inventory_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path, devices: str) -> None:
    with pytest.raises(VirtualPiError, match=r"power_room\.yml"):
        room.devices(inventory(tmp_path, devices))


def test_without_root_every_command_is_refused_in_one_line() -> None:
    drop = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    for command in (["up"], ["down"], ["reboot"], ["power-cut"], ["status"], ["wan", "up"]):
        refused = subprocess.run(
            [*drop, *TOOL, *command],
            cwd=state.CHECKOUT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert refused.returncode == 1
        assert refused.stderr.splitlines() == [
            "virtual Pi: the virtual Pi needs root (it makes namespaces and loop devices): run it with sudo"
        ]


@pytest.mark.parametrize(("program", "words"), [("unshare", "no namespaces"), ("losetup", "no loop device")])
def test_a_host_without_namespaces_or_loop_devices_is_refused(
    monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    def run(*argv: str, **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, returncode=int(argv[0] == program), stdout="", stderr="")

    monkeypatch.setattr(host, "run", run)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(VirtualPiError, match=words):
        host.require(lambda _: None)


# --- the record of what was made


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> state.State:
    monkeypatch.setattr(state, "RUN", tmp_path / "run")
    monkeypatch.setattr(state, "STATE", tmp_path / "run/state.json")
    return state.State.claim(tmp_path)


def test_a_second_virtual_pi_is_refused_with_the_place_of_the_first(record: state.State) -> None:
    with pytest.raises(
        VirtualPiError, match=f"made by {state.CHECKOUT}: `cd {state.CHECKOUT} && .* down` first"
    ):
        state.State.claim(Path())


def test_another_checkouts_virtual_pi_is_left_alone(record: state.State) -> None:
    content = json.loads(state.STATE.read_text())
    state.STATE.write_text(json.dumps(content | {"checkout": "/elsewhere"}))

    with pytest.raises(VirtualPiError, match="belongs to /elsewhere"):
        state.State.own()


def test_what_was_recorded_and_never_made_is_no_trouble(record: state.State, tmp_path: Path) -> None:
    record.record("path", str(tmp_path / "never made"))
    record.record("process", "never-started")
    (state.RUN / "half.pid").write_text("12")
    record.record("process", "half")

    assert record.undo() == []
    assert not state.RUN.exists()
    assert state.State.load() is None


def test_what_would_not_go_is_named_and_stays_recorded(record: state.State, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    record.record("path", str(file))
    record.record("sysctl", str(tmp_path / "no/such/folder"), "1")

    (failure,) = record.undo()
    assert failure.startswith("sysctl ")
    assert not file.exists()
    assert state.State.own().things == record.things


@pytest.fixture
def sleeper(record: state.State, tmp_path: Path) -> Iterator[str]:
    state.start(record, "sleeper", ["sh", "-c", "sleep 60 & sleep 60"], tmp_path / "log")
    yield "sleeper"
    state.end("sleeper")


def test_a_session_is_ended_with_its_children(record: state.State, sleeper: str) -> None:
    host.wait_until("two more", lambda: len(state.processes(sleeper)) == 3, 10, "")
    pids = state.processes(sleeper)

    assert record.undo() == []
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def test_a_number_that_now_belongs_to_somebody_else_is_left_alone(record: state.State, sleeper: str) -> None:
    file = state.RUN / "sleeper.pid"
    pid, start, boot = file.read_text().split()
    file.write_text(f"{pid} {int(start) - 1} {boot}")

    state.end(sleeper)

    assert Path(f"/proc/{pid}/exe").exists()
    file.write_text(f"{pid} {start} {boot}")


# --- the machine


def tool(*arguments: str | Path, expect: int = 0) -> str:
    done = subprocess.run(
        [*TOOL, *map(str, arguments)],
        cwd=state.CHECKOUT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def traces() -> dict[str, list[str]]:
    """What is to be seen on this host of any virtual Pi, by other means than the tool's own."""

    def lines(*command: str, word: str) -> list[str]:
        return [line for line in subprocess.check_output(command, text=True).splitlines() if word in line]

    return {
        "namespaces": lines("ip", "netns", "list", word="power-"),
        "links": lines("ip", "-o", "link", word="power-"),
        "tables": lines("nft", "list", "tables", word="power_rehearsal"),
        "loops": lines("losetup", "--noheadings", "--output", "BACK-FILE", "--list", word=str(state.HOME)),
        "mounts": lines("cat", "/proc/mounts", word=str(state.HOME)),
        "processes": lines("ps", "-eo", "pid,args", word=str(state.HOME))
        + lines("ps", "-eo", "pid,args", word="tests.virtual_pi.machine"),
        "forwarding": lines("cat", "/proc/sys/net/ipv4/ip_forward", word=""),
        "groups": lines("find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", "power-rehearsal", word=""),
        "state": lines("find", "/run", "-maxdepth", "4", "-name", "power-rehearsal", word=""),
    }


@pytest.fixture
def up_arguments(tmp_path: Path) -> Iterator[list[str]]:
    """A room of one device that only listens. Whatever a test does, nothing is left at its end."""
    if os.geteuid() != 0:
        pytest.skip(NEEDS_ROOT)
    host.require(lambda _: None)  # what traces() asks with may be missing on a new machine
    before = traces()
    where = inventory(tmp_path, "[{host: 192.168.1.100, port: 1025}]")
    listener = "python3 -m http.server 1025 --bind 192.168.1.100 --directory /var/empty"
    yield ["up", "--inventory", str(where), "--simulator", listener, "--room-config", "/dev/null"]
    tool("down")
    assert traces() == before
    assert not card.CARD.exists()


@pytest.mark.machine
def test_from_a_blank_card_through_reboot_and_power_cut_to_nothing_left(up_arguments: list[str]) -> None:
    tool(*up_arguments)
    status = tool("status")
    assert "1 of 1 devices listen" in status
    assert "MISSING" not in status
    assert "there is a virtual Pi already" in tool(*up_arguments, expect=1)
    assert tool("ssh", "--", "hostname; id -un; sudo id -un").split() == ["power", "pi", "root"]
    # The router on the cable takes the default route and the first name server, and leads nowhere.
    assert "192.168.1.1 dev eth0" in tool("ssh", "--", "ip route get 9.9.9.9").replace("via ", "")
    assert tool("ssh", "--", "grep nameserver /etc/resolv.conf").split()[1] == "192.168.1.1"
    assert tool("exec-room", "--", "ip", "route", "get", "192.168.1.150").split()[4] == "192.168.1.50"

    first = machine.boot_id()
    tool("reboot")
    second = machine.boot_id()
    assert first != second
    # As Ansible asks for it: the machine comes back by itself.
    tool("ssh", "--", "sudo systemd-run --quiet --on-active=1 systemctl reboot")
    machine.wait_ssh(lambda _: None, not_boot=second)

    tool("ssh", "--", "echo kept > kept; sync; echo lost > lost.new; mv lost.new lost")
    tool("power-cut")
    # What was synced is there; the other file is empty or missing.
    assert tool("ssh", "--", "cat kept; cat lost 2>/dev/null || true").split() == ["kept"]
    assert tool("ssh", "--", "systemctl is-system-running --wait").strip() == "running"


@pytest.mark.machine
def test_the_wan_goes_away_and_ssh_stays(up_arguments: list[str]) -> None:
    tool(*up_arguments)
    repository = f"curl -sS -o /dev/null -m 3 http://{network.WAN_HOST}:{network.REPOSITORY_PORT}/"
    tool("ssh", "--", repository)
    tool("wan", "down")
    assert "internet down" in tool("status")
    tool("ssh", "--", repository, expect=28)
    tool("wan", "up")
    assert "internet up" in tool("status")
    tool("ssh", "--", repository)


def begin_until(
    arguments: list[str], words: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `up` and return at the moment when it says these words."""
    process = subprocess.Popen(
        [*TOOL, *arguments],
        cwd=state.CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return process
    raise AssertionError(f"`up` ended with {process.wait()} before it said {words!r}")


@pytest.mark.machine
@pytest.mark.parametrize(
    "moment",
    ["card: blank", "room: 1 addresses", "WAN:", "first boot", "simulator", "waiting for SSH", "SSH answers"],
)
def test_a_killed_up_is_cleaned_by_down(up_arguments: list[str], moment: str) -> None:
    process = begin_until(up_arguments, moment)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    if moment == "WAN:":  # no machine yet: there is nothing whose power could be cut
        assert "only half made" in tool("power-cut", expect=1)
    # The fixture runs `down` and looks.


@pytest.mark.machine
@pytest.mark.parametrize(
    ("words", "file"),
    [("building it", "building/root/usr/bin/dpkg"), ("making its file system", "building/card.ext4")],
)
def test_a_base_card_whose_making_was_killed_is_never_believed(
    up_arguments: list[str], tmp_path: Path, words: str, file: str
) -> None:
    cache = tmp_path / "cache/power-rehearsal"
    process = begin_until(up_arguments, f"base card: {words}", {"XDG_CACHE_HOME": str(cache.parent)})
    host.wait_until(file, (cache / file).exists, 60, "")
    process.kill()
    process.wait(timeout=30)
    tool("down")
    assert list(cache.iterdir()) == []


@pytest.mark.machine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_cleans_up_itself(up_arguments: list[str], number: signal.Signals) -> None:
    process = begin_until(up_arguments, "waiting for SSH")
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert state.State.load() is None
    assert not card.CARD.exists()
