"""The simulated power room: a server for each device, the faults and the log of answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any, Literal, Self, TextIO

from pydantic import ValidationError

from power_collector.config import Config, DeviceConfig
from power_collector.simulator.day import Day, Moment
from power_collector.simulator.outback import OutbackImage, OutbackTraits
from power_collector.simulator.server import Behaviour, DeviceServer
from power_collector.simulator.tristar import TristarImage, TristarTraits

logger = logging.getLogger(__name__)

KEPT_ANSWERS = 100_000
"""So many of the newest answers are kept in memory."""

LOG_BYTES = 64 * 2**20
"""A log of answers that has grown so long is renamed to FILE.1 and begun anew."""

_CONTROL_INTERVAL_S = 0.25
_KEPT_VIOLATIONS = 1000

Traits = OutbackTraits | TristarTraits


class ControlError(ValueError):
    """The control file, or a call in its place, cannot be used."""


class SimulatedRoom:
    """The devices of a configuration as an async context manager.

    `config` is the configuration with the hosts and ports that are served. `answers` holds the newest
    answers, `violations` every request that no reader may make (a writing function, a password, more
    than 100 registers): the names of both are those of the log's JSON lines.
    """

    def __init__(
        self,
        config: Config,
        *,
        bind: str | None = None,
        ephemeral: bool = False,
        answers: Path | None = None,
        control: Path | None = None,
        seed: int = 1,
        zone: tzinfo | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make the room; nothing listens before it is entered.

        `bind` replaces each device's host, `ephemeral` its port by a free one. `zone` is that of the room
        and of the MATE3s's clock (None: the host's). `now` gives seconds since 1970.
        """
        self.config = config
        self.answers: deque[dict[str, Any]] = deque(maxlen=KEPT_ANSWERS)
        self.violations: list[dict[str, Any]] = []
        self._bind = bind
        self._ephemeral = ephemeral
        self._answers_path = answers
        self._log: TextIO | None = None
        self._control_path = control
        self._control_seen: tuple[int, ...] | None = None
        self._watcher: asyncio.Task[None] | None = None
        outbacks = [device for device in config.devices if device.driver == "outback"]
        inverters = sum(device.inverters or 0 for device in outbacks)
        self._day = Day(chargers=len(config.chargers), inverters=inverters, seed=seed, zone=zone)
        self._servers = {device.name: self._server(device, now) for device in config.devices}
        self._first_traits = {name: server.image.traits for name, server in self._servers.items()}

    def at(self, time: float) -> Moment:
        """Return the room's truth at a time, cut to the whole second."""
        return self._day.at(time)

    async def __aenter__(self) -> Self:
        """Listen for all devices.

        Raises:
            OSError: an address cannot be had.
            ControlError: the control file is there and cannot be used.
        """
        devices = []
        try:
            self._open_log()
            for device in self.config.devices:
                server, host = self._servers[device.name], self._bind or device.host
                await server.start(host, 0 if self._ephemeral else device.port)
                devices.append(device.model_copy(update={"host": host, "port": server.port}))
            self.config = self.config.model_copy(update={"devices": devices})
            if self._control_path is not None:
                self._control_seen = self._control_stamp()
                await self.reload_control()
                self._watcher = asyncio.create_task(self._watch(), name="simulator control")
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        await self._close()

    async def fault(self, device: str, fault: str | None = None, **settings: Any) -> None:
        """Give a device ("*": each) a fault (None: heal it) with its `seconds` or `code`.

        Latency and `keep_open` stay as they are.

        Raises:
            ControlError: an unknown device, fault or setting.
        """
        await self.behave(device, fault=fault, **settings)

    async def behave(self, device: str, **settings: Any) -> None:
        """Change settings of a device's `Behaviour`, such as `latency_ms` or `keep_open`."""
        for server in self._named(device):
            await server.behave(_behaviour({**server.behaviour.model_dump(), **settings}, server.name))

    def change(self, device: str, **traits: Any) -> None:
        """Change traits of a device (`OutbackTraits`, `TristarTraits`)."""
        for server in self._named(device):
            self._give(server, _traits(server.name, server.image.traits, traits))

    async def reload_control(self) -> None:
        """Read the control file; a device that it does not name is as at the start.

        No file is an empty one.

        Raises:
            ControlError: it cannot be used; nothing has been changed.
        """
        assert self._control_path is not None
        try:
            content = json.loads(self._control_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            content = {}
        except (OSError, ValueError) as error:
            raise ControlError(f"{self._control_path}: {error}") from None
        await self._control(content)

    async def _control(self, content: Any) -> None:
        if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
            raise ControlError("control: an object of objects by device is expected")
        for name in content:
            self._named(name)
        planned = []
        for name, server in self._servers.items():
            settings = {**content.get("*", {}), **content.get(name, {})}
            traits = settings.pop("traits", {})
            planned.append(
                (server, _behaviour(settings, name), _traits(name, self._first_traits[name], traits))
            )
        for server, behaviour, new in planned:
            self._give(server, new)
            if behaviour != server.behaviour:
                logger.info("%s now: %s", server.name, behaviour)
                await server.behave(behaviour)

    def _give(self, server: DeviceServer, traits: Traits) -> None:
        server.image.traits = traits
        if isinstance(traits, OutbackTraits):
            self._day.exercise = traits.generator_hours

    async def _watch(self) -> None:
        """Follow the control file; what cannot be used is told once, and changes nothing."""
        while True:
            seen = self._control_stamp()
            if seen != self._control_seen:
                self._control_seen = seen
                try:
                    await self.reload_control()
                except (ControlError, OSError) as error:
                    logger.warning("control not applied: %s", error)
            await asyncio.sleep(_CONTROL_INTERVAL_S)

    def _control_stamp(self) -> tuple[int, ...]:
        assert self._control_path is not None
        try:
            stat = self._control_path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _named(self, name: str) -> list[DeviceServer]:
        if name == "*":
            return list(self._servers.values())
        if name not in self._servers:
            raise ControlError(f"no device {name!r}: there are {', '.join(self._servers)} and * for all")
        return [self._servers[name]]

    def _server(self, device: DeviceConfig, now: Callable[[], float]) -> DeviceServer:
        image: OutbackImage | TristarImage
        if device.driver == "outback":
            image = OutbackImage(inverters=device.inverters or 0, at=self._day.at)
            secrets = image.secrets
        else:
            index = [charger.name for charger in self.config.chargers].index(device.name)
            volts: Literal[600, 150] = 600 if device.driver == "tristar-mppt-600v" else 150
            image = TristarImage(index=index, volts=volts, at=self._day.at)
            secrets = None
        return DeviceServer(
            name=device.name,
            image=image,
            closes=device.is_charger,
            now=now,
            record=self._record,
            secrets=secrets,
        )

    def _record(self, entry: dict[str, Any]) -> None:
        self.answers.append(entry)
        if "violation" in entry:
            if len(self.violations) < _KEPT_VIOLATIONS:
                self.violations.append(entry)
            logger.warning("%s: %s", entry["device"], entry["violation"])
        if self._log is not None and self._answers_path is not None:
            if self._log.tell() > LOG_BYTES:
                self._log.close()
                self._answers_path.replace(f"{self._answers_path}.1")
                self._open_log()
            self._log.write(json.dumps(entry, separators=(",", ":")) + "\n")
            self._log.flush()

    def _open_log(self) -> None:
        if self._answers_path is not None:
            self._log = self._answers_path.open("a", encoding="utf-8")

    async def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        for server in self._servers.values():
            await server.stop()
        if self._log is not None:
            self._log.close()
            self._log = None


def _behaviour(settings: Mapping[str, Any], device: str) -> Behaviour:
    try:
        return Behaviour.model_validate(settings)
    except ValidationError as error:
        raise ControlError(f"{device}: {_first(error)}") from None


def _traits(device: str, traits: Traits, changes: Any) -> Traits:
    if not isinstance(changes, Mapping):
        raise ControlError(f"{device}: traits: an object is expected")
    try:
        return type(traits).model_validate({**traits.model_dump(), **changes})
    except ValidationError as error:
        raise ControlError(f"{device}: traits: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
