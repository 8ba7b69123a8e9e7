"""Makes what a Pi installs the collector from.

`note` prints the note that a Pi keeps of what is installed there: with an equal one nothing needs to be done.
`wheels` makes the archive of wheels for the Pi's Python and architecture, and prints the folders it took them
from; what the cache holds is neither fetched nor built again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# A wheel for glibc a.b runs on each later one; Trixie has 2.41.
GLIBC_MINORS = range(17, 42)
# Earliest date that a zip archive can hold: equal sources make equal wheels.
ZIP_EPOCH = "315532800"
# The first setuptools that understands collector/pyproject.toml.
SETUPTOOLS_MAJOR = 77


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's Python project: names and contents of its sources."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    sources = [path / "pyproject.toml", *sorted((path / "src").rglob("*"))]
    for source in sources:
        # Also what a desktop leaves behind, such as .DS_Store: it would be taken for a new version.
        generated = any(
            part.startswith(("__pycache__", ".")) or part.endswith(".egg-info")
            for part in source.relative_to(path).parts
        )
        if source.is_file() and not generated:
            total.update(f"{source.relative_to(path).as_posix()}\0{digest(source)}\n".encode())
    return total.hexdigest()


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder of the cache unless it is there; renamed last, so that it is whole."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            make(Path(temporary, "made"))
            Path(temporary, "made").rename(folder)
    return folder


def pip(*arguments: str) -> None:
    """Run pip; its words go to standard error."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "SOURCE_DATE_EPOCH": ZIP_EPOCH})


def download(lock: Path, python: str, machine: str, folder: Path) -> None:
    """Fetch the lock's wheels for the Pi's Python and architecture."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC_MINORS)]
    pip(
        *("download", "--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python}"),
        *("--implementation=cp", f"--platform=manylinux2014_{machine}", *platforms),
        *(f"--dest={folder}", f"--requirement={lock}"),
    )


def build(project: Path, folder: Path) -> None:
    """Build the project's wheel from a copy, so that the checkout stays as it is."""
    try:
        own_tools = int(version("setuptools").split(".")[0]) >= SETUPTOOLS_MAJOR
    except PackageNotFoundError:
        own_tools = False
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "project")
        generated = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
        shutil.copytree(project, copy, ignore=generated)
        isolation = ["--no-build-isolation"] if own_tools else []
        pip("wheel", "--no-deps", *isolation, f"--wheel-dir={folder}", str(copy))


def pack(folders: list[Path], pysunspec2: Path | None, archive: Path) -> None:
    """Pack the wheels of all folders; a pysunspec2 of its own takes the place of the lock's."""
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("*.whl"))]
    if pysunspec2:
        wheels = [wheel for wheel in wheels if not wheel.name.startswith("pysunspec2-")]
        wheels += sorted(pysunspec2.glob("*.whl"))
    temporary = archive.with_suffix(".part")
    with tarfile.open(temporary, "w") as tar:
        for wheel in wheels:
            tar.add(wheel, arcname=wheel.name)
    temporary.rename(archive)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, required=True, help="hashed requirements of the collector")
    parser.add_argument("--collector", type=Path, required=True, help="the collector's project")
    parser.add_argument("--python", required=True, help="the Pi's Python, like 3.13")
    parser.add_argument("--machine", required=True, help="the Pi's architecture, like aarch64")
    calls = parser.add_subparsers(dest="call", required=True)
    note = calls.add_parser("note", help="print the note that belongs to what is wanted")
    note.add_argument("--pysunspec2", required=True, help="which pysunspec2 is wanted, in words")
    wheels = calls.add_parser("wheels", help="make the archive of wheels")
    wheels.add_argument("--pysunspec2-wheel", default="", help="folder of a wheel in place of the lock's")
    wheels.add_argument("--cache", type=Path, required=True, help="folder that keeps wheels")
    wheels.add_argument("--archive", type=Path, required=True, help="the archive to make")
    return parser.parse_args()


def main() -> None:
    """Print the note, or make the wheels."""
    given = parse()
    lock, collector = digest(given.lock), digest(given.collector)
    if given.call == "note":
        sys.stdout.write(f"lock {lock}\ncollector {collector}\npysunspec2 {given.pysunspec2}\n")
        sys.stdout.write(f"python {given.python} {given.machine}\n")
        return
    dependencies = once(
        given.cache / f"lock-{lock[:16]}-{given.python}-{given.machine}",
        lambda folder: download(given.lock, given.python, given.machine, folder),
    )
    own = once(given.cache / f"collector-{collector[:16]}", lambda folder: build(given.collector, folder))
    pysunspec2 = Path(given.pysunspec2_wheel) if given.pysunspec2_wheel else None
    pack([dependencies, own], pysunspec2, given.archive)
    sys.stdout.write("".join(f"{folder}\n" for folder in (dependencies, own, pysunspec2) if folder))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        failed = " ".join(error.cmd[2:6])
        sys.exit(f"{failed} failed: is this laptop on the internet? It is needed for this one run")
