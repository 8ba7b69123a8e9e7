"""What was found, for people, for programs, and for the inventory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

from power_collector.devices.outback import INVERTER_MODELS
from power_collector.probe.chain import HUB_DEVICES, SUNSPEC_INVERTERS
from power_collector.probe.finding import Finding, Kind

_COLUMNS = ("address", "what it is", "firmware", "serial", "behind it")
_REPORT_BEGIN = "---- copy from here into a report ----"
_REPORT_END = "---- to here ----"


def what(finding: Finding) -> str:
    """Return in words what was found."""
    told = " ".join(filter(None, (finding.maker, finding.model)))
    model = f" ({finding.model})" if finding.model else ""
    match finding.kind:
        case Kind.OUTBACK:
            return f"OutBack {'AXS Port' if 'AXS' in finding.model.upper() else 'MATE3s'}{model}"
        case Kind.TRISTAR_600V:
            return f"TriStar MPPT 600V{model}"
        case Kind.TRISTAR_150V:
            return f"TriStar MPPT 150 V{model}"
        case Kind.SUNSPEC:
            models = [block.model_id for block in finding.blocks if block.model_id in SUNSPEC_INVERTERS]
            thing = f"SunSpec inverter (model {models[0]})" if models else "SunSpec device"
            return f"another {thing}: {told or 'maker not told'}"
        case Kind.MODBUS:
            return f"another Modbus device: {told or 'it does not tell what'}"
        case Kind.NOT_MODBUS:
            return "not a Modbus device"
        case Kind.MUTE:
            return "listens, does not answer"


def behind(finding: Finding) -> str:
    """Return what hangs on the HUB, "3 x split-phase inverter (ports 1, 2, 3)"."""
    parts = []
    for model_id, name in HUB_DEVICES.items():
        ports = [
            "?" if one.port is None else str(one.port) for one in finding.hub if one.model_id == model_id
        ]
        if ports:
            parts.append(f"{len(ports)} x {name} (port{'s' * (len(ports) > 1)} {', '.join(ports)})")
    return ", ".join(parts)


def as_table(findings: Sequence[Finding]) -> str:
    """Return a row a finding, and what the owner should know of it beneath."""
    rows = [_COLUMNS] + [(f.address, what(f), f.firmware, f.serial, behind(f)) for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = []
    for number, row in enumerate(rows):
        lines.append("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {note}" for note in findings[number - 1].notes] if number else []
    return "\n".join(lines)


def as_report(findings: Iterable[Finding], scanned: str) -> str:
    """Return the facts that only the site can tell as a block to paste. `scanned` says what was asked."""
    lines = [_REPORT_BEGIN, f"power-collector probe: {scanned}"]
    for finding in findings:
        lines.append(f"{finding.address}  {what(finding)}")
        if finding.firmware:
            lines.append(f"  firmware: {finding.firmware}")
        if hub := behind(finding):
            lines.append(f"  on the HUB: {hub}")
        lines += [f"  {name}: {value}" for name, value in finding.facts.items()]
        lines += [f"  note: {note}" for note in finding.notes]
        lines.append(
            f"  {_count(finding.requests, 'request')} in {_count(finding.connections, 'connection')}"
        )
    return "\n".join([*lines, _REPORT_END])


def as_json(findings: Iterable[Finding]) -> str:
    """Return a list of objects; `driver` is null where the collector has none."""
    return json.dumps(
        [
            {**dataclasses.asdict(one), "kind": one.kind.value, "driver": one.kind.driver, "what": what(one)}
            for one in findings
        ],
        indent=1,
    )


def as_yaml(findings: Sequence[Finding], scanned: str) -> str:
    """Return the two entries of the inventory's power_room.yml that describe the devices, ready to paste.

    Chargers are called sc1, sc2, ... in the order of their addresses. What the collector cannot read is named
    in comments.
    """
    hubs = [one for one in findings if one.kind is Kind.OUTBACK]
    chargers = [one for one in findings if one.kind in (Kind.TRISTAR_600V, Kind.TRISTAR_150V)]
    inverters = sum(one.model_id in INVERTER_MODELS for hub in hubs[:1] for one in hub.hub)
    lines = [
        f"# Found by power-collector probe: {scanned}.",
        "# Put it in place of power_room_inverters and power_room_devices in group_vars/all/power_room.yml.",
        "# The names go by the addresses: compare them. legacy_measurement is what the old program called a",
        "# charger: delete the line where it never read it.",
    ]
    if any(one.kind is Kind.MUTE for one in findings):
        lines.append(
            "# Something listens and did not answer, see the end: if it is a charger, the names have shifted."
        )
    if hubs and not inverters:
        lines.append(
            "# No inverter answered behind the OutBack device: put in how many there are, 1 at least."
        )
    lines.append(f"power_room_inverters: {inverters}")
    lines += ["", "power_room_devices:" if hubs or chargers else "power_room_devices: []"]
    for hub in hubs[:1]:
        lines += _entry(hub, "axs-port" if "AXS" in hub.model.upper() else "mate3s")
    for number, charger in enumerate(chargers, start=1):
        lines += _entry(charger, f"sc{number}")
        lines.append(f"    legacy_measurement: solar_charger_{number}")
    others = [f"{one.address}: {what(one)}" for one in findings if one.kind.driver is None]
    others += [f"{hub.address}: {what(hub)}: only one OutBack device can be read" for hub in hubs[1:]]
    if others:
        lines += ["", "# Found too, and not read by the collector:", *(f"#   {other}" for other in others)]
    return "\n".join(lines)


def _entry(finding: Finding, name: str) -> list[str]:
    return [
        f"  - name: {name}",
        f"    driver: {finding.kind.driver}",
        f"    host: {finding.host}",
        f"    port: {finding.port}",
    ]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
