"""Where the guest's packages come from: the host's own apt configuration, with the suite replaced."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .host import VirtualPiError, run

SUITE = "trixie"
OVERRIDE = "POWER_DEBIAN_MIRROR"
# Options of the host's apt that decide whether a mirror can be used at all.
_OPTIONS = re.compile(r"^Acquire::(Check-Valid-Until|Check-Date|Retries|https?::\S*) \"[^\"]+\";$")


@dataclass(frozen=True)
class Mirror:
    """Addresses of a Debian archive and, where the host uses one, of its security archive."""

    archive: str
    security: str | None = None

    def sources(self) -> list[str]:
        """Lines for /etc/apt/sources.list of the guest."""
        lines = [f"deb {self.archive} {SUITE} main", f"deb {self.archive} {SUITE}-updates main"]
        return lines + ([f"deb {self.security} {SUITE}-security main"] if self.security else [])


def find(apt: Path = Path("/etc/apt"), environment: Mapping[str, str] = os.environ) -> Mirror:
    """Take the first Debian archive that the host's apt uses, or the one named by POWER_DEBIAN_MIRROR."""
    if environment.get(OVERRIDE):
        return Mirror(environment[OVERRIDE].rstrip("/"))
    uris = [uri.rstrip("/") for uri in _uris(apt)]
    archive = next((uri for uri in uris if uri.endswith("/debian")), None)
    if archive is None:
        raise VirtualPiError(f"no Debian archive in {apt}: name one with {OVERRIDE}=http://HOST/debian")
    return Mirror(archive, next((uri for uri in uris if uri.endswith("/debian-security")), None))


def options() -> list[str]:
    """The host's apt options that the guest needs as well (proxy, dates)."""
    return [line for line in run("apt-config", "dump").stdout.splitlines() if _OPTIONS.match(line)]


def _uris(apt: Path) -> Iterator[str]:
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix == ".sources" and file.is_file():
            for stanza in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
                if re.search(r"^Enabled:\s*(no|false)", stanza, re.MULTILINE | re.IGNORECASE):
                    continue
                for line in re.findall(r"^URIs:\s*(.+)$", stanza, re.MULTILINE):
                    yield from (_resolve(uri) for uri in line.split())
        elif file.suffix == ".list" and file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                if match := re.match(r"deb\s+(?:\[[^\]]*\]\s*)?(\S+)", line):
                    yield _resolve(match.group(1))


def _resolve(uri: str) -> str:
    """Debian's cloud images name a file that holds the addresses."""
    if not uri.startswith("mirror+file:"):
        return uri
    file = Path("/" + uri.removeprefix("mirror+file:").lstrip("/"))
    return file.read_text(encoding="utf-8").split()[0] if file.is_file() else uri
