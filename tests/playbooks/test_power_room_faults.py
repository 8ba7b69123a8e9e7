"""The inventory's contradictions are named with their place."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]  # the checkout, seen from tests/<folder>/
ADDRESS = "192.168.1.109/24"


def faults(address: str = ADDRESS, devices: dict[int, dict[str, Any]] | None = None, **changes: Any) -> str:
    spec = importlib.util.spec_from_file_location(
        "faults", TOP / "playbooks/filter_plugins/power_room_faults.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    room = yaml.safe_load((TOP / "inventory/ranch/group_vars/all/power_room.yml").read_text(encoding="utf-8"))
    room.update(changes)
    for number, change in (devices or {}).items():
        room["power_room_devices"][number].update(change)
    return "; ".join(module.power_room_faults(room, address))


def test_the_ranch_has_none() -> None:
    assert faults() == ""


@pytest.mark.parametrize(
    ("said", "given"),
    [
        (
            "power_room_devices[3] (sc1): name sc1 is already that of power_room_devices[2] (sc1)",
            {"devices": {2: {"name": "sc1"}}},
        ),
        ("address 192.168.1.101:1025 is already", {"devices": {2: {"host": "192.168.1.101"}}}),
        (
            "legacy_measurement solar_charger_1 is already",
            {"devices": {2: {"legacy_measurement": "solar_charger_1"}}},
        ),
        ("2 outback devices", {"devices": {1: {"driver": "outback"}}}),
        ("belongs to chargers", {"devices": {0: {"legacy_measurement": "solar_charger_9"}}}),
        ("the Pi's own", {"devices": {3: {"host": "192.168.1.109"}}}),
        ("is not on the cable's network", {"devices": {3: {"host": "192.168.2.103"}}}),
        ("is not an IPv4 address", {"devices": {3: {"host": "sc3.local"}}}),
        ("timeout_s 15 is not below power_room_interval_s", {"devices": {3: {"timeout_s": 15}}}),
        ("port 70000 is not in", {"devices": {3: {"port": "70000"}}}),
        ("needs a prefix", {"address": "192.168.1.109"}),
        ("no host's address", {"address": "192.168.1.255/24"}),
        ("no device has the driver outback", {"devices": {0: {"driver": "tristar-mppt"}}}),
        ("needs 1..10", {"power_room_inverters": 0}),
        ("is no time zone", {"power_room_timezone": "America/Los_Angels"}),
        ("power_room_latitude 95 is not in", {"power_room_latitude": 95}),
        ("east of Greenwich is positive, west (America) negative", {"power_room_longitude": 119}),
        ("power_room_interval_s 60 is not in 1..30 s: the screen", {"power_room_interval_s": 60}),
    ],
)
def test_a_contradiction_is_named(said: str, given: dict[str, Any]) -> None:
    assert said in faults(**given)


@pytest.mark.parametrize(
    ("longitude", "timezone"),
    [
        (-119.0, "America/Los_Angeles"),
        (75.9, "Asia/Shanghai"),  # Kashgar, three hours from its zone
        (-157.4, "Pacific/Kiritimati"),  # beyond the date line
        (151.2, "Australia/Sydney"),
        (-8.5, "Europe/Dublin"),
    ],
)
def test_places_that_are_far_from_their_zone_are_taken(longitude: float, timezone: str) -> None:
    assert faults(power_room_longitude=longitude, power_room_timezone=timezone) == ""
