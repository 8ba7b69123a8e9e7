"""The MATE3s driver against a fake one on loopback."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_collector import points
from power_collector.contract import MEASUREMENTS
from power_collector.devices import make
from power_collector.devices.base import (
    DeviceError,
    NoAnswerError,
    OutbackReading,
    RefusedError,
    UnexpectedAnswerError,
    UnreachableError,
)

STEADY = 4


@pytest.fixture
def room(serve, build, outback_config, clock):
    """Start a fake MATE3s with these blocks, return it with its driver."""

    async def start(*blocks, inverters=3, timeout_s=2.0, **options):
        device = await serve(**options)
        device.blocks(*blocks)
        return device, make(outback_config(device.port, inverters, timeout_s), clock)

    return start


@pytest.fixture
def three(build):
    return build.chain(build.inverter(1), build.inverter(2, length=58), build.inverter(3))


def ports(reading):
    return [inverter.port for inverter in reading.inverters]


def address(device, model_id, nth=0):
    """Find a block in the fake's registers as the walk must."""
    at, found = 40002, -1
    while True:
        found += device.registers[at] == model_id
        if found == nth:
            return at
        at += 2 + device.registers[at + 1]


async def test_reads_everything(room, three):
    _, driver = await room(*three)
    reading = await driver.read()
    assert isinstance(reading, OutbackReading)
    assert (reading.ac_current_raw, reading.ac_power_raw, reading.dc_voltage_v) == (21, 70, 52.8)
    assert ports(reading) == [1, 2, 3]
    values = reading.inverters[0].values
    expected = {
        "l1_output_current_a": 5,
        "l2_output_current_a": 6,
        "l1_output_voltage_v": 120,
        "l2_output_voltage_v": 121,
        "mode": 2,
        "errors": 0,
        "warnings": 0x20,
        "battery_voltage_v": 52.4,
        "target_voltage_v": 57.6,
        "left_transformer_temperature_c": 40,
        "battery_temperature_c": -3,
        "ac_input_frequency_hz": 60.0,
        "l1_grid_buy_today_kwh": 1.5,
        "l1_output_today_kwh": 12.3,
        "l2_output_today_kwh": 4.5,
        "charger_today_kwh": 6.7,
        "output_power_kw": 1.2,
        "charge_power_kw": 0.3,
        "load_power_kw": 1.1,
        "ac_coupled_power_kw": 0.9,
    }
    assert {name: values[name] for name in expected} == expected
    assert set(values) == set(MEASUREMENTS["inverter"].fields)


async def test_number_of_requests(room, three, clock):
    device, driver = await room(*three)
    await driver.read()
    assert len(device.requests) <= 25
    steady = []
    for _ in range(240):
        clock.now += 15
        device.requests.clear()
        await driver.read()
        steady.append(len(device.requests))
    # An hour: once a walk (mark, 12 headers, zone), six times the system's registers.
    assert steady.count(STEADY) == 240 - 6
    assert steady.count(STEADY + 1) == 5
    assert max(steady) == STEADY + 1 + 14
    assert device.connections == 241


async def test_blocks_are_read_with_their_headers(room, three):
    device, driver = await room(*three)
    await driver.read()
    device.requests.clear()
    await driver.read()
    inverters = [address(device, 64115, nth) for nth in range(3)]
    assert [start for _, start, _ in device.requests] == [address(device, 102), *inverters]
    assert max(count for _, _, count in device.requests) <= 100


async def test_clock_and_temperatures_every_ten_minutes(room, three, clock):
    _, driver = await room(*three)
    system = (await driver.read()).system
    assert system.values == {"battery_temperature_c": 21, "ambient_temperature_c": -4}
    assert system.clock == datetime(2026, 3, 29, 21, 5, 59, tzinfo=UTC)
    assert system.clock.utcoffset() == timedelta(hours=-8)
    assert system.moment == clock.now
    clock.now += 599
    assert (await driver.read()).system is None
    clock.now += 1
    assert (await driver.read()).system == system


@pytest.mark.parametrize(
    ("changes", "zone"),
    [({"at271": 550}, 5.5), ({"at271": -3, "at419": 0}, -3), ({"at271": 0}, 0), ({"at271": 1400}, 14)],
)
async def test_time_zones(room, build, changes, zone):
    _, driver = await room(*build.chain(build.inverter(1), **changes))
    clock = (await driver.read()).system.clock
    assert clock.utcoffset() == timedelta(hours=zone)
    assert clock.replace(tzinfo=None).isoformat() == "2026-03-29T13:05:59"


@pytest.mark.parametrize(
    "changes",
    [
        {"at271": 0x8000},
        {"at271": 1500},
        {"at419": 0x8000},
        {"at419": 400},
        {"at392": 1970},
        {"at392": 26},
        {"at392": 0xFFFF},
        {"at393": 13},
        {"at394": 31, "at393": 2},
        {"at395": 24},
        {"at397": 60},
        {"at397": 0xFFFF},
    ],
)
async def test_what_cannot_be_a_time_is_none(room, build, changes):
    _, driver = await room(*build.chain(build.inverter(1), **changes))
    system = (await driver.read()).system
    assert system.clock is None
    assert system.values["battery_temperature_c"] == 21


async def test_absent_temperatures(room, build):
    _, driver = await room(*build.chain(build.inverter(1), at398=0x8000, at399=0x8000))
    assert (await driver.read()).system.values == {
        "battery_temperature_c": None,
        "ambient_temperature_c": None,
    }


async def test_an_older_layout_of_the_system_block_is_left_alone(room, build):
    blocks = build.chain(build.inverter(1))
    blocks[2] = build.block(64110, 282)
    device, driver = await room(*blocks, inverters=1)
    reading = await driver.read()
    assert (ports(reading), reading.system) == ([1], None)
    assert all(count == 2 for _, start, count in device.requests if 40069 <= start < 40069 + 284)


@pytest.mark.parametrize("model_id", [101, 102, 103])
async def test_each_inverter_model_of_sunspec(room, build, model_id):
    _, driver = await room(build.mark, build.common, build.ac(model_id), [0xFFFF, 0])
    reading = await driver.read()
    assert (reading.ac_current_raw, reading.ac_power_raw, reading.dc_voltage_v) == (21, 70, 52.8)
    assert reading.inverters == ()


async def test_single_phase_inverters(room, build):
    _, driver = await room(*build.chain(build.inverter_single(1), build.inverter_single(2, length=46)))
    reading = await driver.read()
    for inverter in reading.inverters:
        values = inverter.values
        assert values["l1_output_current_a"] == 6
        assert values["battery_voltage_v"] == 51.6
        assert values["output_power_kw"] == 0.7
        assert values["ac_coupled_power_kw"] == 0.1
        assert "l2_output_current_a" not in values


async def test_absent_values(room, build):
    changes = dict.fromkeys(("at7", "at24", "at28"), 0x8000) | dict.fromkeys(("at21", "at54", "at43"), 0xFFFF)
    blocks = build.chain(build.inverter(1, **changes))
    blocks[4] = build.block(102, 50, {2: 0xFFFF, 14: 0x8000, 29: 528, 30: 0x8000})
    _, driver = await room(*blocks)
    reading = await driver.read()
    assert (reading.ac_current_raw, reading.ac_power_raw, reading.dc_voltage_v) == (None, None, None)
    values = reading.inverters[0].values
    for name in (
        "l1_output_current_a",
        "battery_voltage_v",
        "left_transformer_temperature_c",
        "mode",
        "output_power_kw",
        "l1_grid_buy_today_kwh",
    ):
        assert values[name] is None
    assert values["l2_output_current_a"] == 6


@pytest.mark.parametrize("mode", [11, 12, 13, 999])
async def test_modes_that_the_vendor_does_not_list(room, build, mode):
    _, driver = await room(*build.chain(build.inverter(1, at21=mode)))
    assert (await driver.read()).inverters[0].values["mode"] == mode


async def test_an_unknown_model_in_the_middle(room, build):
    blocks = build.chain(build.inverter(1), build.inverter(2))
    blocks.insert(5, build.block(64999, 200, fill=0x1234))
    device, driver = await room(*blocks)
    assert ports(await driver.read()) == [1, 2]
    assert max(count for _, _, count in device.requests) <= 100


@pytest.mark.parametrize("port", [11, 0xFFFF, 0x8000])
async def test_an_inverter_without_a_port_is_left_out(room, build, port):
    _, driver = await room(*build.chain(build.inverter(1), build.inverter(port)))
    assert ports(await driver.read()) == [1]


async def test_an_axs_port_alone(room, build):
    _, driver = await room(build.mark, build.common, build.system(), [0] * 500)
    reading = await driver.read()
    assert reading.inverters == ()
    assert reading.system.clock is not None


async def test_another_sunspec_device_is_refused(room, build):
    _, driver = await room(build.mark, build.common, build.block(160, 20), [0xFFFF, 0])
    with pytest.raises(UnexpectedAnswerError, match=r"neither MATE3s nor AXS Port: .* 1, 160; check"):
        await driver.read()


async def test_a_chain_without_blocks_is_refused(room, build):
    _, driver = await room(build.mark, [0xFFFF, 0])
    with pytest.raises(UnexpectedAnswerError, match=r"\(none\)"):
        await driver.read()


async def test_a_chain_that_never_ends_is_read_as_far_as_it_goes(room, build, clock, caplog):
    blocks = build.chain(build.inverter(1), end=[])
    _, driver = await room(*blocks, *[build.block(64116, 1)] * 200, inverters=1)
    assert ports(await driver.read()) == [1]
    clock.now += 3601
    assert ports(await driver.read()) == [1]
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "mate3s" in warnings[0]
    assert "no end" in warnings[0]


async def test_fewer_inverters_than_expected(room, build):
    _, driver = await room(*build.chain(build.inverter(1)))
    assert ports(await driver.read()) == [1]


async def test_missing_inverters_are_looked_for_each_minute(room, build, three, clock):
    device, driver = await room(*build.chain(build.inverter(1)))
    await driver.read()
    device.blocks(*three)
    clock.now += 45
    assert ports(await driver.read()) == [1]
    clock.now += 15
    await driver.read()
    assert ports(await driver.read()) == [1, 2, 3]


async def test_an_inverter_appended_to_the_chain_is_found_within_the_hour(room, build, three, clock):
    device, driver = await room(*build.chain(build.inverter(1), build.inverter(2)), inverters=2)
    await driver.read()
    device.blocks(*build.chain(build.inverter(1), build.inverter(2), build.inverter(3)))
    clock.now += 3599
    assert ports(await driver.read()) == [1, 2]
    clock.now += 1
    await driver.read()
    assert ports(await driver.read()) == [1, 2, 3]


@pytest.mark.parametrize("change", ["longer block before", "shorter inverter", "removed", "other model"])
async def test_moved_blocks_are_found_in_the_same_poll(room, build, three, change, clock):
    device, driver = await room(*three)
    before = await driver.read()
    device.registers.clear()
    blocks = [list(one) for one in three]
    expected = [1, 2, 3]
    if change == "longer block before":
        blocks[3] = build.block(64120, 30)
    elif change == "shorter inverter":
        blocks[6] = build.inverter(1, length=58)
    elif change == "removed":
        del blocks[6:8]
        expected = [2, 3]
    else:
        blocks[6] = build.inverter_single(1)
    device.blocks(*blocks)
    reading = await driver.read()
    assert ports(reading) == expected
    assert reading.dc_voltage_v == before.dc_voltage_v
    device.requests.clear()
    await driver.read()
    assert len(device.requests) == 1 + len(expected)


async def test_another_port_means_another_walk(room, three):
    device, driver = await room(*three)
    await driver.read()
    device.registers[address(device, 64115, 1) + 2] = 7
    device.requests.clear()
    assert ports(await driver.read()) == [1, 7, 3]
    assert len(device.requests) > STEADY
    device.requests.clear()
    assert ports(await driver.read()) == [1, 7, 3]
    assert len(device.requests) == STEADY


async def test_an_inverter_whose_registers_are_gone(room, three):
    device, driver = await room(*three)
    await driver.read()
    device.exceptions[address(device, 64115, 1) + 5] = 2
    device.requests.clear()
    assert ports(await driver.read()) == [1, 3]
    walked = len(device.requests)
    device.requests.clear()
    assert ports(await driver.read()) == [1, 3]
    # The walk found the block where it was: walking again at each poll would bring nothing.
    assert (walked > STEADY + 10, len(device.requests)) == (True, STEADY)
    device.exceptions.clear()
    assert ports(await driver.read()) == [1, 2, 3]


@pytest.mark.parametrize("code", [4, 6])
async def test_a_busy_inverter_is_left_out_and_nothing_is_walked(room, three, code):
    device, driver = await room(*three)
    await driver.read()
    device.requests.clear()
    device.exceptions[address(device, 64115, 2) + 5] = code
    assert ports(await driver.read()) == [1, 2]
    assert len(device.requests) == STEADY


async def test_a_refused_ac_block_costs_only_its_own_values(room, three):
    device, driver = await room(*three)
    device.exceptions[address(device, 102) + 2] = 6
    reading = await driver.read()
    assert reading.dc_voltage_v is None
    assert ports(reading) == [1, 2, 3]


async def test_everything_refused_is_a_fault(room, three):
    device, driver = await room(*three)
    await driver.read()
    device.exceptions.update(dict.fromkeys(device.registers, 6))
    with pytest.raises(RefusedError, match=r"mate3s .*busy"):
        await driver.read()


async def test_a_refused_system_block_costs_nothing_else(room, three, clock):
    device, driver = await room(*three)
    device.exceptions.update({40069 + 271: 2, 40069 + 400: 4})
    reading = await driver.read()
    assert (ports(reading), reading.system) == ([1, 2, 3], None)
    device.requests.clear()
    clock.now += 15
    await driver.read()
    assert len(device.requests) == STEADY
    device.exceptions.clear()
    clock.now += 600
    system = (await driver.read()).system
    assert system.values["battery_temperature_c"] == 21
    assert system.clock is None


async def test_time_running_out_behind_the_values_costs_nothing(room, three, clock):
    device, driver = await room(*three, timeout_s=0.5)
    await driver.read()
    clock.now += 3600
    device.silent_after = len(device.requests) + STEADY
    assert ports(await driver.read()) == [1, 2, 3]
    # And not in the hour's walk either.
    clock.now += 60
    device.silent_after = len(device.requests) + STEADY + 3
    reading = await driver.read()
    assert ports(reading) == [1, 2, 3]
    assert reading.system is not None
    device.silent_after = 1_000_000
    clock.now += 60
    device.requests.clear()
    await driver.read()
    assert len(device.requests) > STEADY + 5
    device.requests.clear()
    await driver.read()
    assert len(device.requests) == STEADY


async def test_blocks_that_move_after_an_interrupted_walk_are_looked_for_from_the_start(
    room, build, three, clock
):
    device, driver = await room(*three, timeout_s=0.5)
    await driver.read()
    clock.now += 3600
    device.silent_after = len(device.requests) + STEADY + 1 + 8
    assert ports(await driver.read()) == [1, 2, 3]
    device.silent_after = 1_000_000
    device.registers.clear()
    device.blocks(*three[:3], build.block(64120, 25), *three[4:])
    assert ports(await driver.read()) == [1, 2, 3]


async def test_a_time_out_is_no_reason_to_walk(room, three):
    device, driver = await room(*three, timeout_s=0.5)
    await driver.read()
    device.silent_after = len(device.requests) + 2
    with pytest.raises(NoAnswerError):
        await driver.read()
    device.silent_after = 1_000_000
    device.requests.clear()
    await driver.read()
    assert len(device.requests) == STEADY


async def test_a_slow_device_is_walked_over_several_polls(room, three):
    _device, driver = await room(*three, timeout_s=0.5, latency_s=0.06)
    polls = 0
    reading = None
    while reading is None and polls < 10:
        polls += 1
        try:
            reading = await driver.read()
        except NoAnswerError:
            continue
    assert ports(reading) == [1, 2, 3]
    assert polls > 1


async def test_a_walk_is_not_done_again_for_the_sake_of_the_zone(room, three):
    device, driver = await room(*three, timeout_s=0.5, silent_after=13)
    with pytest.raises(NoAnswerError):
        await driver.read()
    assert device.requests[-1] == (3, 40069 + 271, 1)
    device.silent_after = 1_000_000
    device.requests.clear()
    assert ports(await driver.read()) == [1, 2, 3]
    # The end of the chain, the zone, the values, the clock.
    assert len(device.requests) == 1 + 1 + STEADY + 1


async def test_another_device_in_its_place(room, build, three):
    device, driver = await room(build.mark, build.common, build.block(160, 20), [0xFFFF, 0])
    for _ in range(2):
        with pytest.raises(UnexpectedAnswerError, match="neither"):
            await driver.read()
    device.blocks(*three)
    assert ports(await driver.read()) == [1, 2, 3]


async def test_chain_that_changes_again_while_it_is_walked(room, build, three, clock):
    device, driver = await room(*three)
    await driver.read()
    # The header of the walk and that of the reading never agree.
    start = address(device, 64115)
    lengths = iter(range(60, 100))

    def other_length(answer):
        if device.requests[-1][1] == start:
            return answer[:11] + bytes([0, next(lengths)]) + answer[13:]
        return answer

    device.mangle = other_length
    device.registers.update(dict.fromkeys(range(max(device.registers), 41500), 0))
    with pytest.raises(UnexpectedAnswerError, match="began model 64115"):
        await driver.read()
    device.mangle = None
    assert ports(await driver.read()) == [1, 2, 3]


async def test_not_there(outback_config, unused_port):
    with pytest.raises(UnreachableError, match="mate3s"):
        await make(outback_config(unused_port)).read()


async def test_a_device_that_comes_back(room, three):
    device, driver = await room(*three)
    await driver.read()
    device.mangle = lambda answer: None
    with pytest.raises(UnreachableError):
        await driver.read()
    device.mangle = None
    assert ports(await driver.read()) == [1, 2, 3]


async def test_cancelled(room, three):
    _device, driver = await room(*three, silent_after=0)
    task = asyncio.create_task(driver.read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


EDGE = st.sampled_from([0, 1, 2, 50, 100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF])
WORD = st.one_of(EDGE, st.integers(0, 0xFFFF))


async def one_poll(driver):
    """Read; a DeviceError is fine when it names the device, and anything else fails the test."""
    try:
        return await driver.read()
    except DeviceError as error:
        if not str(error).startswith("mate3s (127.0.0.1:"):
            raise AssertionError(f"does not name the device: {error}") from error
        return None


def check_contract(config, reading):
    built = points.build([points.Poll(config, reading, 1.0, 0, 0.0)], 1_770_000_000)
    assert built
    for one in built:
        one.to_line()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_stands_in_the_blocks(serve, build, outback_config, clock, data):
    device = await serve()
    config = outback_config(device.port)
    driver = make(config, clock)
    for _ in range(2):
        blocks = build.chain(build.inverter(1), build.inverter_single(2))
        for offset in data.draw(st.sets(st.integers(2, 50), max_size=51)):
            blocks[4][offset] = data.draw(WORD)
            blocks[6][offset] = data.draw(WORD)
            blocks[8][min(offset, 48)] = data.draw(WORD)
        for offset in (271, *range(392, 420)):
            if data.draw(st.booleans()):
                blocks[2][offset] = data.draw(WORD)
        device.blocks(*blocks)
        reading = await driver.read()
        assert reading.dc_voltage_v is None or isinstance(reading.dc_voltage_v, int | float)
        check_contract(config, reading)
        clock.now += 600


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.lists(
        st.tuples(
            st.one_of(st.sampled_from([0, 1, 101, 102, 64110, 64115, 64117, 0xFFFF]), WORD),
            st.one_of(st.integers(0, 70), st.sampled_from([420, 421]), WORD),
        ),
        max_size=8,
    ),
    fill=WORD,
    codes=st.dictionaries(st.integers(40000, 40300), st.integers(0, 255), max_size=3),
    more=st.dictionaries(st.integers(40000, 40300), WORD, max_size=20),
)
async def test_whatever_chain(serve, build, outback_config, clock, headers, fill, codes, more):
    device = await serve(guards_passwords=False)
    config = outback_config(device.port, timeout_s=1.0)
    driver = make(config, clock)
    device.blocks(build.mark, *[build.block(m, min(length, 500), {1: length}, fill) for m, length in headers])
    for change in ({}, more):
        device.registers.update(change)
        async with asyncio.timeout(10):
            reading = await one_poll(driver)
        if reading is not None:
            check_contract(config, reading)
        device.exceptions.update(codes)
        clock.now += 3600
