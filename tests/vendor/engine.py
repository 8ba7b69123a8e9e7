"""Debian's InfluxDB 1.6: its package fetched by the host's apt and unpacked, never installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.virtual_pi.architecture import architecture, native

from .errors import VendorError
from .tools import cache_folder, is_root, run


def engine_files() -> Path:
    """Give a folder with the unpacked package (usr/bin/influxd, usr/share/doc/influxdb/copyright), cached.

    apt checks the package against Debian's signature. Raises VendorError when it cannot be had.
    """
    folder = cache_folder() / f"influxdb-engine-{architecture()}"
    if (folder / "usr/bin/influxd").is_file():
        return folder
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        scratch = Path(name)
        run(["dpkg-deb", "-x", _download(scratch), scratch / "tree"])
        try:
            (scratch / "tree").rename(folder)
        except OSError:  # somebody else was faster
            if not (folder / "usr/bin/influxd").is_file():
                raise
    return folder


def _download(folder: Path) -> Path:
    options = ["-o", "APT::Sandbox::User=root"]
    foreign = architecture() != native()
    if foreign:  # with lists of its own: the host's apt need not know of the other architecture
        (folder / "lists/partial").mkdir(parents=True)
        options += ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", "Dir::State::status=/dev/null"]
        options += ["-o", f"APT::Architecture={architecture()}", "-o", f"APT::Architectures={architecture()}"]
        run(["apt-get", *options, "update"])
    command = ["apt-get", *options, "download", "influxdb"]
    try:
        run(command, cwd=folder)
    except VendorError as error:
        if foreign or not is_root():
            remedy = "run apt-get update as root, and see that Debian's component main is among the sources"
            raise VendorError(f"Debian's package influxdb cannot be fetched: {error}; {remedy}") from error
        run(["apt-get", "update"])
        run(command, cwd=folder)
    return next(folder.glob("influxdb_*.deb"))
