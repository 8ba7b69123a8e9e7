"""Many hosts at once, each of them gently."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from power_collector.probe.finding import Finding
from power_collector.probe.identify import identify
from power_collector.probe.line import Line, Sleep
from power_collector.probe.targets import Target

MOST_HOSTS = 64
"""So many are asked at once."""

# A host that is not there answers nothing at all: the system gives up its address after 3 s only. A /24 has
# four rounds of such hosts with two ports each. Where there is one round, it is long enough for a second
# packet, which is sent after 1 s.
_CONNECT_S = 0.7
_CONNECT_FEW_S = 2.5


async def scan(
    targets: Sequence[Target], *, held: Collection[str] = (), sleep: Sleep = asyncio.sleep
) -> list[Finding]:
    """Return what listens, in the order of the targets; a host is taken for one device.

    `held` are the addresses (host:port) that a running collector reads: where one of them refuses, it is
    asked once more. No fault of a device is raised.
    """
    gate = asyncio.Semaphore(MOST_HOSTS)
    connect_s = _CONNECT_FEW_S if len(targets) <= MOST_HOSTS else _CONNECT_S

    async def ask(target: Target) -> list[Finding]:
        async with gate:
            line = Line(target.host, connect_s=connect_s, sleep=sleep)
            found: list[Finding] = []
            for port in target.ports:
                if line.is_spent:
                    found[-1].notes.append(f"port {port} was not tried: connected often enough to this host")
                    break
                finding = await identify(line, port, held=f"{target.host}:{port}" in held)
                if finding is not None:
                    found.append(finding)
                    if finding.kind.driver is not None:
                        break
            return found

    return [finding for found in await asyncio.gather(*map(ask, targets)) for finding in found]
