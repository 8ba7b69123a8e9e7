"""The architecture of the virtual Pi: the host's, or the one that POWER_ARCH names, whose programs run under qemu, slowly."""

import os
from pathlib import Path

from .host import INSTALLER, Say, VirtualPiError, run
from .state import State

WANTED = "POWER_ARCH"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QEMU = {"arm64": "qemu-aarch64"}


def native() -> str:
    """The host's Debian architecture."""
    return run("dpkg", "--print-architecture").stdout.strip()


def architecture() -> str:
    """The virtual Pi's Debian architecture. Raises VirtualPiError for one that cannot be run here."""
    wanted = os.environ.get(WANTED) or native()
    if wanted != native() and wanted not in _QEMU:
        raise VirtualPiError(f"ARCH={wanted}: only {native()} and {', '.join(_QEMU)} can be run here")
    return wanted


def emulate(state: State, say: Say) -> None:
    """Have the kernel run the virtual Pi's programs by qemu where they are not the host's; `down` takes that back."""
    wanted = architecture()
    if wanted == native():
        return
    say(f"this host is {native()}, the Pi {wanted}: everything in it runs under qemu, many times slower")
    if not Path("/usr/lib/binfmt.d", f"{_QEMU[wanted]}.conf").exists():
        run(INSTALLER, "qemu-user-static", "arch-test", timeout=900, outlives_us=True)
    if not (_BINFMT / "register").exists():
        state.record("mount", str(_BINFMT))
        run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    if not (_BINFMT / _QEMU[wanted]).exists():
        state.record("binfmt", str(_BINFMT / _QEMU[wanted]))
        rule = Path("/usr/lib/binfmt.d", f"{_QEMU[wanted]}.conf").read_text(encoding="utf-8")
        (_BINFMT / "register").write_text(rule.strip(), encoding="utf-8")
