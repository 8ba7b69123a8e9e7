"""The TriStar drivers against fakes on loopback."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_collector import points
from power_collector.contract import MEASUREMENTS
from power_collector.devices import make
from power_collector.devices.base import (
    DeviceError,
    RefusedError,
    UnexpectedAnswerError,
)

FIELDS = MEASUREMENTS["charge_controller"].fields


@pytest.fixture
def charger(serve, charger_config):
    """Start a fake charger with these registers, return it with its driver."""

    async def start(registers, closes=True, **options):
        device = await serve(registers=dict(enumerate(registers)), closes_after_answer=closes)
        return device, make(charger_config(device.port, **options))

    return start


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("closes", [True, False])
async def test_600v(charger, build_charger, closes):
    device, driver = await charger(build_charger.of_600v(), closes)
    for _ in range(3):
        values = (await driver.read()).values
    expected = {
        "battery_voltage_v": 54.5,
        "battery_terminal_voltage_v": 54.25,
        "battery_sense_voltage_v": 54.5,
        "target_voltage_v": 57.5,
        "array_voltage_v": 310.0,
        "battery_current_a": 20.0,
        "array_current_a": 3.599609375,
        "output_power_w": 1090.0,
        "input_power_w": 1120.0,
        "heatsink_temperature_c": 41.0,
        "battery_temperature_c": 25.0,
        "remote_temperature_c": None,
        "charge_state": 5,
        "led_state": 6,
        "faults": 0x01000003,
        "alarms": 0x00010000,
        "hourmeter_h": 65538,
        "total_kwh": 4096.0,
        "today_kwh": 5.4,
        "today_ah": 100.0,
        "battery_voltage_min_today_v": 50.5,
        "battery_voltage_max_today_v": 57.5,
        "array_voltage_max_today_v": 350.0,
        "output_power_max_today_w": 2500.0,
        "absorption_today_s": 60,
        "equalize_today_s": 0,
        "float_today_s": 120,
    }
    assert values == expected
    assert set(expected) == set(FIELDS)
    assert device.requests == [(3, 0, 80)] * 3
    assert device.connections == 3


@pytest.mark.parametrize("special", [float("nan"), float("inf"), float("-inf")])
async def test_what_is_no_number_is_absent_and_costs_nothing_else(charger, build_charger, special):
    word = build_charger.half(special)
    changes = dict.fromkeys(("at23", "at24", "at25", "at18", "at3A", "at43"), word)
    _, driver = await charger(build_charger.of_600v(**changes))
    values = (await driver.read()).values
    absent = {name for name, value in values.items() if value is None}
    assert absent == {
        "heatsink_temperature_c",
        "remote_temperature_c",
        "battery_temperature_c",
        "battery_voltage_v",
        "output_power_w",
        "today_ah",
        "today_kwh",
    }
    assert values["battery_current_a"] == 20.0


@pytest.mark.parametrize("firmware", [0x19, 0x20, 0x21, 0x99, 0x0101])
async def test_new_firmware_is_trusted(charger, build_charger, firmware, caplog):
    registers = build_charger.of_600v(firmware, at3A=build_charger.half(5.0))
    _, driver = await charger(registers)
    assert (await driver.read()).values["output_power_w"] == 5.0
    assert warnings(caplog) == []


@pytest.mark.parametrize("firmware", [0x13, 0x18, 0x0, 0x1A, 0xFFFF])
async def test_old_firmware_with_numbers_that_do_not_agree(charger, build_charger, firmware, caplog):
    registers = build_charger.of_600v(firmware, at3A=build_charger.half(1300.0))
    _, driver = await charger(registers)
    for _ in range(3):
        assert (await driver.read()).values == {}
    (warning,) = warnings(caplog)
    assert f"firmware {firmware:x}" in warning
    assert "sc1" in warning
    assert "float16 = true" in warning


@pytest.mark.parametrize(
    ("power", "current", "voltage"),
    [
        (1090.0, 20.0, 54.5),
        (1180.0, 20.0, 54.5),
        (0.0, 0.0, 48.0),
        (15.0, 0.0, 48.0),
        (-3.0, -0.05, 50.0),
        (20.0, 2.0, 13.0),
    ],
)
async def test_old_firmware_with_numbers_that_agree(charger, build_charger, power, current, voltage, caplog):
    half = build_charger.half
    _, driver = await charger(
        build_charger.of_600v(0x16, at3A=half(power), at1C=half(current), at18=half(voltage))
    )
    assert (await driver.read()).values["output_power_w"] == power
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("power", "current", "voltage"),
    [
        (0.0, 0.0, 7.9),
        (0.0, 0.0, 81.0),
        (1300.0, 20.0, 54.5),
        (1000.0, 20.0, 56.0),
        (25.0, 0.0, 48.0),
        (float("nan"), 0.0, 48.0),
        (0.0, float("nan"), 48.0),
        (0.0, 0.0, float("nan")),
        (float("inf"), 20.0, 48.0),
    ],
)
async def test_old_firmware_beyond_the_tolerance(charger, build_charger, power, current, voltage):
    half = build_charger.half
    _, driver = await charger(
        build_charger.of_600v(0x16, at3A=half(power), at1C=half(current), at18=half(voltage))
    )
    assert (await driver.read()).values == {}


async def test_the_owner_may_trust_old_firmware(charger, build_charger, caplog):
    registers = build_charger.of_600v(0x13, at3A=build_charger.half(1300.0))
    _, driver = await charger(registers, float16=True)
    assert (await driver.read()).values["output_power_w"] == 1300.0
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("word", "ampere_hours", "voltage", "expected"),
    [
        (0x4000, 300.0, 54.0, 16.384),  # Wh
        (0x4000, 37.0, 54.0, 2.0),  # half float kWh
        (0x4000, 120.0, 54.0, None),  # neither
        (5400, 100.0, 54.5, 5.4),
        (5400, 1.0, 54.5, None),
        (0, 0.0, 54.0, 0.0),
        (0, float("nan"), 54.0, 0.0),
        (10, 0.19, 53.0, 0.01),
        (10, 0.0, 53.0, None),
        (5400, float("nan"), 54.5, None),
        (5400, 100.0, float("nan"), None),
        (5400, -1.0, 54.5, None),
        (0x7E00, 595.0, 54.5, 32.256),  # as a half float it would be NaN
        (0xC000, 900.0, 54.5, 49.152),  # as a half float it would be negative
    ],
)
async def test_energy_today_is_read_as_what_it_is(
    charger, build_charger, word, ampere_hours, voltage, expected
):
    half = build_charger.half
    _, driver = await charger(build_charger.of_600v(at44=word, at43=half(ampere_hours), at18=half(voltage)))
    assert (await driver.read()).values["today_kwh"] == expected


@pytest.mark.parametrize("closes", [True, False])
async def test_150v(charger, build_charger, closes):
    device, driver = await charger(build_charger.of_150v(), closes, driver="tristar-mppt")
    for _ in range(2):
        values = (await driver.read()).values
    assert values["battery_voltage_v"] == pytest.approx(54, abs=0.01)
    assert values["array_voltage_v"] == pytest.approx(90, abs=0.01)
    assert values["battery_current_a"] == pytest.approx(20, abs=0.01)
    assert values["array_current_a"] == pytest.approx(-5 * 80 / 32768)
    assert values["output_power_w"] == pytest.approx(1080, abs=0.2)
    assert values["heatsink_temperature_c"] == -7
    assert values["remote_temperature_c"] is None
    assert values["battery_temperature_c"] == 25
    assert values["charge_state"] == 6
    assert values["hourmeter_h"] == 4711
    assert values["faults"] == 4
    assert values["alarms"] == 8
    assert values["total_kwh"] == 12345
    assert values["today_ah"] == pytest.approx(123.4)
    assert values["today_kwh"] == pytest.approx(6.54)
    assert values["absorption_today_s"] == 61
    assert set(values) == set(FIELDS)
    assert device.requests == [(3, 0, 80)] * 2


async def test_150v_with_a_fraction_in_its_scaling(charger, build_charger):
    _, driver = await charger(build_charger.of_150v(at0=139, at1=0x9999), driver="tristar-mppt")
    expected = round(54 * 0x8000 / 180) * 139.6 / 0x8000
    assert (await driver.read()).values["battery_voltage_v"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("register", ["at0", "at2"])
async def test_150v_without_scaling_is_another_model(charger, build_charger, register):
    _, driver = await charger(build_charger.of_150v(**{register: 0}), driver="tristar-mppt")
    with pytest.raises(UnexpectedAnswerError, match=r"sc1 .* tristar-mppt-600v"):
        await driver.read()


async def test_refusal(charger):
    _, driver = await charger([0] * 20)
    with pytest.raises(RefusedError, match="illegal address"):
        await driver.read()


WORD = st.one_of(
    st.sampled_from([0, 1, 0x7C00, 0xFC00, 0x7E00, 0x7FFF, 0x8000, 0x8001, 0xFFFF]), st.integers(0, 0xFFFF)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    registers=st.lists(WORD, min_size=80, max_size=80),
    options=st.sampled_from([{}, {"float16": True}, {"driver": "tristar-mppt"}]),
)
async def test_whatever_stands_in_the_registers(serve, charger_config, registers, options):
    device = await serve(registers=dict(enumerate(registers)), closes_after_answer=True)
    config = charger_config(device.port, **options)
    async with asyncio.timeout(10):
        try:
            reading = await make(config).read()
        except DeviceError:
            return
    assert set(reading.values) <= set(FIELDS)
    for one in points.build([points.Poll(config, reading, 1.0, 0, 0.0)], 1_770_000_000):
        one.to_line()
