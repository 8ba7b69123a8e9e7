"""Any bytes, any room, any configuration: whole cycles, every field within the contract, no hang, no bug."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from power_collector.config import DeviceConfig, SiteConfig
from power_collector.contract import measurement
from power_collector.simulator.outback import OutbackTraits
from power_collector.simulator.server import Behaviour, FaultName
from power_collector.simulator.tristar import TristarTraits
from power_collector.site import NAME, Site

SITE = SiteConfig(latitude=35.0, longitude=-119.0, timezone="America/Los_Angeles")

some = settings(
    max_examples=50,
    deadline=None,
    # A whole room is slow to shrink: the first example that fails must do.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def bugs(caplog):
    """Return what the collector said about bugs of its own: a driver's exceptions are told as ERROR."""
    caplog.set_level(logging.WARNING)
    return lambda: [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]


async def checked_cycle(one):
    """Run a cycle, late enough that a device that failed is asked again: whole, in time, in the contract."""
    one.pause(120)
    (written,) = await one.cycles(1)
    slowest_s = max(device.timeout_s for device in one.config.devices)
    assert one.clock.wall() - written.time <= slowest_s + 0.01, "a poll's time covers everything"
    asked = [device for device in one.config.devices if "response_ms" in written.status(device.name)]
    assert asked == one.config.devices
    for point in written.points:
        contract = measurement(point.measurement)
        assert point.time == written.time or point.measurement == "daily_energy"
        assert set(point.tags) == set(contract.tags)
        assert point.fields
        for name, value in point.fields.items():
            field = contract.fields[name]
            assert type(value) is field.type
            assert field.minimum <= value <= field.maximum
    keys = [(point.measurement, tuple(sorted(point.tags.items()))) for point in written.points]
    assert len(keys) == len(set(keys)), "two points of one series and time overwrite each other"
    assert {point.tags["device"] for point in written.of("device_status")} == {
        device.name for device in one.config.devices
    }
    assert len(written.of("collector_status")) == 1
    return written


# What a device may send for a request, and how it goes on: made of the request, so that some of it is taken.
WORD = st.one_of(
    st.sampled_from([0, 1, 2, 101, 102, 64110, 64115, 64117, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF]),
    st.integers(0, 0xFFFF),
)
SENT = st.one_of(
    st.tuples(st.just("bytes"), st.binary(max_size=300)),
    st.tuples(st.just("header and bytes"), st.binary(max_size=260)),
    st.tuples(st.just("registers"), st.lists(WORD, min_size=1, max_size=12)),
    st.tuples(st.just("refusal"), st.integers(0, 255)),
    st.tuples(st.just("nothing"), st.none()),
)
THEN = st.sampled_from(["stay", "stay", "stay", "close", "reset", "end of file"])


def answer_of(request, kind, value):
    transaction, function = request[:2], request[7]
    count = struct.unpack(">H", request[10:12])[0]
    address = struct.unpack(">H", request[8:10])[0]
    match kind:
        case "bytes":
            return value
        case "header and bytes":
            return transaction + struct.pack(">HHBBB", 0, 3 + 2 * count, 1, function, 2 * count) + value
        case "registers":
            words = (value * count)[:count]
            if address == 40000:
                words[:2] = (0x5375, 0x6E53)[:count]
            data = struct.pack(f">{count}H", *words)
            return transaction + struct.pack(">HHBBB", 0, 3 + 2 * count, 1, function, 2 * count) + data
        case "refusal":
            return transaction + struct.pack(">HHBBB", 0, 3, 1, function | 0x80, value)
    return b""


@some
@given(
    driver=st.sampled_from(["outback", "tristar-mppt-600v", "tristar-mppt"]),
    script=st.lists(st.tuples(SENT, THEN), min_size=1, max_size=30),
    greeting=st.binary(max_size=20),
)
async def test_whatever_a_device_sends(ranch, ranch_devices, bugs, driver, script, greeting):
    """The device at the address of a neighbour that goes on to be read."""
    steps = iter(script * 20)

    async def talk(reader, writer):
        writer.write(greeting)
        try:
            while len(request := await reader.read(260)) >= 12:
                assert request[7] == 3, "only reads are sent"
                (kind, value), then = next(steps, (("nothing", None), "stay"))
                writer.write(answer_of(request, kind, value))
                if then == "reset":
                    writer.transport.abort()
                if then == "end of file":
                    writer.write_eof()
                if then in ("close", "reset"):
                    break
        except (ConnectionError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    strange = DeviceConfig(
        name="strange",
        driver=driver,
        host="127.0.0.1",
        port=port,
        timeout_s=1.0,
        inverters=3 if driver == "outback" else None,
    )
    neighbour = ranch_devices[1]
    async with server, ranch([strange, neighbour], room_devices=[neighbour]) as one:
        for _ in range(3):
            written = await checked_cycle(one)
            assert len(written.of("charge_controller", "sc1")) == 1
    assert bugs() == []


def devices_of(count, interval_s):
    """Any configuration: an outback at most, and chargers of both kinds."""

    @st.composite
    def draw(draw):
        drivers = ["outback"] if draw(st.booleans()) else []
        chargers = count - len(drivers)
        drivers += draw(
            st.lists(
                st.sampled_from(["tristar-mppt-600v", "tristar-mppt"]), min_size=chargers, max_size=chargers
            )
        )
        legacy = draw(st.booleans())
        return [
            DeviceConfig(
                name=f"d{number}",
                driver=driver,
                host="127.0.0.1",
                port=number + 1,
                timeout_s=draw(st.sampled_from([s for s in (0.1, 0.9, 2.5, 60.0) if s < interval_s])),
                inverters=draw(st.integers(1, 10)) if driver == "outback" else None,
                legacy_measurement=f"solar_charger_{number}" if legacy and driver != "outback" else None,
                float16=driver == "tristar-mppt-600v" and draw(st.booleans()),
            )
            for number, driver in enumerate(draw(st.permutations(drivers)))
        ]

    return draw()


OUTBACK_TRAITS = st.builds(
    OutbackTraits,
    inverters=st.none() | st.integers(0, 10),
    ports=st.none()
    | st.lists(st.integers(0, 11) | st.integers(0, 0xFFFF), min_size=10, max_size=10).map(tuple),
    single_phase=st.booleans(),
    short_blocks=st.booleans(),
    slave_mode=st.booleans(),
    inverter_model=st.sampled_from([101, 102, 103]),
    unknown_model=st.booleans(),
    end=st.sampled_from(["marker", "zeros", "never"]),
    clock_offset_s=st.sampled_from([0.0, -3600.0, 1e9, -5e8]),
)
TRISTAR_TRAITS = st.builds(
    TristarTraits,
    firmware=st.none() | st.integers(1, 9999),
    today=st.sampled_from(["wh", "half-float-kwh"]),
    sensor=st.booleans(),
    faults=st.integers(0, 2**32 - 1),
    alarms=st.integers(0, 2**32 - 1),
)
BEHAVIOUR = st.builds(
    Behaviour,
    fault=st.none() | st.sampled_from(get_args(FaultName)),
    seconds=st.sampled_from([0.01, 0.3, 5.0]),
    code=st.integers(1, 255),
    latency_ms=st.sampled_from([0.0, 0.0, 0.0, 3.0]),
    keep_open=st.none() | st.booleans(),
)


@some
@given(data=st.data())
async def test_any_room_and_any_configuration(ranch, bugs, tmp_path, data):
    """The room need not be what the configuration says, and changes from cycle to cycle."""
    count = data.draw(st.integers(1, 4))
    interval_s = data.draw(st.sampled_from([1, 7, 15, 3600]))
    ours, theirs = data.draw(devices_of(count, interval_s)), data.draw(devices_of(count, interval_s))
    (tmp_path / NAME).unlink(missing_ok=True)
    site = Site(SITE, tmp_path)
    async with ranch(ours, room_devices=theirs, interval_s=interval_s, site=site) as one:
        for _ in range(3):
            for device in theirs:
                await one.room.behave(device.name, **data.draw(BEHAVIOUR).model_dump())
                traits = data.draw(OUTBACK_TRAITS if device.driver == "outback" else TRISTAR_TRAITS)
                one.room.change(device.name, **traits.model_dump())
            await checked_cycle(one)
    assert bugs() == []
