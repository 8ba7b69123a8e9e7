"""What is to be asked: HOST, HOST:PORT and CIDR ranges -> hosts, each with its ports."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DEFAULT_PORTS = (502, 1025)
MAX_PORTS = 5
LARGEST_PREFIX = 22
"""The largest range that is asked: /22, 1,022 hosts."""


class TargetError(ValueError):
    """A target that cannot be asked; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host's IPv4 address and the ports to try there, in order."""

    host: str
    ports: tuple[int, ...]


def parse(texts: Iterable[str], ports: str | None = None) -> list[Target]:
    """Return each host once, in the order of their addresses; `ports` is a list like "502,1025".

    Raises:
        TargetError: no address, a name that nobody knows, no port, or a range of more than 1,022 hosts.
    """
    general = DEFAULT_PORTS if ports is None else tuple(_port(text.strip()) for text in ports.split(","))
    if len(general) > MAX_PORTS:
        raise TargetError(f"{len(general)} ports: name {MAX_PORTS} at most, a host is asked as often")
    found: dict[ipaddress.IPv4Address, dict[int, None]] = {}
    for text in texts:
        for address, own in _addresses(text):
            found.setdefault(address, {}).update(dict.fromkeys(general if own is None else (own,)))
    return [Target(str(address), tuple(found[address])) for address in sorted(found)]


def _addresses(text: str) -> Iterator[tuple[ipaddress.IPv4Address, int | None]]:
    """Yield what a target names, with the port that it gives, if any."""
    if "/" in text:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError as error:
            raise TargetError(
                f"{text!r} is no range of IPv4 addresses such as 192.168.1.0/24: {error}"
            ) from None
        if network.prefixlen < LARGEST_PREFIX:
            raise TargetError(
                f"{text} has {network.num_addresses:,} addresses: ask at most a /{LARGEST_PREFIX} at once,"
                " and only a network of your own"
            )
        yield from ((address, None) for address in network.hosts())
        return
    host, colon, port = text.partition(":")
    yield _address(host, text), _port(port) if colon else None


def _address(host: str, text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        # 192.168.1.300 and 1.2.3 are mistakes, not names.
        if not host or not host.replace(".", "").isdecimal():
            try:
                return ipaddress.IPv4Address(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
            except (OSError, UnicodeError, IndexError):
                pass
    raise TargetError(
        f"{text!r} is neither an IPv4 address nor a name that is known here; a target is HOST, HOST:PORT"
        " or a range such as 192.168.1.0/24"
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise TargetError(f"{text!r} is no port: a number from 1 to 65535 is expected")
