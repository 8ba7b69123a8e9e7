"""The registers of a simulated TriStar MPPT.

The 600V has half floats (scaled integers when its firmware is old), the 150 V model scaled integers.
Written from the vendor's tables, and on purpose without the driver's code: each checks the other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from power_collector.simulator.day import NIGHT, Charger, Moment
from power_collector.simulator.server import ILLEGAL_ADDRESS, ModbusError

_LIVE = 0x50
_NAN = 0x7E00
_NO_SENSOR_150V = 0x80


class TristarTraits(BaseModel):
    """What this charger is like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    firmware: int | None = Field(default=None, ge=1, le=9999)
    """Shown in BCD; None: 21 (600V), 14 (150 V). A 600V below 16 serves scaled integers."""
    today: Literal["wh", "half-float-kwh"] = "wh"
    """Register 0x44 of a 600V: as the specification says, or as a real unit was seen."""
    sensor: bool = True
    """Whether a remote temperature sensor is there; without one its temperatures are NaN."""
    identifies: bool = True
    """Whether it answers the device identification."""
    other_maker: bool = False
    """No TriStar at all: a meter with numbers in its first 16 registers."""
    faults: int = Field(default=0, ge=0, lt=2**32)
    alarms: int = Field(default=0, ge=0, lt=2**32)


def _half(value: float) -> int:
    """Return IEEE 754 binary16, cut to its greatest number."""
    if math.isnan(value):
        return _NAN
    return int(struct.unpack(">H", struct.pack(">e", min(value, 65504.0)))[0])


def _words(value: int) -> tuple[int, int]:
    return value >> 16 & 0xFFFF, value & 0xFFFF


def _float_words(value: float) -> tuple[int, int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return high, low


def _bcd(number: int) -> int:
    return int(str(number), 16)


class TristarImage:
    """Computes the registers of charger number `index` (from 0) of the room."""

    def __init__(self, *, index: int, volts: Literal[600, 150], at: Callable[[float], Moment]) -> None:
        """`at` gives the room at a time."""
        self._index = index
        self._600v = volts == 600
        self._at = at
        # Every third charger was put up without a temperature sensor.
        self.traits = TristarTraits(sensor=index % 3 != 2)

    def identity(self) -> list[bytes] | None:
        """Return the vendor's name, the product code and the revision."""
        if not self.traits.identifies:
            return None
        if self.traits.other_maker:
            return [b"Metering Works", b"M-16", b"3"]
        product = b"TS-MPPT-60-600V-48" if self._600v else b"TS-MPPT-60"
        return [b"Morningstar Corp.", product, f"v{self._firmware}".encode()]

    def read(self, time: float, address: int, count: int, *, nan: bool) -> list[int]:
        """Return `count` registers; with `nan`, no temperature is there.

        Raises:
            ModbusError: 2 where one of them does not exist.
        """
        areas = [(0, _LIVE, self._live), (0xE0C0, 4, self._serial), (0xE0CC, 2, self._model)]
        for begin, size, registers in [(0, 16, self._meter)] if self.traits.other_maker else areas:
            if begin <= address and address + count <= begin + size:
                found = registers(time, nan)
                return found[address - begin : address - begin + count]
        raise ModbusError(ILLEGAL_ADDRESS)

    @property
    def _firmware(self) -> int:
        return self.traits.firmware or (21 if self._600v else 14)

    def _meter(self, time: float, _nan: bool) -> list[int]:
        return list(range(int(time) % 60, int(time) % 60 + 16))

    def _serial(self, _time: float, _nan: bool) -> list[int]:
        digits = f"{24010001 + self._index:08d}".encode()
        return list(struct.unpack("<4H", digits))

    def _model(self, _time: float, _nan: bool) -> list[int]:
        return [0 if self._600v else 1, 0x0102]

    def _live(self, time: float, nan: bool) -> list[int]:
        moment = self._at(time)
        charger = moment.chargers[self._index]
        r = [0] * _LIVE
        r[0x04] = _bcd(self._firmware)
        r[0x05], r[0x06] = (0x12, 4) if self._600v else (0, 0)
        r[0x2A], r[0x2B] = _words(charger.hours)
        r[0x2E], r[0x2F] = _words(self.traits.alarms)
        r[0x4B], r[0x4C] = _words(self.traits.alarms)
        r[0x30] = 0x80  # switch 8: the Modbus port may be set
        r[0x31] = 6 if moment.soc > 0.6 else 8  # green, yellow
        r[0x32] = charger.state
        r[0x45] = (4 if charger.float_today_s else 0) | 8 * bool(self.traits.alarms)
        r[0x45] |= 16 * bool(self.traits.faults)
        r[0x4D], r[0x4F] = charger.absorption_today_s, charger.float_today_s
        if self._600v and self._firmware >= 16:
            self._half_floats(r, moment, charger, nan)
        else:
            self._scaled(r, moment, charger, nan)
        return r

    def _quantities(
        self, moment: Moment, charger: Charger
    ) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """Return volts, amperes and watts by register."""
        high = 1.0 if self._600v else 0.25  # the 150 V model has its modules in parallel
        sensed = charger.battery_v - 0.002 * charger.battery_a
        volts = {
            0x18: charger.battery_v,
            0x19: charger.battery_v,
            0x1A: sensed,
            0x1B: charger.array_v * high,
            0x26: charger.battery_v,
            0x28: charger.battery_min_today_v - 1,
            0x29: charger.battery_max_today_v + 1,
            0x33: charger.target_v if charger.state != NIGHT else 0.0,
            0x3D: 380 * high,
            0x3E: 460 * high,
            0x40: charger.battery_min_today_v,
            0x41: charger.battery_max_today_v,
            0x42: charger.array_max_today_v * high,
        }
        amperes = {0x1C: charger.battery_a, 0x1D: charger.array_a / high, 0x27: charger.battery_a}
        watts = {
            0x3A: charger.power_w,
            0x3B: charger.input_w,
            0x3C: charger.power_max_today_w,
            0x46: charger.power_max_today_w,
        }
        return volts, amperes, watts

    def _half_floats(self, r: list[int], moment: Moment, charger: Charger, nan: bool) -> None:
        for quantity in self._quantities(moment, charger):
            for address, value in quantity.items():
                r[address] = _half(value)
        for address, value in ((0x1E, 12.1), (0x1F, 3.3), (0x20, 12.0), (0x21, 12.0), (0x22, 12.1)):
            r[address] = _half(value)
        battery = moment.battery_c if self.traits.sensor and not nan else math.nan
        r[0x23] = _NAN if nan else _half(charger.heatsink_c)
        r[0x24] = r[0x25] = _half(battery)
        r[0x47], r[0x48] = _half(battery - 1), _half(battery + 1)
        r[0x2C], r[0x2D] = _words(self.traits.faults)
        r[0x49], r[0x4A] = r[0x2C], r[0x2D]
        r[0x34], r[0x35] = _float_words(charger.today_ah)
        r[0x36], r[0x37] = _float_words(charger.total_wh / 50)
        r[0x38], r[0x39] = _half(charger.today_wh / 1000), _half(charger.total_wh / 1000)
        r[0x43] = _half(charger.today_ah)
        r[0x44] = (
            int(charger.today_wh) // 10 * 10 if self.traits.today == "wh" else _half(charger.today_wh / 1000)
        )

    def _scaled(self, r: list[int], moment: Moment, charger: Charger, nan: bool) -> None:
        v_pu, i_pu = (656.25, 80.0) if self._600v else (180.0, 80.0)
        r[0x00], r[0x01] = int(v_pu), int(v_pu % 1 * 65536)
        r[0x02], r[0x03] = int(i_pu), int(i_pu % 1 * 65536)
        scales = (v_pu * 2**-15, i_pu * 2**-15, v_pu * i_pu * 2**-17)
        for quantity, scale in zip(self._quantities(moment, charger), scales, strict=True):
            for address, value in quantity.items():
                r[address] = round(value / scale)
        for address, value, full in ((0x1E, 12.1, 18.612), (0x1F, 3.3, 6.6), (0x20, 12.0, 18.612)):
            r[address] = round(value / full * 32768)
        r[0x21] = round(1.8 / 3 * 32768)
        sensor = self.traits.sensor and not nan
        r[0x23] = round(charger.heatsink_c)
        r[0x24] = round(moment.battery_c) if sensor else _NO_SENSOR_150V
        r[0x25] = round(moment.battery_c) if sensor else 25
        r[0x47], r[0x48] = r[0x25] - 1, r[0x25] + 1
        r[0x2C] = r[0x49] = self.traits.faults & 0xFFFF
        r[0x34], r[0x35] = _words(round(charger.today_ah * 10))
        r[0x36], r[0x37] = _words(round(charger.total_wh / 5))
        r[0x38], r[0x39] = round(charger.today_wh / 1000), round(charger.total_wh / 1000)
        r[0x43] = round(charger.today_ah * 10)
        r[0x44] = int(charger.today_wh) // 10 * 10
