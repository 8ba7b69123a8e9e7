"""Each fault that a device can have: what is written meanwhile and what is logged."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

OWN = {
    "mate3s": ("mate3s", "power_room_totals"),
    "sc1": ("solar_charger_1",),
    "sc2": ("solar_charger_2",),
    "sc3": (),
}
"""The measurements of a device that carry no tag of it."""
TOGETHER = ("solar_charger_total", "solar_charger_partial")
"""The measurements of all chargers together."""

LATE = "the answers did not come within 2 s"
CLOSED = "closed the connection without an answer"
WRONG = "does not answer the request"
FAULTS = {
    "silent": ({"fault": "silent"}, LATE),
    "slow": ({"fault": "slow", "seconds": 2.5}, LATE),
    "half-open": ({"fault": "truncated"}, LATE),
    "refusing": ({"fault": "refusing"}, "Connection refused"),
    "resetting": ({"fault": "reset"}, CLOSED),
    "closing": ({"fault": "hang-up"}, CLOSED),
    "garbage": ({"fault": "garbage"}, WRONG),
    "wrong transaction": ({"fault": "wrong-transaction"}, WRONG),
    "a register short": ({"fault": "short"}, WRONG),
    "exception": ({"fault": "exception", "code": 4}, "Modbus exception 4 (device failure)"),
    "illegal address": ({"fault": "exception", "code": 2}, "Modbus exception 2 (illegal address)"),
    "busy": ({"fault": "busy"}, "Modbus exception 6 (busy)"),
}
faults = pytest.mark.parametrize(("fault", "cause"), FAULTS.values(), ids=FAULTS)


@pytest.fixture
def said(caplog):
    """Return what was logged from a level on, by the collector or anything under it."""
    caplog.set_level(logging.INFO)

    def said(level: int = logging.WARNING) -> list[str]:
        return [
            f"{record.levelname} {record.getMessage()}"
            for record in caplog.records
            if record.levelno >= level and "simulator" not in record.name
        ]

    return said


def lines(written, device):
    return written.lines(OWN[device], device)


def status_line(written, device):
    return written.one("device_status", device).to_line()


def check_others(broken, healthy, device):
    """All others' points are those of a room without the fault, to the letter, in the same cycles."""
    for ours, theirs in zip(broken, healthy, strict=True):
        assert {point.time for point in ours.points} == {ours.time} == {theirs.time}
        for other in OWN.keys() - {device}:
            assert lines(ours, other) == lines(theirs, other)
            assert len(lines(ours, other)) > 1
        if device == "mate3s":
            for measurement in TOGETHER:
                assert ours.of(measurement) == theirs.of(measurement) != []


def check_absent(written, device):
    """Nothing of a device but that it is not there, and no sum that would lack it."""
    assert lines(written, device) == [status_line(written, device)]
    assert written.status(device)["up"] == 0
    collector = written.one("collector_status").fields
    assert collector["inverters_expected"] == 3
    assert collector["points"] == len(written.points)
    if device == "mate3s":
        assert collector["inverters_read"] == 0
    else:
        assert collector["inverters_read"] == 3
        assert written.of("solar_charger_total") == []
        partial = written.one("solar_charger_partial").fields
        assert (partial["read"], partial["expected"]) == (2, 3)
        assert partial["power_kw"] > 0


def check_statuses(during, device, since_good_s):
    """Failures count the polls, and the age is that of the last good reading, in each cycle."""
    asked = 0
    for number, written in enumerate(during):
        status = written.status(device)
        asked += "response_ms" in status
        assert status["failures"] == asked
        if since_good_s is None:
            assert "age_s" not in status
        else:
            waited_s = status.get("response_ms", 0) / 1000
            assert status["age_s"] == pytest.approx(since_good_s + number * 15 + waited_s)
    assert 1 < asked < len(during)


@pytest.fixture
def healthy(ranch):
    """Return what so many cycles write while nothing is wrong."""

    async def healthy(cycles):
        async with ranch() as one:
            return await one.cycles(cycles)

    return healthy


@faults
@pytest.mark.parametrize("device", ["mate3s", "sc2", "sc3"])
async def test_a_fault_costs_the_devices_own_points_alone(ranch, healthy, said, device, fault, cause):
    expected = await healthy(16)
    async with ranch() as one:
        before = await one.cycles(2)
        await one.room.fault(device, **fault)
        during = await one.cycles(10)
        assert len(said()) == 1
        await one.room.fault(device)
        after = await one.cycles(4)

    check_others(before + during + after, expected, device)
    for written, right in zip(before, expected, strict=False):
        assert lines(written, device) == lines(right, device)
        well = {"up": 1, "response_ms": 0, "failures": 0, "age_s": 0}
        assert written.status(device) == ({**well, "expected": 1} if device == "mate3s" else well)
    for written in during:
        check_absent(written, device)
    check_statuses(during, device, since_good_s=15)

    back = next(number for number, written in enumerate(after) if written.status(device)["up"])
    for written in after[:back]:
        check_absent(written, device)
    for written, right in zip(after[back:], expected[12 + back :], strict=True):
        assert lines(written, device) == lines(right, device)
        assert written.of("solar_charger_total") == right.of("solar_charger_total") != []

    (warning,) = said()
    assert warning.startswith(f"WARNING {device} (127.0.0.1:")
    assert cause in warning
    failures = during[-1].status(device)["failures"] + sum(
        "response_ms" in w.status(device) for w in after[:back]
    )
    (returned,) = [line for line in said(logging.INFO) if "answers again" in line]
    assert returned == f"INFO {device} answers again after {failures:.0f} failed polls"


@faults
@pytest.mark.parametrize("device", ["mate3s", "sc2"])
async def test_a_fault_from_the_first_cycle_on(ranch, healthy, said, device, fault, cause):
    async with ranch() as one:
        await one.room.fault(device, **fault)
        during = await one.cycles(6)
        await one.room.fault(device)
        after = await one.cycles(4)
    check_others(during + after, await healthy(10), device)
    for written in during:
        check_absent(written, device)
    check_statuses(during, device, since_good_s=None)
    assert after[-1].status(device)["up"] == 1
    (warning,) = said()
    assert cause in warning


async def test_each_outage_is_told_once_more(ranch, said):
    async with ranch() as one:
        for _ in range(3):
            await one.cycles(2)
            await one.room.fault("sc1", "hang-up")
            await one.cycles(3)
            await one.room.fault("sc1")
            await one.cycles(4)
    told = [line.split()[0] for line in said(logging.INFO) if " sc1 " in line]
    assert told == ["WARNING", "INFO"] * 3


@pytest.mark.parametrize(("fault", "waited_ms"), [("silent", 2000), ("refusing", 0)])
async def test_a_cycle_ends_when_the_last_time_is_up(ranch, fault, waited_ms):
    async with ranch() as one:
        await one.room.fault("sc2", fault)
        (written,) = await one.cycles(1)
    assert written.one("collector_status").fields["cycle_ms"] == pytest.approx(waited_ms)
    assert written.status("sc2")["response_ms"] == pytest.approx(waited_ms)
    assert written.status("sc1")["response_ms"] == 0


async def test_late_but_in_time(ranch, healthy, said):
    expected = await healthy(3)
    async with ranch() as one:
        await one.cycles(1)
        await one.room.behave("sc2", latency_ms=1900)
        await one.room.behave("mate3s", latency_ms=450)
        late = await one.cycles(2)
    for written, right in zip(late, expected[1:], strict=True):
        assert {point.time for point in written.points} == {right.time}
        for device, response_ms in {"sc2": 1900, "mate3s": 4 * 450, "sc1": 0}.items():
            status = written.status(device)
            assert (status["up"], status["failures"], status["age_s"]) == (1, 0, 0)
            assert status["response_ms"] == pytest.approx(response_ms)
        assert written.one("collector_status").fields["cycle_ms"] == pytest.approx(1900)
        assert len(written.of("inverter")) == 3
        for other in ("sc1", "sc3"):
            assert lines(written, other) == lines(right, other)
    assert said() == []


@pytest.mark.parametrize("answered", [1, 2, 3])
async def test_half_open_in_the_middle_of_a_poll(ranch, healthy, said, answered):
    """Some of the hub's blocks, then nothing: half a room is no reading of it."""
    expected = await healthy(4)
    async with ranch() as one:
        await one.cycles(2)
        await one.room.behave("mate3s", latency_ms=100)

        async def fall_silent():
            # Each of the four answers takes 0.1 s; how a request is answered is settled when it comes.
            await asyncio.sleep(15 + answered * 0.1 - 0.05)
            await one.room.fault("mate3s", "silent")

        falls = asyncio.create_task(fall_silent())
        await asyncio.sleep(0)
        before = len(one.room.answers)
        (broken,) = await one.cycles(1)
        await falls
        answers = [answer for answer in list(one.room.answers)[before:] if answer["device"] == "mate3s"]
        assert ["registers" in answer for answer in answers] == [True] * answered + [False]
        await one.room.behave("mate3s", latency_ms=0, fault=None)
        (after,) = await one.cycles(1)
    check_others([broken, after], expected[2:], "mate3s")
    check_absent(broken, "mate3s")
    assert lines(after, "mate3s") == lines(expected[3], "mate3s")
    (warning,) = said()
    assert warning.startswith("WARNING mate3s (127.0.0.1:")
    assert LATE in warning


async def test_everything_away_at_once(ranch, said):
    async with ranch() as one:
        await one.cycles(1)
        await one.room.fault("*", "silent")
        during = await one.cycles(4)
        await one.room.fault("*")
        after = await one.cycles(4)
    for written in during:
        names = {point.measurement for point in written.points}
        assert names == {"device_status", "collector_status", "solar_charger_partial"}
        assert written.one("solar_charger_partial").fields == {"power_kw": 0, "read": 0, "expected": 3}
        assert {point.time for point in written.points} == {written.time}
    # All at once: the cycle waits for them together.
    assert during[0].one("collector_status").fields["cycle_ms"] == pytest.approx(2000)
    assert [after[-1].status(device)["up"] for device in OWN] == [1] * 4
    assert sorted(line.split()[1] for line in said()) == sorted(OWN)


async def test_ticks_are_kept_while_a_device_is_silent(ranch, said):
    """The loop itself: a time-out in each poll moves no cycle."""
    async with ranch(interval_s=5) as one:
        await one.room.fault("sc1", "silent")
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(62, stop.set)
        await one.collector.run(stop)
        times = [cycle.time for cycle in one.sink.cycles]
    assert times == list(range(times[0], times[0] + 60, 5))
    assert len(said()) == 1


async def test_a_device_without_temperatures(ranch, healthy, said):
    (expected,) = await healthy(1)
    async with ranch() as one:
        await one.room.fault("*", "nan")
        (written,) = await one.cycles(1)
    fields = written.one("charge_controller", "sc1").fields
    right = expected.one("charge_controller", "sc1").fields
    lost = {"heatsink_temperature_c", "battery_temperature_c", "remote_temperature_c"}
    assert {k: v for k, v in right.items() if k not in lost} == fields
    assert lost <= right.keys()
    for inverter, right in zip(written.of("inverter"), expected.of("inverter"), strict=True):
        lost = right.fields.keys() - inverter.fields.keys()
        assert len(lost) >= 6
        assert all("temperature" in name for name in lost)
        assert {k: v for k, v in right.fields.items() if k not in lost} == inverter.fields
    assert said() == []


async def away(one, fault, hours):
    """Run cycles while sc2 is away; return its status in the last one."""
    await one.room.fault("sc2", fault)
    during = await one.cycles(hours * 3600 // one.config.interval_s)
    await one.room.fault("sc2")
    return during[-1].status("sc2")


@pytest.mark.parametrize(
    ("fault", "interval_s", "hours"),
    [("refusing", 15, 9), ("silent", 15, 1), ("refusing", 7, 3), ("reset", 60, 9)],
)
async def test_back_at_dawn(ranch, ranch_devices, said, fault, interval_s, hours):
    """Hours away, and seen within a minute."""
    async with ranch(ranch_devices[1:3], interval_s=interval_s) as one:
        await one.cycles(1)
        last = await away(one, fault, hours)
        after = await one.cycles(math.ceil(60 / interval_s))
    assert last["up"] == 0
    assert last["age_s"] == pytest.approx(hours * 3600, abs=interval_s + 2)
    # Asked at least once a minute, and not each cycle.
    assert hours * 60 <= last["failures"] <= max(hours * 130, hours * 3600 // interval_s)
    status = after[-1].status("sc2")
    assert (status["up"], status["failures"]) == (1, 0)
    seen = next(written for written in after if written.status("sc2")["up"])
    assert seen.of("charge_controller", "sc2") != []
    assert seen.of("solar_charger_2") != []
    told = [line for line in said(logging.INFO) if line.startswith(("WARNING", "INFO sc2"))]
    assert [line.split()[0] for line in told] == ["WARNING", "INFO"]


# The hub: its blocks move, its firmware changes, its inverters come and go.


def ports(written):
    return [int(point.tags["port"]) for point in written.of("inverter", "mate3s")]


def inverter_fields(written):
    return {point.tags["port"]: point.fields for point in written.of("inverter")}


CHANGES = {
    "a block before the inverters": {"unknown_model": True},
    "new firmware with longer blocks": {"short_blocks": False},
    "other hub ports": {"ports": (4, 5, 6)},
    "an inverter plugged in before the others": {"inverters": 4, "ports": (7, 1, 2, 3)},
    "another SunSpec model of the sums": {"inverter_model": 103},
    "another end of the chain": {"end": "zeros"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_moved_blocks_cost_no_cycle(ranch, said, change):
    """The same cycle has every point, each inverter's with its own values."""
    async with ranch() as fresh:
        fresh.room.change("mate3s", **{"short_blocks": True} | change)
        expected = await fresh.cycles(6)
    async with ranch() as one:
        one.room.change("mate3s", short_blocks=True)
        before = await one.cycles(3)
        one.room.change("mate3s", **change)
        after = await one.cycles(3)
    check_others(before + after, expected, "mate3s")
    for written, right in zip(after, expected[3:], strict=True):
        # As if the change had been there from the start.
        assert lines(written, "mate3s") == lines(right, "mate3s")
        assert written.status("mate3s")["up"] == 1
        assert "total_load_power_kw" in written.one("power_room_totals").fields
        if set(change) & {"ports", "inverters"}:
            assert ports(written) == list(change["ports"])
        else:
            assert ports(written) == [1, 2, 3]
    assert said() == []


async def test_the_next_polls_after_a_move_are_short_again(ranch):
    async with ranch() as one:
        await one.cycles(1)
        one.room.change("mate3s", unknown_model=True)
        await one.cycles(1)
        before = len(one.room.answers)
        await one.cycles(1)
        asked = [answer for answer in list(one.room.answers)[before:] if answer["device"] == "mate3s"]
    assert len(asked) == 4


async def test_an_inverter_plugged_in_behind_the_others_is_written_within_the_hour(
    ranch, ranch_devices, said
):
    """It moves nothing; the three that were there before are written in each cycle."""
    async with ranch(ranch_devices[:1], interval_s=60) as one:
        await one.cycles(1)
        one.room.change("mate3s", inverters=4)
        hour = await one.cycles(61)
    assert all(ports(written)[:3] == [1, 2, 3] for written in hour)
    assert ports(hour[-1]) == [1, 2, 3, 4]
    assert hour[-1].one("collector_status").fields["inverters_read"] == 4
    assert said() == []


@pytest.mark.parametrize(("left", "gone"), [((1, 2), "3"), ((1, 3), "2"), ((2, 3), "1")])
@pytest.mark.parametrize("cycles", [5, 6, 7, 8])
async def test_an_inverter_gone_from_the_hub(ranch, healthy, said, left, gone, cycles):
    expected = await healthy(2 + cycles + 4)
    async with ranch() as one:
        before = await one.cycles(2)
        one.room.change("mate3s", inverters=2, ports=left)
        during = await one.cycles(cycles)
        one.room.change("mate3s", inverters=None, ports=None)
        after = await one.cycles(4)

    for written, right in zip(during, expected[2:], strict=False):
        assert ports(written) == list(left)
        assert gone not in inverter_fields(written)
        well = {"up": 1, "expected": 1, "response_ms": 0, "failures": 0, "age_s": 0}
        assert written.status("mate3s") == well
        collector = written.one("collector_status").fields
        assert (collector["inverters_read"], collector["inverters_expected"]) == (2, 3)
        # No sum that lacks one; the battery is known all the same.
        totals = written.one("power_room_totals").fields
        assert totals == {"battery_voltage": right.one("power_room_totals").fields["battery_voltage"]}
        assert written.one("mate3s").fields.keys() == right.one("mate3s").fields.keys()
    check_others(before + during + after, expected, "mate3s")
    # Back within a minute, and all sums with it.
    assert lines(after[-1], "mate3s") == lines(expected[-1], "mate3s")

    (warning,) = said()
    assert warning.startswith("WARNING mate3s: only 2 of 3 inverters; look at the hub's cables")
    returned = [
        line for line in said(logging.INFO) if "again" in line and line.startswith("INFO mate3s: all")
    ]
    assert returned == ["INFO mate3s: all 3 inverters again"]


async def test_an_inverter_missing_and_the_device_away_in_between(ranch, said):
    """The outage is told, the missing inverter not a second time."""
    async with ranch() as one:
        one.room.change("mate3s", inverters=2)
        await one.cycles(2)
        await one.room.fault("mate3s", "reset")
        away = await one.cycles(2)
        await one.room.fault("mate3s")
        after = await one.cycles(4)
    check_absent(away[-1], "mate3s")
    assert ports(after[-1]) == [1, 2]
    assert [("only 2 of 3" in line, CLOSED in line) for line in said()] == [(True, False), (False, True)]


async def test_new_firmware_of_a_charger_that_is_no_longer_trusted(ranch, healthy, said):
    """Numbers that may be scaled integers are not written: it is up, without values, and told once."""
    expected = await healthy(5)
    async with ranch() as one:
        await one.cycles(1)
        one.room.change("sc2", firmware=13)
        during = await one.cycles(3)
        one.room.change("sc2", firmware=21)
        (after,) = await one.cycles(1)
    check_others([*during, after], expected[1:], "sc2")
    for written in during:
        assert lines(written, "sc2") == [status_line(written, "sc2")]
        assert written.status("sc2")["up"] == 1
        assert written.of("solar_charger_total") == []
        assert written.one("solar_charger_partial").fields["read"] == 2
    assert lines(after, "sc2") == lines(expected[-1], "sc2")
    (warning,) = said()
    assert "sc2" in warning
    assert "firmware 13" in warning


async def test_two_inverters_that_claim_one_port(ranch, said):
    """Their points would overwrite each other: the first counts, and the sums are left out."""
    async with ranch() as one:
        one.room.change("mate3s", ports=(1, 2, 2))
        (written,) = await one.cycles(1)
    assert ports(written) == [1, 2]
    assert written.one("power_room_totals").fields.keys() == {"battery_voltage"}
    (warning,) = said()
    assert "only 2 of 3 inverters" in warning
