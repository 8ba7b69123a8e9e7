from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from power_collector import poller
from power_collector.devices.base import ChargeControllerReading, NoAnswerError
from power_collector.poller import Poller, backoff_cycles

DOWN = NoAnswerError("sc1: no answer within 0.5 s")


@pytest.fixture
def device(fake_device):
    return fake_device()


@pytest.fixture
def make(make_config, device, clock):
    def make(interval_s: int = 15, jitter: float = 0.0) -> Poller:
        return Poller(make_config(1025).devices[0], device, interval_s, clock, jitter=lambda: jitter)

    return make


@pytest.mark.parametrize("interval_s", [1, 7, 15, 40, 60, 600])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_the_backoff_grows_to_at_most_a_minute(interval_s: int, jitter: float) -> None:
    waits = [backoff_cycles(n, interval_s, jitter) * interval_s for n in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[0] == interval_s
    assert waits[-1] <= max(60, interval_s)
    assert min(waits) >= interval_s


async def test_a_reading_tells_its_age_and_time(make, device, clock) -> None:
    async def slowly() -> ChargeControllerReading:
        clock.advance(0.025)
        return ChargeControllerReading({"output_power_w": 5.0})

    device.script = [slowly]
    poll = await make().poll()
    assert poll.reading == ChargeControllerReading({"output_power_w": 5.0})
    assert poll.response_ms == pytest.approx(25)
    assert (poll.failures, poll.age_s) == (0, 0)


async def test_a_silent_device_is_asked_less_often_and_seen_again_within_a_minute(
    make, device, clock, caplog
) -> None:
    caplog.set_level(logging.INFO)
    subject = make()
    device.script = [DOWN] * 100
    asked = []
    for tick in range(200):
        before = device.reads
        poll = await subject.poll()
        assert poll.reading is None
        if device.reads > before:
            asked.append(tick * 15)
            assert poll.response_ms is not None
        else:
            assert poll.response_ms is None
        if device.reads == 100:
            break
        clock.advance(15)
    assert asked[:5] == [0, 15, 45, 105, 165]
    assert max(b - a for a, b in itertools.pairwise(asked)) == 60
    device.script = []
    for _ in range(4):
        clock.advance(15)
        poll = await subject.poll()
    assert poll.reading is not None
    assert (poll.failures, subject.error) == (0, None)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "sc1: no answer within 0.5 s"),
        ("INFO", f"sc1 answers again after {len(asked)} failed polls"),
    ]


async def test_the_age_grows_while_it_is_down(make, device, clock) -> None:
    subject = make()
    device.script = [DOWN]
    assert (await subject.poll()).age_s is None
    clock.advance(15)
    assert (await subject.poll()).age_s == 0
    device.script = [DOWN]
    clock.advance(15)
    poll = await subject.poll()
    assert (poll.age_s, poll.failures) == (15, 1)


async def test_a_bug_of_a_driver_is_a_failure_with_its_traceback_once(make, device, clock, caplog) -> None:
    subject = make(interval_s=60)
    device.script = [ZeroDivisionError("oops"), ZeroDivisionError("oops")]
    for failures in (1, 2):
        poll = await subject.poll()
        assert (poll.reading, poll.failures) == (None, failures)
        assert "ZeroDivisionError" in (subject.error or "")
        clock.advance(60)
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert "Traceback" in caplog.text


async def test_a_driver_that_hangs_is_cut_off(make, device, monkeypatch) -> None:
    monkeypatch.setattr(poller, "_GRACE_S", -0.49)
    device.script = [asyncio.Event().wait]
    poll = await make().poll()
    assert poll.reading is None


async def test_being_cancelled_is_no_fault_of_the_device(make, device) -> None:
    device.script = [asyncio.Event().wait]
    task = asyncio.create_task(make().poll())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
