"""What the probe prints: rows, the block for a report, JSON, and yaml that the inventory takes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from power_collector.config import DeviceConfig
from power_collector.devices.sunspec import Block
from power_collector.probe import Finding, Kind, show
from power_collector.probe.finding import HubDevice, printable

TOP = Path(__file__).parents[2]
RANCH = TOP / "inventory" / "ranch" / "group_vars" / "all" / "power_room.yml"


def hub(host="192.168.1.100", **more) -> Finding:
    values = {"model": "MATE3S", "firmware": "001.004.317", "port": 1025, "connections": 1, "requests": 20}
    finding = Finding(**{"host": host, "kind": Kind.OUTBACK, **values, **more})
    finding.hub = finding.hub or [HubDevice(port, 64115) for port in (1, 2, 3)]
    return finding


def charger(number: int, kind=Kind.TRISTAR_600V) -> Finding:
    return Finding(f"192.168.1.10{number}", 1025, kind, model="TS-MPPT-60-600V-48", serial="24010001")


OTHERS = [
    Finding("192.168.1.120", 502, Kind.SUNSPEC, maker="Sunny Works", blocks=[Block(103, 40069, 50)]),
    Finding("192.168.1.121", 502, Kind.MODBUS),
    Finding("192.168.1.122", 502, Kind.NOT_MODBUS),
    Finding("192.168.1.123", 502, Kind.MUTE, notes=["closed the connection"]),
]


@pytest.fixture
def faults():
    """The check that site.yml makes of an inventory."""
    path = TOP / "playbooks" / "filter_plugins" / "power_room_faults.py"
    spec = importlib.util.spec_from_file_location("power_room_faults", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda room: module.power_room_faults(room, "192.168.1.109/24")


def room_with(text: str):
    return yaml.safe_load(RANCH.read_text(encoding="utf-8")) | yaml.safe_load(text)


def test_the_ranchs_devices_give_the_ranchs_inventory(faults):
    text = show.as_yaml([hub(), *map(charger, range(1, 7))], "192.168.1.0/24")
    assert room_with(text) == yaml.safe_load(RANCH.read_text(encoding="utf-8"))
    assert faults(room_with(text)) == []


def test_a_mixed_room(faults):
    found = [
        hub(model="AXS_PORT", hub=[HubDevice(1, 64117), HubDevice(2, 64113), HubDevice(3, 64118)]),
        hub("192.168.1.110"),
        charger(1, Kind.TRISTAR_150V),
        *OTHERS,
    ]
    text = show.as_yaml(found, "192.168.1.0/24")
    room = room_with(text)
    assert faults(room) == []
    assert room["power_room_inverters"] == 1
    assert [(one["name"], one["driver"]) for one in room["power_room_devices"]] == [
        ("axs-port", "outback"),
        ("sc1", "tristar-mppt"),
    ]
    for device in room["power_room_devices"]:
        DeviceConfig.model_validate(device | ({"inverters": 1} if device["driver"] == "outback" else {}))
    assert "#   192.168.1.110:1025: OutBack MATE3s (MATE3S): only one OutBack device can be read" in text
    for one in OTHERS:
        assert f"#   {one.address}: " in text
    assert "the names have shifted" in text
    assert "the names have shifted" not in show.as_yaml(found[:-1], "")


def test_nothing_that_can_be_read(faults):
    text = show.as_yaml(OTHERS, "")
    assert yaml.safe_load(text) == {"power_room_inverters": 0, "power_room_devices": []}


def test_an_outback_device_without_inverters_asks_for_their_number(faults):
    bare = hub()
    bare.hub.clear()
    text = show.as_yaml([bare], "")
    assert "put in how many there are" in text
    assert faults(room_with(text)) == [
        "power_room_inverters is 0, but power_room_devices[1] (mate3s) needs 1..10"
    ]


def test_no_text_of_a_device_breaks_out_of_a_comment():
    evil = printable(b"x\nhosts: all # \x1b[2J \xff")
    text = show.as_yaml([Finding("10.0.0.1", 502, Kind.MODBUS, maker=evil)], "")
    assert yaml.safe_load(text) == {"power_room_inverters": 0, "power_room_devices": []}
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))


def test_the_table_has_a_row_a_finding_and_its_notes():
    lines = show.as_table([hub(), charger(1), *OTHERS]).splitlines()
    assert lines[0].split() == ["address", "what", "it", "is", "firmware", "serial", "behind", "it"]
    assert lines[1].startswith("192.168.1.100:1025  OutBack MATE3s (MATE3S)")
    assert lines[1].endswith("3 x split-phase inverter (ports 1, 2, 3)")
    assert "TriStar MPPT 600V (TS-MPPT-60-600V-48)" in lines[2]
    assert "another SunSpec inverter (model 103): Sunny Works" in lines[3]
    assert "listens, does not answer" in lines[6]
    assert lines[7] == "    closed the connection"


def test_the_report_is_one_block_without_serial_numbers():
    one = hub(facts={"end of the chain": "65535, 0 at 41084"}, notes=["asked again"])
    text = show.as_report([one, charger(1)], "192.168.1.0/24, 254 hosts")
    assert text.splitlines() == [
        "---- copy from here into a report ----",
        "power-collector probe: 192.168.1.0/24, 254 hosts",
        "192.168.1.100:1025  OutBack MATE3s (MATE3S)",
        "  firmware: 001.004.317",
        "  on the HUB: 3 x split-phase inverter (ports 1, 2, 3)",
        "  end of the chain: 65535, 0 at 41084",
        "  note: asked again",
        "  20 requests in 1 connection",
        "192.168.1.101:1025  TriStar MPPT 600V (TS-MPPT-60-600V-48)",
        "  0 requests in 0 connections",
        "---- to here ----",
    ]


def test_json_has_everything():
    mate3s, other = json.loads(show.as_json([hub(), OTHERS[0]]))
    assert (mate3s["kind"], mate3s["driver"], mate3s["host"]) == ("outback", "outback", "192.168.1.100")
    assert mate3s["hub"][0] == {"port": 1, "model_id": 64115}
    assert (other["kind"], other["driver"]) == ("sunspec", None)
    assert other["blocks"] == [{"model_id": 103, "address": 40069, "length": 50}]
