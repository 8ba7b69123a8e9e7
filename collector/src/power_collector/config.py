"""The configuration file: parsed once, refused with every fault and its place."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

Driver = Literal["outback", "tristar-mppt-600v", "tristar-mppt"]

_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


class ConfigError(Exception):
    """The configuration cannot be used; `faults` lists each with its place."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        """Keep the file's path and its faults, one line each."""
        self.path = path
        self.faults = faults
        super().__init__("\n".join(f"{path}: {fault}" for fault in faults))


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        looks_like_address = re.fullmatch(r"[0-9.]+", value) is not None
        if looks_like_address or not all(_HOST_LABEL.fullmatch(label) for label in value.split(".")):
            raise ValueError(f"{value!r} is neither an IP address nor a host name") from None
    return value


def _url(value: str) -> str:
    remedy = "write it like http://localhost:8086"
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
        _host(host)
    except ValueError as error:
        raise ValueError(f"{value!r}: {error}; {remedy}") from None
    whole = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    # What urlsplit silently leaves out (tabs), and what does not belong to it (a path, a password), differs.
    if value.lower().removesuffix("/") not in (f"http://{whole}", f"https://{whole}") or port == 0:
        raise ValueError(f"{value!r}: it has to be http or https, a host and a port, no more; {remedy}")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone, such as America/Los_Angeles") from None
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
Host = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, AfterValidator(_url)]
Zone = Annotated[str, AfterValidator(_zone)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceConfig(_Table):
    """One device of the power room.

    `timeout_s` (0.1..60 s, below `interval_s`) covers the connection and all requests of one poll together.
    """

    name: Name
    driver: Driver
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    inverters: Annotated[int, Field(ge=1, le=10)] | None = None
    """outback only: how many inverters hang on the hub; fewer is a fault that is told."""
    legacy_measurement: Annotated[str, StringConstraints(pattern=r"^solar_charger_[0-9]+$")] | None = None
    """tristar only: the measurement that the old program wrote this charger's power to."""
    float16: bool = False
    """tristar-mppt-600v only: trust half floats whatever the firmware number says."""

    @model_validator(mode="after")
    def _keys_belong_to_the_driver(self) -> Self:
        if self.driver == "outback":
            if self.inverters is None:
                raise ValueError("inverters is missing: an outback device needs the number of its inverters")
            if self.legacy_measurement is not None:
                raise ValueError("legacy_measurement belongs to chargers, not to an outback device")
        elif self.inverters is not None:
            raise ValueError(f"inverters belongs to an outback device, not to {self.driver}")
        if self.float16 and self.driver != "tristar-mppt-600v":
            raise ValueError(f"float16 belongs to a tristar-mppt-600v, not to {self.driver}")
        return self

    @property
    def is_charger(self) -> bool:
        """Whether this device is a solar charge controller."""
        return self.driver != "outback"


class InfluxConfig(_Table):
    """Where the points go. The token is in a file of its own, so that no unit or process list shows it."""

    url: Url
    org: Annotated[str, StringConstraints(min_length=1)]
    bucket: Annotated[str, StringConstraints(min_length=1)]
    token_file: Path

    @field_validator("token_file", mode="before")
    @classmethod
    def _token_file_is_a_path(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) else value


class StoreConfig(_Table):
    """The local store: bounded by live size (MB) and age (days), the oldest points are dropped first."""

    path: Path = Path("/var/lib/power-collector/store.sqlite")
    max_mb: Annotated[float, Field(ge=1, le=100_000)] = 256
    max_age_days: Annotated[float, Field(gt=0, le=3650)] = 30

    @field_validator("path", mode="before")
    @classmethod
    def _path_is_a_path(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) else value


class SiteConfig(_Table):
    """Where the room is, in degrees (north and east positive), and the zone that its days are counted in.

    Without it nothing is said that needs the sun's height or the local day.
    """

    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]
    timezone: Zone


class HostConfig(_Table):
    """The monitor itself is watched: the disk that holds `disk`, and the time that the last backup left."""

    disk: Path = Path("/")
    last_backup: Path = Path("/var/lib/power-monitor/last_backup")

    @field_validator("disk", "last_backup", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) else value


class Config(_Table):
    """The whole file. `interval_s` is in whole seconds, 1..3600; faster polling has hung MATE3s."""

    interval_s: Annotated[int, Field(ge=1, le=3600)] = 15
    devices: Annotated[list[DeviceConfig], Field(min_length=1)]
    influxdb: InfluxConfig | None = None
    store: StoreConfig = StoreConfig()
    site: SiteConfig | None = None
    host: HostConfig | None = None

    @model_validator(mode="after")
    def _devices_are_distinct(self) -> Self:
        faults = []
        for what, values in {
            "name": [device.name for device in self.devices],
            "address": [f"{device.host}:{device.port}" for device in self.devices],
            "legacy_measurement": [d.legacy_measurement for d in self.devices if d.legacy_measurement],
        }.items():
            faults += [f"{what} {v!r} is used {n} times" for v, n in Counter(values).items() if n > 1]
        faults += [
            f"timeout_s of {device.name} is {device.timeout_s:g} s, not below interval_s"
            f" ({self.interval_s} s): one silent device would cost all devices their cycles"
            for device in self.devices
            if device.timeout_s >= self.interval_s
        ]
        if sum(device.driver == "outback" for device in self.devices) > 1:
            faults.append("more than one outback device: only one can feed mate3s and power_room_totals")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def chargers(self) -> list[DeviceConfig]:
        """The charge controllers, in the file's order."""
        return [device for device in self.devices if device.is_charger]


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        place += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if place else part
    return place or "the file"


def parse(text: str, path: Path) -> Config:
    """Make a configuration of TOML text; `path` is named in the faults.

    Raises:
        ConfigError: with every fault and its place (devices are counted from 1).
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"not TOML: {error}"]) from None
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        faults = [
            f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            + ("" if fault["type"] in ("missing", "value_error") else f" (found {fault['input']!r})")
            for fault in error.errors(include_url=False)
        ]
        raise ConfigError(path, faults) from None


def load(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: unreadable, not TOML, or with faults; each is named with its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"cannot be read: {error}"]) from None
    return parse(text, path)
