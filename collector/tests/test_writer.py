"""The writer against an InfluxDB on loopback: what reaches it, what waits, what is said; time is injected."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from power_collector.backlog import Backlog
from power_collector.batch import Cycle
from power_collector.config import StoreConfig
from power_collector.influx import Answer, InfluxClient
from power_collector.store import Store
from power_collector.writer import BATCH_LINES, HOLD_S, STALL_S, Writer, WriterThread


@pytest.fixture
def store_config(tmp_path) -> StoreConfig:
    return StoreConfig(path=tmp_path / "store.sqlite", max_mb=100, max_age_days=30)


class Bench:
    """A writer, its parts, and a room that makes a cycle each 15 s."""

    def __init__(self, clock, store_config, client) -> None:
        self.clock = clock
        self.store_config = store_config
        self.client = client
        self.sent: dict[tuple[str, str], str] = {}
        self.backlogs: list[Backlog] = []
        self.start()

    def start(self) -> None:
        self.backlog = Backlog(self.store_config, self.clock)
        self.backlogs.append(self.backlog)
        self.writer = Writer(self.backlog, self.client, self.clock)

    def close(self) -> None:
        for backlog in self.backlogs:
            backlog.close()

    def cycle(self, *extra: str, size: int = 3) -> None:
        now = int(self.clock.wall())
        lines = [f"m,device=d{n} f={n}.5 {now}" for n in range(size)] + [f"{line} {now}" for line in extra]
        for line in lines:
            series, fields, stamp = line.rsplit(" ", 2)
            self.sent[series, stamp] = fields
        self.writer.put(Cycle(now, tuple(lines)))

    def settle(self, most: int = 1000) -> None:
        """Step until there is nothing to do at this moment."""
        for _ in range(most):
            if self.writer.step() > 0:
                return
        pytest.fail("the writer never comes to rest")

    def run(self, cycles: int, *extra: str) -> None:
        for _ in range(cycles):
            self.cycle(*extra)
            self.settle()
            self.clock.advance(15)
            self.settle()


@pytest.fixture
def bench(clock, store_config, influx_config) -> Iterator[Bench]:
    made = Bench(clock, store_config, InfluxClient(influx_config))
    yield made
    made.close()


@pytest.fixture
def embedded(clock, store_config) -> Iterator[Bench]:
    made = Bench(clock, store_config, None)
    yield made
    made.close()


def test_while_the_database_answers_nothing_is_stored(bench, influx) -> None:
    bench.run(5)
    assert influx.points == bench.sent
    assert len(influx.requests) == 5
    assert bench.backlog.points == 0
    assert bench.writer.counters.stored_points == 0


def test_without_a_database_the_store_is_the_end_of_the_line(embedded) -> None:
    embedded.run(9)
    assert embedded.backlog.points == 8 * 3
    rows = list(embedded.backlog._store.batches())
    assert len(rows) == 2  # a commit a minute, not one a cycle
    assert embedded.writer.counters.stored_points == 9 * 3  # what is held counts as waiting
    embedded.writer.finish(embedded.clock.monotonic() + 4)
    embedded.start()
    assert embedded.backlog.points == 9 * 3


def test_adding_a_database_forwards_what_the_embedded_store_holds(embedded, influx, influx_config) -> None:
    embedded.run(9)
    embedded.writer.finish(embedded.clock.monotonic() + 4)
    embedded.client = InfluxClient(influx_config)
    embedded.start()
    embedded.settle()
    assert influx.points == embedded.sent
    assert embedded.backlog.points == 0


def test_held_for_a_minute_then_stored_and_all_sent_when_it_is_back(bench, influx, caplog) -> None:
    caplog.set_level(logging.INFO)
    influx.usual = (503, {}, "no")
    bench.run(20)
    assert influx.points == {}
    assert bench.backlog.points >= 16 * 3
    assert bench.writer.counters.stored_points == 20 * 3
    influx.usual = None
    bench.run(4)
    assert influx.points == bench.sent
    assert bench.backlog.points == 0
    assert [r.levelname for r in caplog.records] == [
        "WARNING",
        "INFO",
    ]  # once when it goes, once when it is back
    assert "points wait" in caplog.text


def test_nothing_is_held_in_memory_for_more_than_a_minute(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.cycle()
    bench.settle()
    bench.clock.advance(HOLD_S - 1)
    bench.settle()
    assert bench.backlog.points == 0
    bench.clock.advance(1)
    bench.settle()
    assert bench.backlog.points == 3
    assert HOLD_S + 2 * 4 <= 60


def test_the_live_batch_goes_before_the_backlog_and_the_backlog_oldest_first(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(2000)
    assert BATCH_LINES < bench.backlog.points < 4 * BATCH_LINES
    influx.usual = None
    influx.requests.clear()
    bench.cycle("live f=1")
    bench.clock.advance(60)
    bench.settle()
    assert any(line.startswith("live") for line in influx.requests[0])
    backlog = influx.requests[1:]
    assert max(len(lines) for lines in backlog) <= BATCH_LINES
    assert len(backlog) == 4
    times = [int(line.rsplit(" ", 1)[1]) for lines in backlog for line in lines]
    assert times == sorted(times)
    assert influx.points == bench.sent


def test_live_cycles_that_piled_up_go_in_requests_of_bounded_size(bench, influx) -> None:
    for n in range(3):
        bench.cycle(f"n f={n}", size=BATCH_LINES // 2 - 1)
        bench.clock.advance(1)
    bench.settle()
    assert [len(lines) for lines in influx.requests] == [BATCH_LINES, BATCH_LINES // 2]
    assert bench.backlog.points == 0


def test_a_live_batch_goes_between_two_of_the_backlog(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(4000)
    influx.usual = None
    influx.requests.clear()
    bench.clock.advance(60)
    bench.writer.step()
    bench.cycle("live f=1")
    bench.writer.step()
    assert any(line.startswith("live") for line in influx.requests[-1])
    assert bench.backlog.points > 0


def test_a_failing_database_is_asked_less_and_less_often_but_at_least_each_30_s(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(4)
    moments = []
    for _ in range(600):
        before = len(influx.requests)
        bench.settle()
        if len(influx.requests) > before:
            moments.append(bench.clock.monotonic())
        bench.clock.advance(1)
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert max(gaps) == 30
    assert len(moments) < 30


def test_a_retry_after_of_hours_is_cut_to_five_minutes(bench, influx) -> None:
    influx.script = [(503, {"Retry-After": "86400"}, "maintenance")]
    bench.cycle()
    bench.settle()
    bench.clock.advance(300)
    bench.settle()
    assert influx.points == bench.sent


def test_what_is_held_is_stored_in_time_also_where_no_other_cycle_comes(embedded) -> None:
    embedded.cycle()
    assert embedded.writer.step() == HOLD_S


def test_retry_after_is_obeyed(bench, influx) -> None:
    influx.script = [(429, {"Retry-After": "100"}, "slow down")]
    bench.cycle()
    bench.settle()
    bench.clock.advance(99)
    bench.settle()
    assert len(influx.requests) == 1
    bench.clock.advance(1)
    bench.settle()
    assert influx.points == bench.sent


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ((401, {}, "unauthorized"), "token is wrong or missing"),
        ((403, {}, "forbidden"), "may not write this bucket"),
        ((404, {}, "not found"), "organisation or bucket"),
        ((200, {}, "<html>a router's page</html>"), "no InfluxDB answers at"),
    ],
)
def test_a_fault_of_configuration_is_told_once_keeps_all_and_is_tried_slowly(
    bench, influx, caplog, answer, remedy
) -> None:
    influx.usual = answer
    bench.run(100)  # 25 minutes
    assert len(influx.requests) <= 10
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert remedy in caplog.text
    influx.usual = None
    bench.run(20)
    assert influx.points == bench.sent


def test_another_fault_of_configuration_is_told_too(bench, influx, caplog) -> None:
    for status in (401, 403):
        influx.usual = (status, {}, "no")
        bench.run(30)
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR"]
    assert "may not write this bucket" in caplog.records[1].message


def test_bad_lines_are_found_and_named_and_the_good_ones_of_their_batch_arrive(bench, influx, caplog) -> None:
    influx.types["m", "f"] = "float"
    bench.cycle("m,device=bad f=1i", size=20)
    bench.settle()
    good = {key: fields for key, fields in bench.sent.items() if key[0] != "m,device=bad"}
    assert influx.points == good
    assert bench.writer.counters.rejected_points == 1
    assert bench.writer.counters.stored_points == 0
    assert "already exists as type float" in caplog.text
    assert "m,device=bad" in caplog.text
    ((key, (points, examples)),) = bench.backlog._store.rejects().items()
    assert key[:2] == ("m", "f")
    assert points == 1
    assert examples == [f"m,device=bad f=1i {int(bench.clock.wall())}"]


def test_a_malformed_line_loses_no_good_one(bench, influx, caplog) -> None:
    bench.cycle()  # a line that the server takes is known
    bench.settle()
    bench.clock.advance(15)
    bench.cycle("this is not line protocol", size=50)
    bench.settle()
    assert set(influx.points) == {key for key in bench.sent if key[0].startswith("m,")}
    assert bench.writer.counters.rejected_points == 1
    assert [r.levelname for r in caplog.records] == ["ERROR"]  # a line that cannot be parsed is our own bug


def test_a_field_that_conflicts_in_the_whole_backlog_costs_a_few_requests(bench, influx) -> None:
    influx.types["n", "f"] = "float"
    influx.usual = (500, {}, "no")
    bench.run(400, "n f=1i")
    influx.usual = None
    influx.requests.clear()
    bench.clock.advance(60)
    bench.settle()
    assert influx.points == {key: fields for key, fields in bench.sent.items() if key[0] != "n"}
    assert bench.writer.counters.rejected_points == 400
    assert len(influx.requests) < 12


def test_a_persistent_conflict_is_told_once_and_stores_only_the_rejects(bench, influx, caplog) -> None:
    influx.types["n", "f"] = "float"
    bench.run(50, "n f=1i")
    assert len(caplog.records) == 1
    assert bench.writer.counters.rejected_points == 50
    assert bench.backlog.points == 0
    assert len(influx.points) == 150


def test_a_conflict_that_lasts_is_told_again_each_day(bench, influx, caplog) -> None:
    influx.types["n", "f"] = "float"
    for _ in range(3):
        bench.run(3, "n f=1i")
        bench.clock.advance(86400)
    assert len(caplog.records) == 3


def test_of_very_many_kinds_of_rejects_only_the_first_are_told(bench, influx, caplog) -> None:
    bench.run(1)
    for n in range(60):
        influx.types[f"n{n}", "f"] = "float"
        bench.run(1, f"n{n} f=1i")
    assert bench.writer.counters.rejected_points == 60
    assert len(caplog.records) == 51
    assert "others are only counted" in caplog.records[-1].message


def test_many_scattered_bad_lines_take_200_requests_a_batch_with_live_ones_between(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    for n in range(100):
        bench.cycle("bad line number", size=20)
        bench.settle()
        bench.clock.advance(15)
        if n % 4 == 0:
            bench.clock.advance(60)
        bench.settle()
    influx.usual = None
    influx.requests.clear()
    bench.clock.advance(60)
    bench.cycle()
    for _ in range(30):
        bench.writer.step()
    bench.cycle("live f=1")
    bench.writer.step()
    assert any(line.startswith("live") for line in influx.requests[-1])
    bench.settle(5000)
    assert set(influx.points) == {key for key in bench.sent if key[0] in ("live",) or key[0].startswith("m,")}
    assert bench.writer.counters.rejected_points == 100
    assert bench.backlog.points == 0


def test_nothing_is_rejected_while_the_server_refuses_everything(bench, influx, caplog) -> None:
    bench.run(2)
    influx.usual = (400, {}, '{"code":"invalid","message":"something else is wrong"}')
    bench.run(40)
    assert bench.writer.counters.rejected_points == 0
    assert "refuses every point" in caplog.text
    assert len(influx.requests) < 40 * 15
    influx.usual = None
    bench.run(30)
    assert influx.points == bench.sent


def test_nothing_is_rejected_before_the_server_took_a_first_line(bench, influx) -> None:
    influx.usual = (400, {}, "invalid precision")
    bench.run(40)
    assert bench.writer.counters.rejected_points == 0
    bench.writer.finish(bench.clock.monotonic() + 4)
    bench.start()
    influx.usual = None
    bench.run(30)
    assert influx.points == bench.sent


def test_a_search_in_which_nothing_is_taken_ends_after_200_requests_and_loses_nothing(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(200)
    influx.usual = (400, {}, "invalid precision")
    influx.requests.clear()
    bench.clock.advance(60)
    rows = list(bench.backlog._store.oldest(1000))
    bench.settle()
    assert len(influx.requests) == 200
    assert list(bench.backlog._store.oldest(1000)) == rows  # nothing was written
    assert bench.backlog.points == 600
    assert bench.writer.counters.rejected_points == 0
    influx.usual = None
    bench.run(30)
    assert influx.points == bench.sent


def test_too_large_is_halved_until_it_is_taken(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(400)
    influx.usual = None
    influx.most_lines = 100
    bench.clock.advance(60)
    bench.run(2)
    assert influx.points == bench.sent
    influx.requests.clear()
    influx.most_lines = 2
    bench.run(1)
    assert influx.points == bench.sent


def away_for(bench, influx, cycles: int) -> None:
    """The database is away for so many cycles, and then takes what waits."""
    influx.usual = (500, {}, "no")
    bench.run(cycles)
    influx.usual = None
    influx.requests.clear()
    bench.clock.advance(60)
    bench.settle()
    assert influx.points == bench.sent


def test_what_was_too_large_once_is_tried_again_only_after_the_next_outage(bench, influx, caplog) -> None:
    influx.most_lines = 1000
    away_for(bench, influx, 400)
    assert "1200 lines too many for a request; from now on at most 600" in caplog.text
    away_for(bench, influx, 2000)
    too_large = [len(lines) for lines in influx.requests if len(lines) > 1000]
    assert too_large == [1200]  # twice what was taken


def test_the_limit_of_lines_grows_back_once_the_server_takes_more(bench, influx) -> None:
    influx.most_lines = 100
    away_for(bench, influx, 400)
    influx.most_lines = 1_000_000
    for _ in range(4):
        away_for(bench, influx, 4)
    away_for(bench, influx, 2000)
    assert BATCH_LINES - 12 <= max(len(lines) for lines in influx.requests) <= BATCH_LINES


def test_a_single_line_that_is_too_large_is_rejected_and_the_others_are_stored(bench, influx) -> None:
    influx.longest_line = 100
    bench.run(1)
    bench.cycle(f"m,device={'d' * 100} f=1")
    bench.settle()
    assert len(influx.points) == len(bench.sent) - 1 == 6
    assert bench.writer.counters.rejected_points == 1
    assert "too large" in str(bench.backlog._store.rejects())


def test_a_cycle_of_a_single_bad_line_is_rejected_once_a_good_line_is_known(bench, influx) -> None:
    influx.types["n", "f"] = "float"
    bench.cycle("n f=1i", size=0)
    bench.settle()
    assert bench.writer.counters.rejected_points == 0
    bench.clock.advance(15)
    bench.cycle()
    bench.settle()
    assert bench.writer.counters.rejected_points == 1
    assert len(influx.points) == 3


def test_a_fault_in_the_middle_of_the_search_loses_nothing(bench, influx) -> None:
    influx.types["m", "f"] = "float"
    bench.cycle("m,device=bad f=1i", size=20)
    for _ in range(4):
        bench.writer.step()
    assert bench.backlog.points == 21  # still under search
    influx.usual = (503, {}, "no")
    bench.settle()
    bench.run(10)
    bench.writer.finish(bench.clock.monotonic() + 4)
    bench.start()
    influx.usual = None
    bench.run(10)
    assert influx.points == {key: fields for key, fields in bench.sent.items() if key[0] != "m,device=bad"}


def test_the_end_in_the_middle_of_the_search_loses_nothing(bench, influx) -> None:
    influx.types["m", "f"] = "float"
    bench.cycle("m,device=bad f=1i", size=20)
    for _ in range(4):
        bench.writer.step()
    influx.usual = (503, {}, "no")
    bench.writer.finish(bench.clock.monotonic() + 4)
    bench.start()
    assert 0 < bench.backlog.points <= 21
    influx.usual = None
    bench.run(2)
    assert influx.points == {key: fields for key, fields in bench.sent.items() if key[0] != "m,device=bad"}


def test_a_refused_live_batch_is_in_the_store_before_the_search_in_it_begins(bench, influx) -> None:
    influx.types["m", "f"] = "float"
    bench.cycle("m,device=bad f=1i", size=20)
    bench.writer.step()
    assert len(influx.requests) == 1
    assert bench.backlog.points == bench.writer.counters.stored_points == 21


def test_the_end_sends_what_is_held_or_stores_it(bench, influx) -> None:
    bench.cycle()
    bench.writer.finish(bench.clock.monotonic() + 4)
    assert influx.points == bench.sent
    bench.start()
    influx.usual = (500, {}, "no")
    bench.cycle("n f=1")
    bench.writer.finish(bench.clock.monotonic() + 4)
    assert bench.writer.counters.stored_points == 4
    bench.start()
    influx.usual = None
    bench.settle()
    assert influx.points == bench.sent


def test_with_the_disk_full_and_the_database_away_memory_keeps(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.backlog._store._db.execute("PRAGMA query_only=1")
    bench.run(100)
    assert bench.writer.counters.stored_points == 300
    influx.usual = None
    bench.run(10)
    assert influx.points == bench.sent


def test_rows_that_cannot_be_removed_are_sent_once_and_removed_when_there_is_room(bench, influx) -> None:
    influx.usual = (500, {}, "no")
    bench.run(2000)
    bench.backlog._store._db.execute("PRAGMA query_only=1")
    influx.usual = None
    influx.requests.clear()
    bench.clock.advance(60)
    bench.run(40)
    assert influx.points == bench.sent
    backlog = [len(lines) for lines in influx.requests if len(lines) > 12]
    assert len(backlog) == 4
    assert bench.writer.counters.stored_points == 0
    assert len(list(Store(bench.store_config.path, max_mb=1, max_age_days=9).batches())) > 100
    bench.backlog._store._db.execute("PRAGMA query_only=0")
    influx.requests.clear()
    bench.run(10)
    assert len(influx.requests) == 10
    assert list(Store(bench.store_config.path, max_mb=1, max_age_days=9).batches()) == []


def test_rejects_are_counted_once_where_a_batch_moves_from_memory_to_the_store(bench, influx) -> None:
    influx.types["n", "f"] = "float"
    bench.run(1)
    store = bench.backlog._store
    store._db.execute("PRAGMA query_only=1")
    bench.cycle("n f=1i", size=20)
    for _ in range(2):  # refused; the search begins in memory
        bench.writer.step()
    store._db.execute("PRAGMA query_only=0")
    bench.clock.advance(60)
    bench.settle()
    assert bench.writer.counters.rejected_points == 1
    assert [points for points, _ in store.rejects().values()] == [1]
    assert bench.backlog.points == 0


def test_a_later_reading_of_the_same_time_wins_over_all_that_waits(bench, influx) -> None:
    influx.usual = (503, {}, "")
    bench.run(5)  # some of it is in the store
    now = int(bench.clock.wall())
    bench.writer.put(Cycle(now, (f"m,device=d0 f=1 {now}",)))
    bench.settle()
    bench.clock.advance(15)
    bench.writer.put(Cycle(now, (f"m,device=d0 f=2 {now}",), again=True))
    bench.settle()
    bench.clock.advance(HOLD_S)
    bench.settle()
    influx.usual = None
    bench.run(5)
    assert bench.backlog.points == 0
    assert influx.points["m,device=d0", str(now)] == "f=2"


# the thread


class Blocked:
    """A client whose request hangs until it is let go, like a database that accepts and never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def write(self, lines, *, timeout_s: float = 4.0) -> Answer:
        self.asked.set()
        self.go.wait(10)
        return Answer(None, "timed out")


class RealClock:
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def test_a_hung_database_keeps_nobody_waiting_and_the_end_stores(store_config) -> None:
    client = Blocked()
    thread = WriterThread(Writer(Backlog(store_config, RealClock()), client, RealClock()), RealClock())
    thread.start()
    now = int(time.time())
    thread.put(Cycle(now, (f"m f=1 {now}",)))
    assert client.asked.wait(5)
    for n in range(100):
        thread.put(Cycle(now, (f"m f=2 {now + n}",)))
    assert not thread.stop(timeout_s=0.05)
    client.go.set()
    assert thread.stop(timeout_s=5)
    backlog = Backlog(store_config, RealClock())
    assert backlog.points == 101
    backlog.close()


def test_a_writer_that_hangs_is_no_secret(store_config, clock) -> None:
    def cycle(number: int) -> Cycle:
        return Cycle(int(clock.start), (f"m f={number} {clock.start:.0f}",))

    client = Blocked()
    thread = WriterThread(Writer(Backlog(store_config, clock), client, clock), clock)
    thread.start()
    thread.put(cycle(1))
    assert client.asked.wait(5)
    clock.advance(STALL_S)
    thread.put(cycle(2))
    clock.advance(1)
    with pytest.raises(RuntimeError, match="the writer hangs"):
        thread.put(cycle(3))
    client.go.set()
    assert thread.stop(timeout_s=5)
    backlog = Backlog(store_config, clock)
    assert backlog.points == 2
    backlog.close()


def test_a_writer_that_waits_for_points_does_not_hang(store_config, clock) -> None:
    thread = WriterThread(Writer(Backlog(store_config, clock), None, clock), clock)
    thread.start()
    for n in range(3):
        thread.put(Cycle(n, (f"m f=1 {n}",)))
        time.sleep(0.1)  # the thread's step ends
        clock.advance(10 * STALL_S)
    assert thread.stop(timeout_s=5)


def test_points_put_to_the_thread_arrive_without_being_waited_for(
    influx, influx_config, store_config
) -> None:
    clock = RealClock()
    thread = WriterThread(Writer(Backlog(store_config, clock), InfluxClient(influx_config), clock), clock)
    thread.start()
    thread.put(Cycle(1, ("m f=1 1",)))
    assert thread.stop()
    assert influx.points == {("m", "1"): "f=1"}
    assert thread.counters.stored_points == 0


def test_a_writer_that_fails_is_no_secret(store_config, caplog) -> None:
    class Broken:
        def write(self, lines, *, timeout_s: float = 4.0) -> Answer:
            raise ZeroDivisionError

    clock = RealClock()
    backlog = Backlog(store_config, clock)
    thread = WriterThread(Writer(backlog, Broken(), clock), clock)
    thread.start()
    thread.put(Cycle(1, ("m f=1 1",)))
    assert not thread.stop()
    assert "the writer fails" in caplog.text
    with pytest.raises(RuntimeError, match="the writer has failed"):
        thread.put(Cycle(2, ("m f=1 2",)))
    backlog.close()
