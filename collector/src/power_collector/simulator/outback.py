"""The registers of a simulated MATE3s with its Radian inverters: a SunSpec chain from 40000.

Written from the vendor's tables, and on purpose without the driver's code: each checks the other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from power_collector.simulator.day import ABSORPTION, FLOAT, Inverter, Moment
from power_collector.simulator.server import ILLEGAL_ADDRESS, ModbusError

BASE = 40000
SYSTEM = BASE + 2 + 67
"""Where block 64110 begins."""

SECRET_MARK = "NOBODY-READS-ME"
"""Stands in every password, account and e-mail address of block 64110: it may turn up nowhere."""

SECRET_OFFSETS = ((13, 20), (53, 68), (70, 97), (125, 164), (166, 246))
"""First and last offset of each such area in block 64110, for the layouts of all firmwares."""

_ABSENT_INT16, _ABSENT_UINT16 = 0x8000, 0xFFFF
_LAST_ZERO = 43007
_UNKNOWN_MODEL, _ENDLESS_MODEL = 64901, 64902
_LINE_SHARES = (0.54, 0.46)


class OutbackTraits(BaseModel):
    """What this MATE3s and its hub are like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inverters: int | None = Field(default=None, ge=0, le=10)
    """How many hang on the hub; None: as many as the configuration says."""
    ports: tuple[int, ...] | None = None
    """Their HUB ports; None: 1, 2, 3, ..."""
    single_phase: bool = False
    """64117 instead of 64115."""
    short_blocks: bool = False
    """Lengths of the older firmware: 64115 58, 64117 46, 64116 86 (else 59, 47, 89)."""
    slave_mode: bool = False
    """All inverters but the first are in mode 11 (slave on), which the vendor's list lacks."""
    inverter_model: Literal[101, 102, 103] = 102
    unknown_model: bool = False
    """A block that nobody knows stands between 102 and the inverters, and moves them."""
    end: Literal["marker", "zeros", "never"] = "marker"
    """65535, 0 and then exception 2 (MATE3s); zeros up to 43007 (AXS Port); blocks without an end."""
    other_maker: bool = False
    """No OutBack at all: another maker's SunSpec inverter, with the models 1 and `inverter_model` alone."""
    clock_offset_s: float = 0
    """How far the box's clock is ahead of the room's time."""
    generator_hours: tuple[float, float] | None = None
    """From and until which hour of each local day the generator runs, beside when the battery is low."""


def _text(value: str, registers: int) -> list[int]:
    data = value.encode().ljust(2 * registers, b"\0")[: 2 * registers]
    return [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]


def _block(model: int, length: int, values: dict[int, int]) -> list[int]:
    """Return a block; offsets that its length does not reach are left out."""
    block = [model, length] + [0] * length
    for offset, value in values.items():
        if offset < length + 2:
            block[offset] = value & 0xFFFF
    return block


def _place(offset: int, registers: list[int]) -> dict[int, int]:
    return {offset + i: register for i, register in enumerate(registers)}


def _tenths(value: float) -> int:
    return round(value * 10)


class OutbackImage:
    """Computes the registers of a MATE3s with `inverters` on its hub."""

    def __init__(self, *, inverters: int, at: Callable[[float], Moment]) -> None:
        """`at` gives the room at a time."""
        self._inverters = inverters
        self._at = at
        self.traits = OutbackTraits()
        self._made: tuple[tuple[int, OutbackTraits, bool], list[int]] | None = None

    def identity(self) -> list[bytes] | None:
        """Return None: no device identification here."""
        return None

    def read(self, time: float, address: int, count: int, *, nan: bool) -> list[int]:
        """Return `count` registers; with `nan`, no temperature is there.

        Raises:
            ModbusError: 2 where one of them does not exist.
        """
        key = (int(time), self.traits, nan)
        if self._made is None or self._made[0] != key:
            self._made = key, self._image(time, nan)
        image = self._made[1]
        first = address - BASE
        if first < 0 or first + count > len(image):
            raise ModbusError(ILLEGAL_ADDRESS)
        return image[first : first + count]

    def secrets(self, address: int, count: int) -> bool:
        """Return whether one of these registers belongs to a password or an e-mail address."""
        return not self.traits.other_maker and any(
            address <= SYSTEM + last and SYSTEM + first < address + count for first, last in SECRET_OFFSETS
        )

    def _image(self, time: float, nan: bool) -> list[int]:
        traits, moment = self.traits, self._at(time)
        count = self._inverters if traits.inverters is None else traits.inverters
        if traits.other_maker:
            image = _text("SunS", 2) + self._common("Sunny Works", "SW-5000")
            return [*image, *self._sunspec_inverter(moment), 0xFFFF, 0]
        product = "AXS_PORT" if traits.end == "zeros" else "MATE3S"
        image = _text("SunS", 2) + self._common("OutBack_Power", product)
        image += self._system(moment, nan) + self._control(moment)
        image += self._sunspec_inverter(moment)
        if traits.unknown_model:
            image += _block(_UNKNOWN_MODEL, 13, {})
        image += _block(64255, 56, {})
        for index in range(count):
            port = traits.ports[index] if traits.ports else index + 1
            # More inverters than the room has: copies of its last one.
            inverter = moment.inverters[min(index, len(moment.inverters) - 1)]
            build = self._single_phase if traits.single_phase else self._split_phase
            image += build(moment, inverter, index, port, nan)
            image += self._configuration(port, index)
        if traits.end == "marker":
            return [*image, 0xFFFF, 0]
        if traits.end == "zeros":
            return image + [0] * (_LAST_ZERO + 1 - BASE - len(image))
        while BASE + len(image) + 10 <= 65536:
            image += _block(_ENDLESS_MODEL, 8, {})
        return image

    @staticmethod
    def _common(maker: str, product: str) -> list[int]:
        texts = {2: (maker, 16), 18: (product, 16), 42: ("001.004.317", 8), 50: ("SIM-0001", 16)}
        values = {66: 1}
        for offset, (text, size) in texts.items():
            values |= _place(offset, _text(text, size))
        return _block(1, 65, values)

    def _system(self, moment: Moment, nan: bool) -> list[int]:
        clock = moment.local + timedelta(seconds=self.traits.clock_offset_s)
        offset = moment.local.utcoffset() or timedelta(0)
        values = {
            2: 1, 3: 4, 4: 317,
            21: 1, 32: 502,
            271: round(offset.total_seconds() / 36),
            275: -1, 276: -1,
            388: 11, 389: 1, 390: 1, 391: 1,
            392: clock.year, 393: clock.month, 394: clock.day,
            395: clock.hour, 396: clock.minute, 397: clock.second,
            398: _ABSENT_INT16 if nan else round(moment.battery_c),
            399: _ABSENT_INT16 if nan else round(moment.ambient_c),
            404: 1 if self.traits.end == "zeros" else 2,
            405: 48, 406: _tenths(moment.battery_v),
            419: -2,
        }  # fmt: skip
        values |= _place(6, _text("0090EA000001", 7))
        for first, last in SECRET_OFFSETS:
            size = last - first + 1
            values |= _place(first, _text(SECRET_MARK * (2 * size // len(SECRET_MARK) + 1), size))
        return _block(64110, 420, values)

    def _control(self, moment: Moment) -> list[int]:
        stage = moment.chargers[0].state if moment.chargers else 0
        status = 0x20 | 0x100 | (4 if moment.generator else 0)
        status |= {ABSORPTION: 1, FLOAT: 2}.get(stage, 0)
        values = {2: -1, 3: -1, 4: -1, 10: status, 13: 576, 14: 20, 15: 540, 16: 10, 20: 2}
        return _block(64120, 25, values | {21: 1 if moment.generator else 0})

    def _sunspec_inverter(self, moment: Moment) -> list[int]:
        """Return the sums. W's scale factor is a tenth of what it should be, as on a real MATE3S."""
        output_w = sum(inverter.output_w for inverter in moment.inverters)
        lines = [round(output_w * share / 120) for share in _LINE_SHARES]
        values = {
            2: sum(lines), 3: lines[0], 4: lines[1], 5: _ABSENT_UINT16, 6: 0,
            7: 240, 8: _ABSENT_UINT16, 9: _ABSENT_UINT16,
            10: 120, 11: 120, 12: _ABSENT_UINT16, 13: 0,
            14: _tenths(output_w / 1000), 15: -1,
            16: 600, 17: -1,
            18: _ABSENT_INT16, 20: _ABSENT_INT16, 22: _ABSENT_INT16,
            27: _ABSENT_UINT16, 29: _tenths(moment.battery_v), 30: -1, 31: _ABSENT_INT16,
            33: round(moment.ambient_c + 10), 34: _ABSENT_INT16, 35: _ABSENT_INT16, 36: _ABSENT_INT16,
            38: 4, 39: 2,
        }  # fmt: skip
        return _block(self.traits.inverter_model, 50, values)

    def _mode(self, moment: Moment, index: int) -> int:
        if self.traits.slave_mode and index > 0:
            return 11
        return 3 if moment.generator else 2

    def _split_phase(self, moment: Moment, inverter: Inverter, index: int, port: int, nan: bool) -> list[int]:
        running = int(moment.generator)
        values = {
            2: port, 3: -1, 4: 0, 5: 0, 6: -1,
            21: self._mode(moment, index),
            24: self._steps(moment.battery_v), 25: _tenths(moment.target_v),
            35: 1, 36: 600 * running, 37: 240 * running, 38: running, 39: 108, 40: 132, 41: 0x20,
            42: -1, 53: _tenths(inverter.charge_today_wh / 1000),
            54: _tenths(inverter.output_w / 1000), 55: _tenths(inverter.buy_w / 1000),
            56: 0, 57: _tenths(inverter.charge_w / 1000), 58: _tenths(inverter.load_w / 1000),
            59: _ABSENT_UINT16,
        }  # fmt: skip
        for line, share in enumerate(_LINE_SHARES):
            first, energy = 7 + 7 * line, 43 + 5 * line
            values |= {
                first: round(inverter.output_w * share / 120),
                first + 1: round(inverter.charge_w / 2 / 120),
                first + 2: round(inverter.buy_w / 2 / 120),
                first + 5: 120 * running,
                first + 6: 120,
                energy + 1: _tenths(inverter.buy_today_wh / 2 / 1000),
                energy + 4: _tenths(inverter.output_today_wh * share / 1000),
            }
        values |= self._temperatures(28, moment, inverter, index, nan)
        return _block(64115, 58 if self.traits.short_blocks else 59, values)

    def _single_phase(
        self, moment: Moment, inverter: Inverter, index: int, port: int, nan: bool
    ) -> list[int]:
        running = int(moment.generator)
        values = {
            2: port, 3: -1, 4: 0, 5: 0, 6: -1,
            7: round(inverter.output_w / 230), 8: round(inverter.charge_w / 230),
            9: round(inverter.buy_w / 230), 12: 230 * running, 13: 230,
            14: self._mode(moment, index),
            17: self._steps(moment.battery_v), 18: _tenths(moment.target_v),
            28: 1, 29: 500 * running, 30: 230 * running, 31: running, 32: 207, 33: 253, 34: 0x20,
            35: -1, 37: _tenths(inverter.buy_today_wh / 1000),
            40: _tenths(inverter.output_today_wh / 1000), 41: _tenths(inverter.charge_today_wh / 1000),
            42: _tenths(inverter.output_w / 1000), 43: _tenths(inverter.buy_w / 1000),
            45: _tenths(inverter.charge_w / 1000), 46: _tenths(inverter.load_w / 1000),
            47: _ABSENT_UINT16,
        }  # fmt: skip
        values |= self._temperatures(21, moment, inverter, index, nan)
        return _block(64117, 46 if self.traits.short_blocks else 47, values)

    @staticmethod
    def _steps(volts: float) -> int:
        """Return tenths of a volt in the inverter's steps of 0.4 V."""
        return round(volts / 0.4) * 4

    @staticmethod
    def _temperatures(
        offset: int, moment: Moment, inverter: Inverter, index: int, nan: bool
    ) -> dict[int, int]:
        """Return the six module temperatures and the battery's, whose sensor only the first one has."""
        modules = [round(inverter.temperature_c) + extra for extra in (4, 0, 2, 3, 0, 1)]
        battery = round(moment.battery_c) if index == 0 else _ABSENT_INT16
        temperatures = [*modules, battery]
        return _place(offset, [_ABSENT_INT16] * 7 if nan else temperatures)

    def _configuration(self, port: int, index: int) -> list[int]:
        values = {
            2: port, 3: -1, 4: -1, 5: 0, 6: -1, 7: 1, 8: 6, 9: 66,
            10: 576, 11: 20, 12: 540, 13: 10, 36: 120, 37: 420, 38: 500,
            51: 10 if index == 0 else 12, 61: 500,
        }  # fmt: skip
        values |= _place(66, _text(f"SIM-GS-{index + 1}", 9)) | _place(75, _text("GS8048A", 9))
        return _block(64116, 86 if self.traits.short_blocks else 89, values)
