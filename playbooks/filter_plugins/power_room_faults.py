"""What an argument specification cannot see: values of the inventory that contradict each other."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ansible.errors import AnsibleFilterError

Device = Mapping[str, Any]

MODBUS_PORT = 502
TIMEOUT_S = 2.0
LONGEST_INTERVAL_S = 30


def _place(number: int, device: Device) -> str:
    return f"power_room_devices[{number}] ({device['name']})"


def _shared(devices: Sequence[Device]) -> Iterator[str]:
    """Names, addresses and legacy measurements that two devices have in common."""
    seen: dict[tuple[str, str], str] = {}
    for number, device in enumerate(devices, start=1):
        values = {
            "name": device["name"],
            "address": f"{device['host']}:{device.get('port', MODBUS_PORT)}",
            "legacy_measurement": device.get("legacy_measurement"),
        }
        for key, value in values.items():
            if value is None:
                continue
            other = seen.setdefault((key, value), _place(number, device))
            if other != _place(number, device):
                yield f"{_place(number, device)}: {key} {value} is already that of {other}"


def _keys(devices: Sequence[Device]) -> Iterator[str]:
    """Values of a single device that do not fit its driver or their own form."""
    for number, device in enumerate(devices, start=1):
        place, is_outback = _place(number, device), device["driver"] == "outback"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", device["name"]):
            yield f"{place}: name may have letters, digits, - and _ only"
        if not 1 <= int(device.get("port", MODBUS_PORT)) <= 65535:
            yield f"{place}: port {device['port']} is not in 1..65535"
        if not 0.1 <= float(device.get("timeout_s", TIMEOUT_S)) <= 60:
            yield f"{place}: timeout_s {device['timeout_s']} is not in 0.1..60 s"
        legacy = device.get("legacy_measurement")
        if legacy is not None and is_outback:
            yield f"{place}: legacy_measurement belongs to chargers, not to an outback device"
        elif legacy is not None and not re.fullmatch(r"solar_charger_[0-9]+", legacy):
            yield f"{place}: legacy_measurement {legacy} is not of the form solar_charger_1"
        if device.get("float16") and device["driver"] != "tristar-mppt-600v":
            yield f"{place}: float16 belongs to a tristar-mppt-600v, not to {device['driver']}"


def _time_outs(devices: Sequence[Device], interval_s: int) -> Iterator[str]:
    """Time-outs that would cost all devices their cycles when one is silent."""
    for number, device in enumerate(devices, start=1):
        timeout_s = float(device.get("timeout_s", TIMEOUT_S))
        if timeout_s >= interval_s:
            yield (
                f"{_place(number, device)}: timeout_s {timeout_s:g} is not below"
                f" power_room_interval_s ({interval_s}): one silent device would cost all their cycles"
            )


def _inverters(devices: Sequence[Device], inverters: int) -> Iterator[str]:
    hubs = [_place(n, d) for n, d in enumerate(devices, start=1) if d["driver"] == "outback"]
    if len(hubs) > 1:
        yield f"power_room_devices: {len(hubs)} outback devices ({', '.join(hubs)}), only one can be read"
    if inverters and not hubs:
        yield f"power_room_inverters is {inverters}, but no device has the driver outback"
    if hubs and not 1 <= inverters <= 10:
        yield f"power_room_inverters is {inverters}, but {hubs[0]} needs 1..10"


def _addresses(devices: Sequence[Device], network_address: str) -> Iterator[str]:
    """Devices that the Pi could not reach over its cable."""
    try:
        own = ipaddress.IPv4Interface(network_address)
    except ValueError as error:
        yield f"network_address {network_address!r}: {error}; write it like 192.168.1.109/24"
        return
    if "/" not in network_address or not 8 <= own.network.prefixlen <= 30:
        yield f"network_address {network_address!r} needs a prefix of /8 to /30, like 192.168.1.109/24"
        return
    unusable = {own.network.network_address, own.network.broadcast_address}
    if own.ip in unusable:
        yield f"network_address {network_address} is no host's address of {own.network}"
    for number, device in enumerate(devices, start=1):
        try:
            host = ipaddress.IPv4Address(device["host"])
        except ValueError:
            yield f"{_place(number, device)}: host {device['host']!r} is not an IPv4 address"
            continue
        if host == own.ip:
            yield f"{_place(number, device)}: host {host} is the Pi's own (network_address)"
        elif host not in own.network or host in unusable:
            yield f"{_place(number, device)}: host {host} is not on the cable's network {own.network}"


def _names(room: Mapping[str, Any]) -> Iterator[str]:
    """Names that InfluxDB would refuse, or take for its own."""
    if not room["power_room_organization"].strip():
        yield "power_room_organization is empty"
    if not re.fullmatch(r'[^_"/\\][^"/\\]*', room["power_room_bucket"]):
        yield f"power_room_bucket {room['power_room_bucket']!r} begins with _ or has quotes or slashes"


def _place_and_time(room: Mapping[str, Any]) -> Iterator[str]:
    for name, bound in (("power_room_latitude", 90), ("power_room_longitude", 180)):
        if not -bound <= float(room[name]) <= bound:
            yield f"{name} {room[name]} is not in -{bound}..{bound} degrees"
    if not 1 <= int(room["power_room_interval_s"]) <= LONGEST_INTERVAL_S:
        yield (
            f"power_room_interval_s {room['power_room_interval_s']} is not in 1..{LONGEST_INTERVAL_S} s:"
            " the screen says no data after two minutes without a reading"
        )
    timezone = room["power_room_timezone"]
    if _is_zone("UTC") and not _is_zone(timezone):  # UTC: a laptop may have no tz database
        yield f"power_room_timezone {timezone!r} is no time zone, such as America/Los_Angeles"
    elif _is_zone(timezone) and (hours := _hours_apart(float(room["power_room_longitude"]), timezone)) > 4:
        yield (
            f"power_room_longitude {room['power_room_longitude']} is {hours:.0f} hours away from"
            f" power_room_timezone {timezone}: east of Greenwich is positive, west (America) negative"
        )


def _hours_apart(longitude: float, timezone: str) -> float:
    """How far a zone's standard time is from the sun's, 0..12 h; about 3 at most where people live."""
    new_year = datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(timezone))
    offset = (new_year.utcoffset() or timedelta()) - (new_year.dst() or timedelta())
    apart = abs(offset / timedelta(hours=1) - longitude / 15) % 24
    return min(apart, 24 - apart)


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder
        return False
    return True


def power_room_faults(room: Mapping[str, Any], network_address: str) -> list[str]:
    """List the contradictions of a power room, each with its place; devices are counted from 1.

    Args:
        room: the `power_room_*` variables; their types have been checked by the argument specifications,
            which take "3" for 3, so numbers are converted here.
        network_address: the Pi's own address on the cable with its prefix, `192.168.1.109/24`.

    Raises:
        AnsibleFilterError: a variable or a device's key is missing, which the specifications refuse.
    """
    try:
        devices = room["power_room_devices"]
        return [
            *_names(room),
            *_place_and_time(room),
            *_shared(devices),
            *_keys(devices),
            *_time_outs(devices, int(room["power_room_interval_s"])),
            *_inverters(devices, int(room["power_room_inverters"])),
            *_addresses(devices, network_address),
        ]
    except KeyError as error:
        raise AnsibleFilterError(f"power_room_faults: {error} is missing") from error


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"power_room_faults": power_room_faults}
