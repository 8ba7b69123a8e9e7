"""`python -m power_collector.demo`: simulated room, collector on its embedded store, live table; no root.

With a terminal it runs until Ctrl-C; without one, or with DEMO_SECONDS set, it ends by itself. At the end a
value of each device is read back from the store; exit 0 only where each of them has one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from power_collector import latest, line_protocol, service, simulator, summary
from power_collector.config import Config, parse
from power_collector.store import Store

_CHARGERS = 6
_DEFAULT_SECONDS = 20.0


def configuration(directory: Path, ports: list[int]) -> Config:
    """Return the demo's configuration: an inverter hub and six chargers on loopback, one port each."""
    tables = ["interval_s = 1", f'[store]\npath = "{directory / "store.sqlite"}"']
    hub, *chargers = ports
    tables.append(
        f'[[devices]]\nname = "mate3s"\ndriver = "outback"\nhost = "127.0.0.1"\nport = {hub}\n'
        "timeout_s = 0.8\ninverters = 3"
    )
    tables += [
        f'[[devices]]\nname = "sc{number}"\ndriver = "tristar-mppt-600v"\nhost = "127.0.0.1"\nport = {port}\n'
        f"timeout_s = 0.8\n"
        f'legacy_measurement = "solar_charger_{number}"'
        for number, port in enumerate(chargers, start=1)
    ]
    return parse("\n".join(tables), directory / "config.toml")


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def stored_rows(config: Config) -> tuple[list[summary.Row], int]:
    """Return each device's last values and the number of points, read back from the store."""
    last: dict[tuple[str, str], summary.PointTable] = {}
    count = 0
    with Store(
        config.store.path, max_mb=config.store.max_mb, max_age_days=config.store.max_age_days
    ) as store:
        for batch in store.batches():
            for line in batch.lines():
                point = line_protocol.parse(line)
                last[point.measurement, str(sorted(point.tags.items()))] = latest.point_table(point)
                count += 1
    return summary.rows(config.devices, list(last.values())), count


async def play(
    config: Config, directory: Path, stop: asyncio.Event, draw: Callable[[], object] | None
) -> None:
    """Run room and collector until `stop` is set; `draw` is called twice a second."""
    room = asyncio.ensure_future(simulator.run(config, bind=None, answers=None, control=None))
    collector = asyncio.ensure_future(service.run(config, stop, runtime_directory=directory))
    try:
        while not (room.done() or collector.done()):
            await asyncio.wait({room, collector}, timeout=0.5)
            if draw is not None:
                draw()
    finally:
        stop.set()
        await asyncio.wait({collector})
        room.cancel()
        results = await asyncio.gather(room, collector, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _run(
    config: Config, directory: Path, seconds: float | None, draw: Callable[[], object] | None
) -> None:
    async with service.stop_on_signals() as stop:
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        await play(config, directory, stop, draw)


def main() -> int:
    """Run the demo; return 0 where each device has a value in the store, else 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    terminal = sys.stdout.isatty()
    wanted = os.environ.get("DEMO_SECONDS")
    seconds = float(wanted) if wanted else (None if terminal else _DEFAULT_SECONDS)
    with tempfile.TemporaryDirectory(prefix="power-demo-") as name:
        directory = Path(name)
        config = configuration(directory, free_ports(1 + _CHARGERS))
        if terminal:
            _with_table(config, directory, seconds)
        else:
            sys.stdout.write(f"A simulated power room on loopback, for {seconds:.0f} s ...\n")
            sys.stdout.flush()
            asyncio.run(_run(config, directory, seconds, None))
        rows, count = stored_rows(config)
    silent = [row.device for row in rows if not row.values]
    sys.stdout.write(
        f"{summary.as_text(rows, 'no value')}\n"
        f"{len(rows) - len(silent)} of {len(rows)} devices have a value; the store held {count} points.\n"
    )
    return 1 if silent else 0


def _with_table(config: Config, directory: Path, seconds: float | None) -> None:
    from rich.live import Live

    from power_collector import watch

    screen = watch.Screen(directory)
    until = "Ctrl-C" if seconds is None else f"{seconds:.0f} s"
    with Live(f"The first cycle begins ... (until {until})", auto_refresh=False) as live:

        def draw() -> None:
            try:
                screen.look()
            except latest.NoCycleError:
                return  # no cycle yet
            live.update(screen.view(time.time()), refresh=True)

        asyncio.run(_run(config, directory, seconds, draw))


if __name__ == "__main__":
    sys.exit(main())
