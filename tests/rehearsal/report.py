"""What the rehearsal shows at its end: what was provisioned, the last values in the database, where to look."""

from __future__ import annotations

import json
import time
from typing import Any

import yaml

from tests.virtual_pi.network import WAN_PI

from . import pi
from .playbook import INVENTORY, TOP

PROBE = "sudo -u pi /opt/power-collector/bin/power-collector probe 192.168.1.0/24"
"""Looks at the whole room from inside the Pi; no privilege is needed."""

# One telling value for each driver: measurement, field, unit.
_VALUE = {
    "outback": ("inverter", "battery_voltage_v", "V at the battery"),
    "tristar-mppt-600v": ("charge_controller", "output_power_w", "W into the battery"),
    "tristar-mppt": ("charge_controller", "output_power_w", "W into the battery"),
}


def devices() -> list[dict[str, Any]]:
    """The devices of the rehearsal's inventory."""
    room = TOP / INVENTORY / "group_vars" / "all" / "power_room.yml"
    return list(yaml.safe_load(room.read_text(encoding="utf-8"))["power_room_devices"])


def values() -> dict[str, tuple[float, int]]:
    """Device name -> its telling value and its time, of the last minute, read back from the database."""
    found = {}
    for device in devices():
        measurement, field, _ = _VALUE[device["driver"]]
        series = pi.influxql(
            f'SELECT last("{field}") FROM "{measurement}" WHERE "device" = \'{device["name"]}\' AND time > now() - 1m'
        )
        if series:
            at, value = series[0]["values"][0]
            found[device["name"]] = (value, at)
    return found


def wait_for_values(*, timeout_s: float) -> dict[str, tuple[float, int]]:
    """Wait until every device has a value in the database, or the time is up."""
    deadline = time.monotonic() + timeout_s
    while missing_devices(found := values()) and time.monotonic() < deadline:
        time.sleep(2)
    return found


def clock() -> str:
    """Whose time the newest points carry, by the data contract's number."""
    says = {0: "none yet", 1: "a time server", 2: "the MATE3s's clock", 3: "nobody: unverified"}
    series = pi.influxql("SELECT last(clock_source) FROM collector_status")
    source = series[0]["values"][0][1] if series else 0
    return f"{source} ({says[source]})"


def missing_devices(found: dict[str, tuple[float, int]]) -> list[str]:
    """The devices without a value."""
    return [device["name"] for device in devices() if device["name"] not in found]


def text(found: dict[str, tuple[float, int]]) -> str:
    """The report."""
    lines = ["", "== provisioned"]
    versions = pi.sudo(
        "dpkg-query -W -f '${Package} ${Version}\\n' influxdb2 grafana; "
        '/opt/power-collector/bin/python -c \'import importlib.metadata as m; print("power-collector", m.version("power-collector"))\''
    )
    states = pi.sudo("systemctl is-active influxdb grafana-server power | paste -sd' '", check=False)
    lines += [f"  {line}" for line in versions.splitlines()]
    lines.append(f"  influxdb, grafana-server, power: {states.strip()}")
    lines += ["", "== last values, read back from the database"]
    for device in devices():
        unit = _VALUE[device["driver"]][2]
        if device["name"] in found:
            value, at = found[device["name"]]
            when = time.strftime("%H:%M:%S", time.localtime(at))
            lines.append(f"  {device['name']:8} {device['host']:15} {value:10.1f} {unit}, {when}")
        else:
            lines.append(f"  {device['name']:8} {device['host']:15} {'no data':>10}")
    lines.append(f"  their times are vouched for by {clock()}")
    lines += [
        "",
        "== where to look",
        f"  the dashboard   http://{WAN_PI}:3000",
        "  the machine     .venv/bin/python -m tests.virtual_pi ssh",
        "  the collector   .venv/bin/python -m tests.virtual_pi ssh -- journalctl -u power -n 20",
        "  the playbooks   . .venv/bin/activate; ansible-playbook -i inventory/rehearsal/hosts.yml playbooks/check.yml",
        "  take it down    make rehearse-down",
        "",
        "== vendor packages",
    ]
    sources = json.loads((pi.STATE / "vendor" / "sources.json").read_text(encoding="utf-8"))
    lines += [f"  {source['says']}" for source in sources]
    return "\n".join(lines)
