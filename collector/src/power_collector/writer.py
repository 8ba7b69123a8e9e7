"""Brings the cycles to where they are safe: InfluxDB, else the store. In a thread: no server delays a poll.

`Writer` is the logic, one batch at most a step; `WriterThread` runs it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from power_collector.backlog import Backlog, Portion
from power_collector.batch import Batch, Cycle, Dating
from power_collector.clock import Clock
from power_collector.influx import TIMEOUT_S, Answer, Verdict
from power_collector.sieve import Sieve
from power_collector.store import Reject

HOLD_S = 52
"""How long cycles are held in memory before they are stored. A power cut may cost 60 s: a step that is under
way when the time is up may still wait for two requests."""
STALL_S = 60
"""A step takes two requests and a commit: one that takes longer than this will not end."""
BATCH_LINES = 2000
"""The most that one request carries. A line has about 330 bytes, and is in memory three times on its way."""

_AWAY_DELAYS_S = (1, 2, 4, 8, 15, 30)
_MEND_DELAYS_S = (15, 30, 60, 120, 300)
_IDLE_S = 3600.0
_TOLD_S = 86400
_TOLD_GROUPS = 50
_LAST_WRITE_S = 4.0

logger = logging.getLogger(__name__)


class Client(Protocol):
    """Sends lines to the database."""

    def write(self, lines: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Send the lines in one request; every outcome is an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Counters:
    """What `collector_status` says of the writer: points that wait, and those lost since the start."""

    stored_points: int = 0
    dropped_points: int = 0
    rejected_points: int = 0


@dataclass(frozen=True, slots=True)
class _Held:
    received: float
    cycle: Cycle


class Writer:
    """Live batch first, then the backlog, oldest first. Without a client the store is the end of the line.

    A point is acknowledged when InfluxDB answered 204 to it or when it was committed to the store.
    """

    def __init__(self, backlog: Backlog, client: Client | None, clock: Clock) -> None:
        self._backlog = backlog
        self._client = client
        self._clock = clock
        self._incoming: queue.SimpleQueue[_Held | Dating] = queue.SimpleQueue()
        self._held: deque[_Held] = deque()
        self._undated: deque[_Held] = deque()
        self._sieve: Sieve | None = None
        self._limit = BATCH_LINES
        self._next_try = 0.0
        self._fault: Verdict | None = None
        self._fault_status: int | None = None
        self._faults = 0
        self._fault_since = 0.0
        self._known_good: str | None = None
        self._told: set[tuple[str, str, str]] = set()
        self._told_since = clock.monotonic()
        self._rejected = 0
        self.counters = Counters()
        self._count()

    def put(self, cycle: Cycle) -> None:
        """Hand over a cycle; from any thread."""
        self._incoming.put(_Held(self._clock.monotonic(), cycle))

    def date(self, dating: Dating) -> None:
        """Give the undated cycles so far their times; from any thread."""
        self._incoming.put(dating)

    def step(self) -> float:
        """Do what is most urgent, one batch at most; return in how many seconds there is something to do."""
        self._receive()
        if self._client is not None and self._clock.monotonic() >= self._next_try:
            self._send(self._client)
        for held in (self._held, self._undated):
            if held and held[0].received <= self._clock.monotonic() - HOLD_S:
                self._store(held)
        self._backlog.tend()
        self._count()
        return self._delay()

    def finish(self, deadline: float) -> None:
        """Send or store what is held, and close the store; `deadline`, monotonic, is for the request."""
        self._receive()
        remaining = deadline - self._clock.monotonic()
        if self._client is not None and self._held and self._fault is None and remaining > 0:
            self._send_live(self._client, timeout_s=remaining)
        self._store(self._held)
        self._store(self._undated)
        if self._sieve is not None:
            self._end_sieve(self._sieve)
        self._count()
        self._backlog.close()

    def _receive(self) -> None:
        while not self._incoming.empty():
            item = self._incoming.get_nowait()
            if isinstance(item, Dating):
                self._backlog.date(item)
                self._held.extend(_Held(held.received, held.cycle.dated(item)) for held in self._undated)
                self._undated.clear()
            elif item.cycle.undated is not None:
                self._undated.append(item)
            elif item.cycle.again and self._backlog.points:
                # What waits has the same times: this must come after it, and not be sent before.
                self._held.append(item)
                self._store(self._held)
            else:
                self._held.append(item)

    def _send(self, client: Client) -> None:
        if self._held:
            self._send_live(client)
        elif self._sieve is not None:
            self._send_piece(client, self._sieve)
        elif (portion := self._backlog.oldest(self._limit)) is not None:
            self._send_backlog(client, portion)

    def _send_live(self, client: Client, timeout_s: float = TIMEOUT_S) -> None:
        batch: list[_Held] = []
        lines: list[str] = []
        for held in self._held:
            if batch and len(lines) + len(held.cycle.lines) > self._limit:
                break
            batch.append(held)
            lines += held.cycle.lines
        answer = client.write(lines, timeout_s=timeout_s)
        if answer.verdict is Verdict.STORED:
            self._works(lines)
        elif answer.verdict in (Verdict.REFUSED, Verdict.TOO_LARGE):
            # The bad lines are found in the backlog: the next live batch does not wait for that.
            self._note_size(lines, answer)
            self._backlog.add(Batch.pack(lines, self._clock.wall()))
        else:
            self._failed(answer)
            return
        for _ in batch:
            self._held.popleft()

    def _send_backlog(self, client: Client, portion: Portion) -> None:
        answer = client.write(portion.lines)
        if answer.verdict is Verdict.STORED:
            self._works(portion.lines)
            self._backlog.settle(portion)
        elif answer.verdict in (Verdict.REFUSED, Verdict.TOO_LARGE):
            self._note_size(portion.lines, answer)
            self._sieve = Sieve(portion, answer)
        else:
            self._failed(answer)

    def _note_size(self, lines: Sequence[str], answer: Answer) -> None:
        if answer.verdict is Verdict.TOO_LARGE:
            self._limit = max(1, min(self._limit, len(lines) // 2))
            logger.warning(
                "InfluxDB finds %d lines too many for a request; from now on at most %d",
                len(lines),
                self._limit,
            )

    def _send_piece(self, client: Client, sieve: Sieve) -> None:
        piece = sieve.next()
        answer = client.write(piece)
        if answer.verdict is Verdict.STORED:
            sieve.stored()
            self._works(piece)
        elif answer.verdict in (Verdict.REFUSED, Verdict.TOO_LARGE):
            if not sieve.refused(piece, answer):
                self._judge(client, sieve, piece, answer)
        else:
            sieve.again(piece)
            self._failed(answer)
            return
        if sieve.done or sieve.spent:
            self._end_sieve(sieve)
            if not sieve.progress:
                self._failed(answer)

    def _judge(self, client: Client, sieve: Sieve, piece: Sequence[str], answer: Answer) -> None:
        """Reject a bad piece, but only while the server takes a line that it took before."""
        if self._known_good is None:
            if sieve.postpone(piece):
                self._failed(answer)
            return
        proof = client.write([self._known_good])
        sieve.requests += 1
        if proof.verdict is not Verdict.STORED:
            sieve.again(piece)
            self._failed(proof)
            return
        for reject in sieve.reject(piece, answer):
            self._tell(reject, logging.ERROR if answer.status == 400 else logging.WARNING)

    def _tell(self, reject: Reject, level: int) -> None:
        """Say once a day of each kind of reject that there is one."""
        now = self._clock.monotonic()
        if now - self._told_since >= _TOLD_S:
            self._told.clear()
            self._told_since = now
        group = (reject.measurement, reject.field, reject.reason)
        if group in self._told or len(self._told) >= _TOLD_GROUPS:
            return
        self._told.add(group)
        logger.log(level, "InfluxDB refuses points of %s: %s; e.g. %s", *group[::2], reject.lines[0][:500])
        if len(self._told) == _TOLD_GROUPS:
            logger.warning("InfluxDB refuses points for many reasons; others are only counted for a day")

    def _end_sieve(self, sieve: Sieve) -> None:
        self._sieve = None
        if not sieve.progress:
            return  # the portion stays where it is
        rest = sieve.rest
        put_back = [Batch.pack(rest, self._clock.wall())] if rest else []
        # Where the portion is not gone, it comes again, and so do its rejects.
        if self._backlog.settle(sieve.portion, rest=put_back, rejects=sieve.rejects):
            self._rejected += sum(len(reject.lines) for reject in sieve.rejects)

    def _works(self, lines: Sequence[str]) -> None:
        self._known_good = lines[-1]
        if self._fault is not None:
            away_s = self._clock.monotonic() - self._fault_since
            logger.info(
                "InfluxDB takes points again after %.0f s; %d points wait", away_s, self._backlog.points
            )
            self._fault = None

    def _failed(self, answer: Answer) -> None:
        now = self._clock.monotonic()
        delays = _AWAY_DELAYS_S if answer.verdict is Verdict.AWAY else _MEND_DELAYS_S
        if self._fault is None:
            self._fault_since = now
            # It may come back with another limit; but for this, a 413 would count for ever.
            self._limit = min(BATCH_LINES, self._limit * 2)
        same = self._fault is Verdict.AWAY or answer.status == self._fault_status
        if answer.verdict is not self._fault or not same:
            self._faults = 0
            level = logging.WARNING if answer.verdict is Verdict.AWAY else logging.ERROR
            logger.log(level, "%s", _complaint(answer))
        else:
            logger.debug("%s", _complaint(answer))
        self._fault, self._fault_status = answer.verdict, answer.status
        delay = float(delays[min(self._faults, len(delays) - 1)])
        if answer.retry_after_s is not None:
            delay = max(delay, min(answer.retry_after_s, _MEND_DELAYS_S[-1]))
        self._faults += 1
        self._next_try = now + delay

    def _store(self, held: deque[_Held]) -> None:
        for undated, group in itertools.groupby(held, lambda one: one.cycle.undated):
            lines = [line for one in group for line in one.cycle.lines]
            self._backlog.add(Batch.pack(lines, self._clock.wall(), undated))
        held.clear()

    def _count(self) -> None:
        held = itertools.chain(self._held, self._undated)
        waiting = sum(len(one.cycle.lines) for one in held) + self._backlog.points
        self.counters = Counters(waiting, self._backlog.dropped, self._rejected)

    def _delay(self) -> float:
        now = self._clock.monotonic()
        moments = [now + _IDLE_S]
        moments += [held[0].received + HOLD_S for held in (self._held, self._undated) if held]
        if self._client is not None:
            if self._held or self._sieve is not None:
                moments.append(self._next_try)
            elif self._backlog.ready_at is not None:
                moments.append(max(self._next_try, self._backlog.ready_at))
        if self._backlog.tend_at is not None:
            moments.append(self._backlog.tend_at)
        return max(0.0, min(moments) - now)


def _complaint(answer: Answer) -> str:
    said = f"{answer.status} ({answer.message})" if answer.status is not None else answer.message
    match answer.verdict:
        case Verdict.AWAY:
            return f"InfluxDB is away: {said}; points are kept and sent later"
        case Verdict.MISCONFIGURED:
            remedy = {
                401: "the token is wrong or missing: run site.yml again, or put a valid one into token_file",
                403: "the token may not write this bucket: run site.yml again, or give it that right",
                404: "the address, organisation or bucket of [influxdb] is not there",
            }[answer.status or 0]
            return f"InfluxDB refuses to write: {said}; {remedy}. Points are kept until then"
        case Verdict.STRANGE:
            return f"no InfluxDB answers at [influxdb] url: {said}; mend the url. Points are kept until then"
        case _:
            return f"InfluxDB refuses every point: {said}. Points are kept until it takes some"


class WriterThread:
    """Runs a writer."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._wake = threading.Event()
        self._stop_at: float | None = None
        self._failure: BaseException | None = None
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    @property
    def counters(self) -> Counters:
        """What waits and what was lost, as of the last step."""
        return self._writer.counters

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, cycle: Cycle) -> None:
        """Hand over a cycle.

        Raises:
            RuntimeError: the thread has ended by a fault of its own, or hangs; nothing would take the points.
        """
        if self._failure is not None:
            raise RuntimeError("the writer has failed") from self._failure
        began = self._step_began
        if began is not None and self._clock.monotonic() - began > STALL_S:
            raise RuntimeError(f"the writer hangs: a step takes more than {STALL_S} s")
        self._writer.put(cycle)
        self._wake.set()

    def date(self, dating: Dating) -> None:
        """Give the undated cycles so far their times."""
        self._writer.date(dating)
        self._wake.set()

    def stop(self, *, timeout_s: float = 6.0) -> bool:
        """Send or store what is held, and end; return whether that was done in time."""
        self._stop_at = self._clock.monotonic() + _LAST_WRITE_S
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._failure is None

    def _run(self) -> None:
        try:
            while self._stop_at is None:
                self._step_began = self._clock.monotonic()
                delay = self._writer.step()
                self._step_began = None
                if self._stop_at is None and delay > 0:
                    self._wake.wait(delay)
                self._wake.clear()
            self._writer.finish(self._stop_at)
        except BaseException as error:
            self._failure = error
            logger.exception("the writer fails")
