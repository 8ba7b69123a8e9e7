"""Packs what a Pi has installed since its image, as an apt repository.

Runs on the Pi and needs python3-apt with fresh lists. packages.tar holds each package's file at the installed
version, the index `Packages` over them, and the keys of the vendors' repositories in `keys/`; packages.added
names the packages. Files that apt still keeps on the card are not downloaded again; all are compared with the
SHA-256 of apt's signed lists.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import apt
from apt.progress.base import AcquireProgress

KEPT = Path("/var/cache/apt/archives")
KEYS = Path("/etc/apt/keyrings")


def line(version: apt.package.Version) -> str:
    """Name an installed package as packages.first does."""
    return f"{version.package.shortname} {version.version} {version.architecture}"


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def fetch(version: apt.package.Version, folder: Path) -> Path:
    """Bring a package's file into the folder: from apt's own store where it is there and right."""
    name = f"{version.package.shortname}_{version.version.replace(':', '%3a')}_{version.architecture}.deb"
    if (KEPT / name).exists() and digest(KEPT / name) == version.sha256:
        shutil.copyfile(KEPT / name, folder / Path(version.filename).name)
    return Path(version.fetch_binary(str(folder), AcquireProgress()))


def stanza(file: Path) -> str:
    """Describe a package's file as the index does."""
    fields = subprocess.run(["dpkg-deb", "--field", file], check=True, capture_output=True, text=True).stdout
    return f"{fields.strip()}\nFilename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest(file)}\n"


def main() -> None:
    """Pack; the arguments are the list of the image's packages and the folder to pack in."""
    image = set(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    folder = Path(sys.argv[2])
    installed = [package.installed for package in apt.Cache() if package.installed]
    added = sorted((version for version in installed if line(version) not in image), key=line)
    gone = [line(version) for version in added if not version.uri]
    if gone:
        sys.exit(
            f"no package source offers any more: {', '.join(gone)}. Bring the Pi up to date (influxdb2 and "
            "grafana by the inventory, others by `sudo apt upgrade` on it), and make the bundle again"
        )
    files = []
    for version in added:
        try:
            files.append(fetch(version, folder))
        except apt.package.FetchError as error:
            why = " ".join(str(error).split())
            sys.exit(f"{line(version)} cannot be downloaded ({why}). Try again: what has come so far is kept")
    index = folder / "Packages"
    index.write_text("\n".join(stanza(file) for file in files), encoding="utf-8")
    with tarfile.open(folder / "packages.tar", "w") as tar:
        for file in [index, *files]:
            tar.add(file, arcname=file.name)
        for key in sorted(KEYS.glob("*.asc")):
            tar.add(key, arcname=f"keys/{key.name}")
    (folder / "packages.added").write_text("".join(f"{line(one)}\n" for one in added), encoding="utf-8")


if __name__ == "__main__":
    main()
