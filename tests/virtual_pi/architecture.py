"""The architecture of the virtual Pi: the host's, or the one that POWER_ARCH names, whose programs run under qemu, slowly.

Programs alone, not a machine: the kernel stays the host's. What qemu does not know of it, a Pi under qemu has to do without.
"""

import os
import shutil
from pathlib import Path

from . import mirror
from .host import INSTALLER, Say, VirtualPiError, run
from .state import State

WANTED = "POWER_ARCH"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_RULE = _BINFMT / "power-rehearsal"
_QEMU = {"arm64": "qemu-aarch64"}
# How the kernel knows such a program: ELF, 64 bits, its machine's number 183.
_MAGIC = {
    "arm64": (
        r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
        r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    )
}
WITHOUT = (
    "under qemu there is no NetworkManager (no generic netlink): the Pi has its addresses from outside, and the role network"
    " is left out; services run without their sandboxes (mounts cannot be told apart)"
)
# Sorted behind every other drop-in of a service.
_NO_SANDBOX = "etc/systemd/system/service.d/zz-under-qemu.conf"
_SANDBOX = {
    "": (
        "ImportCredential", "LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted",
        "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
        "BindReadOnlyPaths", "TemporaryFileSystem", "SystemCallFilter", "SystemCallArchitectures",
        "RestrictAddressFamilies",
    ),
    "no": (
        "ProtectSystem", "ProtectHome", "ProtectHostname", "ProtectClock", "ProtectKernelTunables", "ProtectKernelModules",
        "ProtectKernelLogs", "ProtectControlGroups", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateNetwork",
        "PrivateUsers", "PrivateIPC", "DynamicUser", "MountAPIVFS", "RestrictNamespaces", "RestrictRealtime",
        "RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality",
    ),
    "all": ("ProcSubset",),
    "default": ("ProtectProc",),
}  # fmt: skip


def native() -> str:
    """The host's Debian architecture."""
    return run("dpkg", "--print-architecture").stdout.strip()


def architecture() -> str:
    """The virtual Pi's Debian architecture. Raises VirtualPiError for one that cannot be run here."""
    wanted = os.environ.get(WANTED) or native()
    if wanted != native() and wanted not in _QEMU:
        raise VirtualPiError(f"ARCH={wanted}: only {native()} and {', '.join(_QEMU)} can be run here")
    return wanted


def is_emulated() -> bool:
    """Whether the virtual Pi's programs run under qemu."""
    return architecture() != native()


def files(name_servers: list[str]) -> dict[str, str]:
    """What the base card holds where its programs run under qemu: path -> content."""
    if not is_emulated():
        return {}
    settings = [f"{name}={value}" for value, names in _SANDBOX.items() for name in names]
    return {
        _NO_SANDBOX: "\n".join(["[Service]", *settings, ""]),
        "etc/resolv.conf": "".join(f"nameserver {one}\n" for one in name_servers),
    }


def emulate(state: State, cache: Path, say: Say) -> None:
    """Have the kernel run the virtual Pi's programs by qemu where they are not the host's; `down` takes that back."""
    if not is_emulated():
        return
    wanted = architecture()
    say(f"this host is {native()}, the Pi {wanted}: everything in it runs under qemu, many times slower")
    say(WITHOUT)
    run(INSTALLER, "arch-test", timeout=900, outlives_us=True)
    qemu = cache / f"{_QEMU[wanted]}-{mirror.SUITE}"
    if not qemu.exists():
        _fetch(_QEMU[wanted], qemu, state)
    if not (_BINFMT / "register").exists():
        state.record("mount", str(_BINFMT))
        run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    state.record("binfmt", str(_RULE))
    # F: the Pi need not hold qemu; C: sudo keeps its rights; P: programs see their own name.
    rule = f":{_RULE.name}:M::{_MAGIC[wanted]}:{qemu}:POCF"
    (_BINFMT / "register").write_text(rule, encoding="utf-8")


def _fetch(program: str, into: Path, state: State) -> None:
    """Take qemu from the Pi's own suite: that of Debian 12 cannot start the services of Debian 13's systemd."""
    work = into.with_name(f"{into.name}.fetching")
    state.record("path", str(work))
    shutil.rmtree(work, ignore_errors=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    run(
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "mmdebstrap", "--quiet", "--variant=extract",
        *(f"--aptopt={option}" for option in mirror.options()),
        f"--architectures={native()}", "--include=qemu-user", mirror.SUITE, work, *mirror.find().sources(),
        timeout=600,
    )  # fmt: skip
    shutil.move(work / "usr/bin" / program, into)
    shutil.rmtree(work)
