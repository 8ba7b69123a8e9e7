"""A lane is a host of its own with a way to the internet, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.virtual_pi import host, mirror, network
from tests.virtual_pi.state import CHECKOUT

from . import lane
from .__main__ import LONGEST_FIRST, scenarios


def test_each_scenario_has_its_place() -> None:
    assert scenarios() == list(LONGEST_FIRST)


def traces() -> dict[str, object]:
    """What is to be seen of lanes on this host."""

    def lines(*command: str) -> list[str]:
        said = subprocess.check_output(command, text=True)
        return [line for line in said.splitlines() if "lane" in line]

    return {
        "links": lines("ip", "-o", "link"),
        "tables": lines("nft", "list", "tables"),
        "forwarding": network.IP_FORWARD.read_text(),
        "groups": lines("find", "/sys/fs/cgroup", "-maxdepth", "2"),
        "files": lines("find", "/run", "/var/tmp", "-maxdepth", "1"),
        "processes": lines("ps", "-eo", "args", "--ppid", str(os.getpid())),
    }


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("makes namespaces: run as root on Linux")
    host.require(lambda _: None)
    before = traces()
    yield
    assert traces() == before


def in_lane(*argv: str) -> str:
    with lane.internet(), lane.checkout(0) as copy:
        done = lane.run_in(0, copy, argv)
    assert done.returncode == 0, done.stdout
    return done.stdout


LOOK = """
import json, os, pathlib, tests
print(json.dumps({
    "links": sorted(os.listdir("/sys/class/net")),
    "run": os.listdir("/run"),
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "groups": sorted({line.split(":")[2] for line in pathlib.Path("/proc/self/cgroup").read_text().split()}),
    "tests": tests.__file__,
}))
"""


@pytest.mark.machine
def test_a_lane_has_networks_processes_and_a_checkout_of_its_own(nothing_stays: None) -> None:
    Path("/run/of-the-host").touch()
    try:
        seen = json.loads(in_lane("python", "-c", LOOK))
    finally:
        Path("/run/of-the-host").unlink()
    assert seen["links"] == ["lo", "uplink"]
    assert "of-the-host" not in seen["run"]
    assert seen["processes"] < 5
    assert seen["groups"] == ["/"]
    assert seen["tests"] == f"/var/tmp/{lane.NAME}-0/tests/__init__.py"


@pytest.mark.machine
def test_a_lane_reaches_the_name_servers_of_the_host(nothing_stays: None) -> None:
    name = urlsplit(mirror.find().archive).hostname
    assert name is not None
    found = subprocess.check_output(["getent", "ahostsv4", name], text=True)
    assert in_lane("getent", "ahostsv4", name) == found


@pytest.mark.machine
def test_two_sets_of_lanes_are_refused(nothing_stays: None) -> None:
    with lane.internet(), pytest.raises(host.VirtualPiError, match="lanes are at work"), lane.internet():
        pass


@pytest.mark.machine
def test_what_killed_lanes_left_is_taken_away_by_the_next(nothing_stays: None) -> None:
    before = network.IP_FORWARD.read_text()
    code = (
        "from tests.lanes import lane\n"
        "with lane.internet(), lane.checkout(0) as copy:\n"
        "    print('there', flush=True)\n"
        "    lane.run_in(0, copy, ['sleep', '60'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"there\n"
        killed.send_signal(signal.SIGKILL)
    assert network.IP_FORWARD.read_text().strip() == "1"
    in_lane("true")
    assert network.IP_FORWARD.read_text() == before
