"""What waits: the store, and a ring in memory for as long as the store cannot be used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from power_collector.batch import Batch, Dating
from power_collector.clock import Clock
from power_collector.config import StoreConfig
from power_collector.contract import ClockSource
from power_collector.store import Reject, Store, StoreError, StoreUnusableError, set_aside

RING_S = 2 * 3600
"""How long points are kept in memory while the store cannot be used."""
RETRY_S = 60
"""How long after a failure the store is tried again."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Portion:
    """Lines sent together: rows `ids` of `store`, or a batch of the `ring`."""

    lines: list[str]
    store: Store | None = None
    ids: tuple[int, ...] = ()
    ring: Batch | None = None


class Backlog:
    """Keeps batches until they are settled. A fault of the store raises nothing: it is said once."""

    def __init__(self, config: StoreConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._store: Store | None = None
        self._dating: Dating | None = None
        self._ring: deque[tuple[float, Batch]] = deque()
        self._retry_at = 0.0
        self._fault: str | None = None
        self.dropped = 0
        """Points dropped since the start: beyond the bounds, damaged, or more than the ring holds."""
        self.tend()

    @property
    def points(self) -> int:
        """How many points wait, in the store and in the ring."""
        return (self._store.points if self._store else 0) + self._ring_points

    @property
    def tend_at(self) -> float | None:
        """When `tend` has something to do, by the monotonic clock; None where it has nothing."""
        return self._retry_at if self._untidy else None

    @property
    def ready_at(self) -> float | None:
        """When `oldest` brings something, by the monotonic clock; None where nothing waits."""
        if self._ring and self._ring[0][1].undated is None:
            return 0.0
        ready = self._store is not None and self._store.points > self._store.undated_points
        return self._retry_at if ready else None

    @property
    def _ring_points(self) -> int:
        return sum(batch.points for _, batch in self._ring)

    @property
    def _untidy(self) -> bool:
        if self._store is None or self._ring or self._store.owes_removal:
            return True
        return self._dating is not None and self._store.undated_points > 0

    @property
    def _now(self) -> float | None:
        """The time that ages are measured by; None where nobody vouches for it."""
        if self._dating is None or self._dating.source == ClockSource.UNVERIFIED:
            return None
        return self._clock.monotonic() + self._dating.offset

    @property
    def _suspended(self) -> bool:
        return self._clock.monotonic() < self._retry_at

    def tend(self) -> None:
        """Open the store where that is due, and do there what is still to be done."""
        if self._untidy and not self._suspended:
            self._save_ring()
        self._bound_ring()

    def add(self, batch: Batch) -> bool:
        """Keep a batch; return whether it is on the disk, else it is in the ring."""
        self._ring.append((self._clock.monotonic(), batch))
        self.tend()
        return not self._ring

    def date(self, dating: Dating) -> None:
        """Give all that is undated its times; later batches are dated already."""
        self._dating = dating
        self._ring = deque((received, batch.dated(dating)) for received, batch in self._ring)
        self.tend()

    def oldest(self, limit: int) -> Portion | None:
        """Return the oldest batches, about `limit` points together, or None where nothing can be had now."""
        if self._store is not None and self._store.points and not self._suspended:
            try:
                return self._portion(self._store, limit)
            except StoreError as error:
                self._failed(error)
        if self._ring and self._ring[0][1].undated is None:
            batch = self._ring[0][1]
            return Portion(batch.lines(), ring=batch)
        return None

    def settle(self, portion: Portion, *, rest: Sequence[Batch] = (), rejects: Sequence[Reject] = ()) -> bool:
        """Remove a portion; `rest`, what is left of it, goes to the end, and what was refused is noted.

        Returns False where nothing of that was done, and the portion will come again, which does no harm: a
        point that is written twice is the same point. Either the store fails, or a batch of the ring has been
        moved to it meanwhile.
        """
        if portion.ring is not None:
            others = [entry for entry in self._ring if entry[1] is not portion.ring]
            if len(others) == len(self._ring):
                return False
            self._ring = deque(others)
        elif portion.store is not self._store:
            return False  # it was set aside: the ids of the new one begin anew
        if self._store is not None and (portion.ids or rest or rejects):
            if self._settle(self._store, portion.ids, len(portion.lines), rest, rejects):
                return True
            if portion.ids:
                return False
        self._ring.extend((self._clock.monotonic(), batch) for batch in rest)
        return True

    def _settle(
        self,
        store: Store,
        ids: Collection[int],
        points: int,
        rest: Sequence[Batch] = (),
        rejects: Sequence[Reject] = (),
    ) -> bool:
        try:
            store.settle(ids, put_back=rest, rejects=rejects)
        except StoreError as error:
            self._failed(error)
            # On a full disk nothing can be removed either: it is not to be sent each minute for that.
            return store is self._store and bool(ids) and not rest and store.skip(ids, points)
        self._works()
        return True

    def close(self) -> None:
        """Make a last try to bring the ring to the disk, and close the store."""
        if self._ring:
            self._save_ring()
        if self._ring:
            logger.error("%d points are lost: they were in memory, and %s", self._ring_points, self._fault)
        if self._store is not None:
            self._store.close()
            self._store = None

    def _save_ring(self) -> None:
        try:
            if self._store is None:
                self._store = self._open()
            if self._ring or self._store.owes_removal:
                dropped = self._store.add([batch for _, batch in self._ring], now=self._now)
                self._ring.clear()
                self._drop(dropped, "older or more than the store may hold")
            if self._dating is not None and self._store.undated_points:
                self._store.date(self._dating)
        except StoreError as error:
            self._failed(error)
            return
        self._works()

    def _works(self) -> None:
        if self._fault is not None:
            logger.info("the store works again: %s", self._config.path)
            self._fault = None

    def _open(self) -> Store:
        try:
            return self._open_file()
        except StoreUnusableError as error:
            self._set_aside(error)
            return self._open_file()

    def _open_file(self) -> Store:
        return Store(self._config.path, max_mb=self._config.max_mb, max_age_days=self._config.max_age_days)

    def _portion(self, store: Store, limit: int) -> Portion | None:
        lines: list[str] = []
        ids = []
        damaged = {}
        for key, batch in store.oldest(limit).items():
            try:
                lines += batch.lines()
            except ValueError as error:
                damaged[key] = batch.points
                self._drop(batch.points, f"{store.path}, row {key}: {error}")
            else:
                ids.append(key)
        if damaged:
            self._settle(store, damaged, sum(damaged.values()))
        return Portion(lines, store=store, ids=tuple(ids)) if ids else None

    def _failed(self, error: StoreError) -> None:
        if isinstance(error, StoreUnusableError) and self._store is not None:
            points = self._store.points
            try:
                self._set_aside(error)
            except StoreError as failure:
                error = failure
            else:
                self._drop(points, "they are in the store that was set aside")
                return
        if self._fault is None:
            logger.error(
                "the store fails: %s; points are kept in memory for up to %d h, and it is tried each minute",
                error,
                RING_S // 3600,
            )
        self._fault = str(error)
        self._retry_at = self._clock.monotonic() + RETRY_S

    def _set_aside(self, error: StoreError) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        try:
            aside = set_aside(self._config.path)
        except OSError as failure:
            raise StoreError(f"{error}; it cannot be set aside: {failure}") from failure
        logger.error("%s; it is set aside as %s, and a new one begins", error, aside)

    def _bound_ring(self) -> None:
        oldest_allowed = self._clock.monotonic() - RING_S
        while self._ring and self._ring[0][0] < oldest_allowed:
            self._drop(self._ring.popleft()[1].points, "older than the memory holds")

    def _drop(self, points: int, why: str) -> None:
        if points:
            self.dropped += points
            logger.warning("%d points dropped: %s (%d since the start)", points, why, self.dropped)
