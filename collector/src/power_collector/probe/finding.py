"""What is known of one device that was found."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from power_collector.devices.sunspec import Block


class Kind(enum.Enum):
    """What listens at an address; the values stand in JSON, and those of drivers are their names."""

    OUTBACK = "outback"
    TRISTAR_600V = "tristar-mppt-600v"
    TRISTAR_150V = "tristar-mppt"
    SUNSPEC = "sunspec"
    """Another maker's SunSpec device."""
    MODBUS = "modbus"
    """It answers Modbus requests and is none of these."""
    NOT_MODBUS = "not-modbus"
    """It answers with something else."""
    MUTE = "mute"
    """It listens, or is known to, and did not answer."""

    @property
    def driver(self) -> str | None:
        """The collector's driver for it, None where there is none."""
        return self.value if self in (Kind.OUTBACK, Kind.TRISTAR_600V, Kind.TRISTAR_150V) else None


@dataclass(frozen=True, slots=True)
class HubDevice:
    """A device behind a MATE3s or AXS Port: its port on the HUB (None: not told) and its SunSpec model."""

    port: int | None
    model_id: int


@dataclass(slots=True)
class Finding:
    """One address at which something listens; filled while it is asked.

    `maker`, `model`, `firmware` and `serial` are printable text, empty where not told. `facts` is what only
    the site can tell, by what it is called; `notes` is what the owner should know.
    """

    host: str
    port: int
    kind: Kind = Kind.MUTE
    maker: str = ""
    model: str = ""
    firmware: str = ""
    serial: str = ""
    blocks: list[Block] = field(default_factory=list)
    hub: list[HubDevice] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    connections: int = 0
    requests: int = 0

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


def printable(data: bytes) -> str:
    """Return a device's text; what is not printable ASCII could do harm in a terminal, and becomes ?."""
    text = data.split(b"\0")[0].decode("ascii", "replace")
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text).strip()
