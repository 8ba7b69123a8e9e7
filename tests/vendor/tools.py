"""Commands of the host: running them, and having them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import VendorError


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command and give its output; raises VendorError with its last words when it fails."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(env or {})}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
    except FileNotFoundError as error:
        raise VendorError(
            f"{command[0]} is missing: this needs a Debian host (apt-get install it)"
        ) from error
    if done.returncode:
        raise VendorError(
            f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()[-600:]}"
        )
    return done.stdout


def is_root() -> bool:
    """Say whether packages can be installed."""
    return os.geteuid() == 0


def need(command: str, *packages: str) -> None:
    """Have a command, by installing Debian packages when root; raises VendorError with the remedy otherwise."""
    if shutil.which(command):
        return
    if not is_root():
        raise VendorError(f"{command} is missing: apt-get install {' '.join(packages)}")
    run(["apt-get", "update"])
    run(["apt-get", "install", "-y", "--no-install-recommends", *packages])


def cache_folder() -> Path:
    """Give the folder for what is fetched once, made when missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "power-rehearsal"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
