"""Decide for each package where it comes from, fill the repository, and say so to the roles and to the reader."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from . import packages, repository
from .errors import VendorError
from .tools import run

URL = "http://172.30.109.1:8099/"  # where the virtual Pi's host serves the repository to it
PROBE_S = 6
_PROBE = (
    "import sys, urllib.request as r; sys.exit(r.urlopen(sys.argv[1], timeout=5).read(10) != b'-----BEGIN')"
)


@dataclass(frozen=True)
class Vendor:
    """One vendor: the prefix of its role's variables, its packages (the first is what counts), its key, our substitute."""

    role: str
    names: tuple[str, ...]
    key_url: str
    substitute: Callable[..., Path]
    what: str


VENDORS = (
    Vendor(
        "influxdb",
        ("influxdb2", "influxdb2-cli"),
        "https://repos.influxdata.com/influxdata-archive.key",
        packages.build_influxdb2,
        "Debian's InfluxDB 1.6 engine behind an adapter for the v2 calls",
    ),
    Vendor(
        "grafana",
        ("grafana",),
        "https://apt.grafana.com/gpg-full.key",
        packages.build_grafana,
        "a checker of the provisioning files with the API calls that are used: no screen, no evaluation of alarms",
    ),
)


@dataclass(frozen=True)
class Source:
    """Where a package comes from: `source` is "given deb", "vendor repository" or "substitute"; `says` is for people."""

    package: str
    source: str
    version: str
    says: str


def reachable(url: str) -> bool:
    """Say whether a vendor's key can be fetched, within a few seconds (name look-up included)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, url], timeout=PROBE_S, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def prepare(
    state: Path, environ: Mapping[str, str], probe: Callable[[str], bool] = reachable
) -> list[Source]:
    """Fill `state`/repo, vars.yml and sources.json; raises VendorError. A second run changes nothing."""
    given = _given(environ, "POWER_VENDOR_DEBS")
    state.mkdir(parents=True, exist_ok=True)
    variables: dict[str, str] = {}
    sources: list[Source] = []
    debs: list[Path] = []
    with repository.Signer(state / "signing-key.asc") as signer, tempfile.TemporaryDirectory() as scratch:
        for vendor in VENDORS:
            here = [given[name] for name in vendor.names if name in given]
            main = vendor.names[0]
            if main not in given and probe(vendor.key_url):
                sources.append(
                    Source(main, "vendor repository", "", f"{main}: the vendor's, from its repository")
                )
                continue
            if main not in given:
                here.append(vendor.substitute(Path(scratch)))
            debs += here
            for deb in here:
                sources.append(_source(deb, substitute=None if deb in given.values() else vendor.what))
            release = ".".join(next(s for s in sources if s.package == main).version.split(".")[:2])
            variables |= {
                f"{vendor.role}_repository_url": URL,
                f"{vendor.role}_repository_key_url": f"{URL}key.asc",
                f"{vendor.role}_repository_key_fingerprint": signer.fingerprint,
                f"{vendor.role}_package": f"{main}={release}.*",
            }
        repository.build(state / "repo", debs, signer)
    lines = [f"{name}: {json.dumps(value)}" for name, value in variables.items()] or ["{}"]
    repository.write(state / "vars.yml", ("\n".join(["---", *lines]) + "\n").encode())
    listing = json.dumps([asdict(source) for source in sources], indent=2)
    repository.write(state / "sources.json", f"{listing}\n".encode())
    return sources


def offer_newer(state: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Put a newer version of each vendor's main package beside the one that `prepare` put into the repository.

    From the folder POWER_VENDOR_DEBS_NEWER, or the substitute once more under a higher number. Gives package and version;
    those that have no newer one are left out.
    """
    given = _given(environ, "POWER_VENDOR_DEBS_NEWER")
    sources = json.loads((state / "sources.json").read_text(encoding="utf-8"))
    there = {one["package"]: (one["source"], one["version"]) for one in sources}
    with repository.Signer(state / "signing-key.asc") as signer, tempfile.TemporaryDirectory() as scratch:
        debs = sorted((state / "repo/pool").glob("*.deb"))
        newer = []
        for vendor in VENDORS:
            source, version = there[vendor.names[0]]
            if vendor.names[0] in given:
                newer += [given[name] for name in vendor.names if name in given]
            elif source == "substitute":
                major, minor, rest = version.split(".", 2)
                newer.append(vendor.substitute(Path(scratch), f"{major}.{int(minor) + 1}.{rest}"))
        repository.build(state / "repo", [*debs, *newer], signer)
        offered = [_source(deb, substitute=None) for deb in newer]
    main = {vendor.names[0] for vendor in VENDORS}
    return {
        one.package: one.version
        for one in offered
        if one.package in main and one.version != there[one.package][1]
    }


def _given(environ: Mapping[str, str], variable: str) -> dict[str, Path]:
    """Find the .deb files of the folder that the variable names, by package name, the newest version of each."""
    folder = environ.get(variable, "")
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise VendorError(f"{variable}={folder} is not a folder: name one with .deb files, or unset it")
    found: dict[str, Path] = {}
    wanted = {name for vendor in VENDORS for name in vendor.names}
    for deb in sorted(Path(folder).glob("*.deb")):
        name = run(["dpkg-deb", "-f", deb, "Package"]).strip()
        if name in wanted and (name not in found or _newer(deb, found[name])):
            found[name] = deb
    if not found:
        raise VendorError(f"{variable}={folder} holds no package of {', '.join(sorted(wanted))}")
    return found


def _newer(deb: Path, other: Path) -> bool:
    versions = [run(["dpkg-deb", "-f", path, "Version"]).strip() for path in (deb, other)]
    return (
        subprocess.run(["dpkg", "--compare-versions", versions[0], "gt", versions[1]], check=False).returncode
        == 0
    )


def _source(deb: Path, substitute: str | None) -> Source:
    fields = [run(["dpkg-deb", "-f", deb, name]).strip() for name in ("Package", "Version")]
    if substitute:
        return Source(
            *fields[:1], "substitute", fields[1], f"{' '.join(fields)}: SUBSTITUTE built here: {substitute}"
        )
    return Source(
        *fields[:1], "given deb", fields[1], f"{' '.join(fields)}: the .deb file given in POWER_VENDOR_DEBS"
    )
