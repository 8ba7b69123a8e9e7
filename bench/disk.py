"""What reaches a block device: an ext4 image on a loop device, where the machine allows that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_IMAGE_BYTES = 256 * 2**20
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder, and the block device below it that nobody else writes to; None: there is none."""

    folder: Path
    device: str | None
    why_not: str = ""

    def written_bytes(self) -> int | None:
        """Return the bytes written to the device so far, after a sync; None without a device."""
        if self.device is None:
            return None
        os.sync()
        return int(Path(f"/sys/block/{self.device}/stat").read_text().split()[6]) * _SECTOR


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Give a disk: root on Linux gets one of its own, mounted in `folder`, else the folder itself is it."""
    mounted = folder / "disk"
    mounted.mkdir()
    if os.geteuid() != 0:
        yield Disk(mounted, None, "needs root")
        return
    image = folder / "disk.ext4"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    # Otherwise the kernel goes on making the file system while it is measured.
    now = "lazy_itable_init=0,lazy_journal_init=0"
    try:
        _run("mkfs.ext4", "-q", "-F", "-E", now, str(image))
        loop = _run("losetup", "--find", "--show", str(image)).strip()
    except (OSError, subprocess.CalledProcessError) as error:
        yield Disk(mounted, None, f"no loop device: {error}")
        return
    try:
        _run("mount", "-o", "noatime", loop, str(mounted))
        try:
            yield Disk(mounted, Path(loop).name)
        finally:
            _run("umount", str(mounted))
    finally:
        _run("losetup", "--detach", loop)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
