"""The chain walk, and decoding with our own definitions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import power_collector
from power_collector.devices import modbus, sunspec
from power_collector.devices.base import NoAnswerError, RefusedError, UnexpectedAnswerError
from power_collector.devices.sunspec import Block

MODELS = Path(power_collector.__file__).parent / "devices" / "models"
REFERENCE = Path(__file__).parents[4] / "shared" / "reference"


async def walk(device, found=None, timeout_s=2.0):
    async with modbus.session("mate3s", "127.0.0.1", device.port, timeout_s) as session:
        return await sunspec.walk(session, found)


async def test_walk_reads_headers_alone(serve, build):
    device = await serve()
    device.blocks(*build.chain(build.inverter(1), build.inverter(2, length=58), build.inverter_single(3)))
    blocks = await walk(device)
    assert [(block.model_id, block.length) for block in blocks] == [
        (1, 65),
        (64110, 420),
        (64120, 27),
        (102, 50),
        (64255, 56),
        (64115, 59),
        (64116, 89),
        (64115, 58),
        (64116, 89),
        (64117, 47),
        (64116, 89),
    ]
    assert blocks[:2] == [Block(1, 40002, 65), Block(64110, 40069, 420)]
    assert len(device.requests) == 13
    assert {count for _, _, count in device.requests} == {2}


@pytest.mark.parametrize(
    "end",
    [[0xFFFF, 0], [0, 0], [0, 17], [64115, 0], []],
    ids=["end", "zeros", "zero ID", "zero length", "exception 2"],
)
async def test_walk_stops_at(serve, build, end):
    device = await serve()
    device.blocks(build.mark, build.common, build.ac(), end)
    assert [block.model_id for block in await walk(device)] == [1, 102]


async def test_walk_through_zeros_to_the_end_of_the_registers(serve, build):
    device = await serve()
    device.blocks(build.mark, build.common, build.system(), [0] * 2600)
    assert [block.model_id for block in await walk(device)] == [1, 64110]
    assert len(device.requests) <= 10


async def test_walk_of_a_real_axs_port(serve):
    dump = REFERENCE / "axs_port_dump.csv"
    if not dump.exists():
        pytest.skip("no dump of a real AXS Port here")
    lines = dump.read_text(encoding="utf-8").splitlines()
    device = await serve(registers=dict(tuple(map(int, line.split(","))) for line in lines if line.strip()))
    assert await walk(device) == [Block(1, 40002, 65), Block(64110, 40069, 420)]
    assert len(device.requests) <= 10


async def test_walk_without_a_chain(serve):
    device = await serve(registers={40000: 1, 40001: 2})
    with pytest.raises(UnexpectedAnswerError, match=r"mate3s .* no mark at register 40000; check"):
        await walk(device)


async def test_walk_of_a_busy_device(serve, build):
    device = await serve(exceptions={40069: 6})
    device.blocks(build.mark, build.common, build.ac())
    with pytest.raises(RefusedError, match="busy"):
        await walk(device)


async def test_a_chain_that_never_ends_is_cut_off(serve, build):
    device = await serve()
    device.blocks(build.mark, *[build.block(64116, 1)] * 500)
    blocks = await walk(device)
    assert len(blocks) == sunspec.MAX_BLOCKS
    assert sunspec.is_cut_off(blocks)


@pytest.mark.parametrize("length", [0xFFFF, 65536 - 40002 - 2, 65536 - 40002 - 3])
async def test_a_chain_that_leads_out_of_the_addresses_is_cut_off(serve, length):
    device = await serve(registers={40000: 0x5375, 40001: 0x6E53, 40002: 7, 40003: length})
    blocks = await walk(device)
    assert blocks == [Block(7, 40002, length)]
    assert sunspec.is_cut_off(blocks)


async def test_an_interrupted_walk_goes_on_where_it_was(serve, build):
    device = await serve(silent_after=4)
    device.blocks(*build.chain(build.inverter(1)))
    found: list[Block] = []
    with pytest.raises(NoAnswerError):
        await walk(device, found, timeout_s=0.1)
    assert [block.model_id for block in found] == [1, 64110, 64120]
    device.silent_after = 1000
    device.requests.clear()
    await walk(device, found)
    assert [block.model_id for block in found][3:] == [102, 64255, 64115, 64116]
    assert device.requests[0] == (3, found[3].address, 2)


async def test_read_block_notices_another_block(serve, build):
    device = await serve()
    device.blocks(build.mark, build.inverter(1, length=58), [0, 0])
    async with modbus.session("mate3s", "127.0.0.1", device.port, 2) as session:
        model = await sunspec.read_block(session, Block(64115, 40002, 58))
        assert sunspec.raw(model, "port") == 1
        # It would be the next block's ID.
        assert sunspec.raw(model, "model_number") is None
        for other in (Block(64115, 40002, 59), Block(64117, 40002, 58)):
            with pytest.raises(sunspec.MovedError, match="40002 began model"):
                await sunspec.read_block(session, other)
    assert max(count for _, _, count in device.requests) <= 100


def test_a_point_behind_the_block_is_absent(build):
    longer = sunspec.decode(64115, build.inverter(1, length=59, at60=8048))
    shorter = sunspec.decode(64115, build.inverter(1, length=58))
    assert sunspec.raw(longer, "model_number") == 8048
    assert sunspec.raw(shorter, "model_number") is None
    assert sunspec.scaled(shorter, "ac_coupled_power_kw") == 0.9
    assert sunspec.scaled(sunspec.decode(64115, build.inverter(1)[:24]), "battery_voltage_v") is None


def test_nothing_is_kept_from_the_block_before(build):
    sunspec.decode(64115, build.inverter(1))
    absent = sunspec.decode(64115, build.inverter(1, at24=0x8000))
    assert sunspec.scaled(absent, "battery_voltage_v") is None


@pytest.mark.parametrize(
    ("factor", "expected"), [(-1, 52.4), (0, 524), (1, 5240), (-10, 5.24e-8), (10, 5.24e12)]
)
def test_scale_factors(build, factor, expected):
    model = sunspec.decode(64115, build.inverter(1, at3=factor))
    assert sunspec.scaled(model, "battery_voltage_v") == pytest.approx(expected)
    assert sunspec.raw(model, "battery_voltage_v") == 524


@pytest.mark.parametrize("factor", [0x8000, -11, 11, 400, -400, 0x7FFF])
def test_what_is_no_scale_factor_makes_its_points_absent(build, factor):
    model = sunspec.decode(64115, build.inverter(1, at3=factor))
    assert sunspec.scaled(model, "battery_voltage_v") is None
    assert sunspec.scaled(model, "l1_output_current_a") == 5


@pytest.mark.parametrize("name", ["mode", "errors", "warnings", "ac_input"])
def test_modes_and_flags_know_both_absent_values(build, name):
    offset = {"mode": 21, "errors": 22, "warnings": 23, "ac_input": 35}[name]
    for value, expected in ((0x8000, None), (0xFFFF, None), (0, 0), (12, 12), (0x4001, 0x4001)):
        model = sunspec.decode(64115, build.inverter(1, **{f"at{offset}": value}))
        assert sunspec.scaled(model, name) == expected


def test_a_counter_at_zero_is_a_number(build):
    assert sunspec.scaled(sunspec.decode(64115, build.inverter(1)), "charger_today_kwh") == pytest.approx(6.7)
    model = sunspec.decode(64115, build.inverter(1, at53=0, at54=0xFFFF))
    assert sunspec.scaled(model, "charger_today_kwh") == 0
    assert sunspec.scaled(model, "output_power_kw") is None


def test_common_model(build):
    model = sunspec.decode(1, build.common)
    assert sunspec.raw(model, "manufacturer") == "OB" * 16
    assert sunspec.raw(model, "serial") == "OB" * 16


@pytest.mark.parametrize("model_id", [1, 101, 102, 103, 64110, 64115, 64117])
@given(registers=st.lists(st.integers(0, 0xFFFF), max_size=70))
def test_any_registers_decode(model_id, registers):
    model = sunspec.decode(model_id, registers)
    for name in model.points:
        sunspec.raw(model, name)
        sunspec.scaled(model, name)


OFFSETS = {1: 0, 102: 0, 64110: 392, 64115: 0, 64117: 0}


def test_definitions_are_well_formed():
    assert {int(path.stem.removeprefix("model_")) for path in MODELS.glob("*.json")} == set(OFFSETS)
    for path in MODELS.glob("*.json"):
        definition = json.loads(path.read_text(encoding="utf-8"))
        points = definition["group"]["points"]
        names = [point["name"] for point in points]
        assert len(names) == len(set(names))
        assert {point["sf"] for point in points if "sf" in point} <= set(names)
        assert all(point["desc"] for point in points)
        assert not any(point["type"].startswith("acc") for point in points)


@pytest.mark.parametrize("model_id", OFFSETS)
def test_definitions_agree_with_the_vendors_tables(model_id):
    table = REFERENCE / "registers" / f"outback_{model_id}.csv"
    if not table.exists():
        pytest.skip("the vendor's tables are not here")
    with table.open(encoding="utf-8") as file:
        rows = {int(row["offset"]): row for row in csv.DictReader(file)}
    definition = json.loads((MODELS / f"model_{model_id}.json").read_text(encoding="utf-8"))
    offset = OFFSETS[model_id]
    names: dict[str, str] = {}
    for point in definition["group"]["points"]:
        if point["type"] != "pad":
            row = rows[offset]
            assert int(row["size"]) == point["size"]
            names[point["name"]] = row["name"]
            if point["type"] in ("uint16", "int16", "string"):
                assert row["type"] == point["type"]
            if point["type"] == "sunssf":
                assert row["name"].endswith("_SF")
        offset += point["size"]
    offset = OFFSETS[model_id]
    for point in definition["group"]["points"]:
        # The table has a factor of temperatures, 64110's 400, without tying them to it.
        if point["type"] != "pad" and point.get("sf") != "temperature_sf":
            assert rows[offset]["scale_factor"] == names.get(point.get("sf", ""), "")
        offset += point["size"]
