"""What every driver has in common: the readings it returns and the faults it raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

Values = Mapping[str, int | float | None]
"""Field name of the contract -> value; None, NaN and infinities mean "the device has no value"."""


class DeviceError(Exception):
    """A poll brought nothing. The message names device, cause and, where there is one, the remedy."""


class UnreachableError(DeviceError):
    """No connection: refused, no route, or the device hung up."""


class HungUpError(UnreachableError):
    """Connected, but the device closed the connection without an answer."""


class NoAnswerError(DeviceError):
    """Connected, but the answers did not come within the device's `timeout_s`."""


class RefusedError(DeviceError):
    """The device answered with a Modbus exception."""

    def __init__(self, message: str, exception_code: int) -> None:
        """Keep the Modbus exception code (2: illegal address, 6: busy, ...)."""
        super().__init__(message)
        self.exception_code = exception_code


class UnexpectedAnswerError(DeviceError):
    """An answer that no device of this kind gives: garbage, a wrong length, another product."""


@dataclass(frozen=True, slots=True)
class InverterReading:
    """One inverter's block (64115 or 64117), keyed by its HUB port. `values`: fields of `inverter`."""

    port: int
    values: Values


@dataclass(frozen=True, slots=True)
class SystemReading:
    """The sub-range 392..419 of block 64110. `values`: fields of `outback_system` but the clock's.

    `clock` is the box's own wall clock with its zone, None where it cannot be a time; `moment` is when it was
    read, by the driver's clock.
    """

    values: Values
    clock: datetime | None
    moment: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class OutbackReading:
    """A poll of a MATE3s or AXS Port.

    `ac_current_raw` and `ac_power_raw` are the unscaled registers A and W of model 101/102/103, as the
    old program stored them; `dc_voltage_v` is its scaled DCV. None where the block or the value is absent.
    """

    inverters: tuple[InverterReading, ...]
    ac_current_raw: int | None = None
    ac_power_raw: int | None = None
    dc_voltage_v: float | None = None
    system: SystemReading | None = None


@dataclass(frozen=True, slots=True)
class ChargeControllerReading:
    """A poll of a TriStar. `values`: fields of `charge_controller`."""

    values: Values


Reading = OutbackReading | ChargeControllerReading


class Device(Protocol):
    """A device that can be polled."""

    async def read(self) -> Reading:
        """Connect, read, close.

        Raises:
            DeviceError: nothing was read; no other exception leaves a driver.
        """
        ...
