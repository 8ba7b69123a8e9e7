from __future__ import annotations

from collections.abc import Iterator

import pytest

from power_collector.contract import Point

from .influxql import Database, database
from .provisioned import RANCH, Provisioned, provision
from .room import Room


@pytest.fixture(scope="session")
def room() -> Room:
    """The ranch at noon."""
    return Room(RANCH["power_room_devices"], RANCH["power_room_inverters"])


@pytest.fixture(scope="session")
def points(room: Room) -> list[Point]:
    """A day of it, and the daily energy of two more."""
    return room.points(days=2)


@pytest.fixture(scope="session")
def ranch(tmp_path_factory: pytest.TempPathFactory, room: Room) -> Provisioned:
    """What is provisioned for the ranch, in the room's time zone."""
    return provision(tmp_path_factory.mktemp("ranch"), power_room_timezone=room.timezone)


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory, room: Room, points: list[Point]) -> Iterator[Database]:
    """The database with the day in it."""
    with database(tmp_path_factory.mktemp("day"), room.now, points) as made:
        yield made


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory, room: Room) -> Iterator[Database]:
    """A database into which nothing was ever written."""
    with database(tmp_path_factory.mktemp("empty"), room.now) as made:
        yield made
