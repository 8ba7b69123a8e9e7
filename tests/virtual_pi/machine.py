"""The machine itself. Run as a program it is the supervisor: it boots the card, and again after each reboot from inside."""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import card, network, room
from .architecture import is_emulated
from .host import Say, VirtualPiError, run, tied, wait_until
from .state import HOME, State, end, processes, start

CONSOLE = HOME / "console.log"
NAME = "power-rehearsal"
REBOOT = 133  # nspawn's exit status when the machine inside asked for a reboot
# ext4's own "power cut": from this call on nothing more reaches the card, not even what is in the journal's memory.
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
# The shell is the first process of a process namespace: with it the kernel ends nspawn and the whole machine, which does
# outlive a killed nspawn otherwise. On a real Pi every service may ask the kernel whether its clock is synchronised; nspawn
# forbids the two calls with all others about clocks, and without CAP_SYS_TIME they set nothing.
_BOOT = """
mount -o loop,noatime "$1" "$2" || exit 1
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_NSPAWN_LOCK=0
systemd-nspawn --quiet --settings=no --directory="$2" --machine="$4" --register=no --keep-unit \
  --network-namespace-path="$3" --capability=CAP_NET_ADMIN,CAP_NET_RAW --resolv-conf=off --timezone=off \
  --system-call-filter="adjtimex clock_adjtime" \
  --link-journal=no --boot
exit $?
"""


def control_groups() -> list[Path]:
    """The machine's own control groups: without them two machines under nspawn would share theirs and kill each other."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    return [
        Path(at) / NAME
        for _, at, kind, options, *_ in mounts
        if kind == "cgroup2" or "name=systemd" in options
    ]


def power_on(state: State) -> None:
    """Start the supervisor in the background."""
    state.record("path", f"/run/systemd/nspawn/propagate/{NAME}")
    for group in control_groups():
        state.record("cgroup", str(group))
    start(state, "machine", [sys.executable, "-m", __spec__.name], CONSOLE)


def supervise() -> int:
    """Boot; boot again after a reboot; end with the machine."""
    for group in control_groups():
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text("0", encoding="utf-8")
    while True:
        wait_for_card()
        network.plug_in()
        if is_emulated():
            inventory = Path(State.own().inventory)
            network.give_addresses(network.RoomAddresses([one.host for one in room.devices(inventory)]))
        print(f"--- boot at {time.strftime('%H:%M:%S')}", flush=True)
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words = [str(card.CARD), str(card.MOUNT), f"/run/netns/{network.PI}", NAME]
        argv = [*own, "sh", "-c", _BOOT, "sh", *words]
        ended = subprocess.run(argv, check=False, preexec_fn=tied())
        if ended.returncode != REBOOT:
            return ended.returncode


def ssh_command(*command: str, wait: int = 3) -> list[str]:
    """The ssh call for a command in the machine; the only way in."""
    options = {
        "IdentitiesOnly": "yes",
        "HostKeyAlias": card.HOST_KEY_ALIAS,
        "UserKnownHostsFile": str(card.KNOWN_HOSTS),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": str(wait),
        "ServerAliveInterval": "5",
        "LogLevel": "ERROR",
    }
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "/dev/null", "-i", str(card.KEY), *flags, f"pi@{network.WAN_PI}", *command]


def boot_id() -> str | None:
    """The running boot's id, or None while SSH does not answer."""
    answer = run(*ssh_command("cat", "/proc/sys/kernel/random/boot_id"), timeout=15, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def wait_ssh(say: Say, timeout: float = 180, not_boot: str | None = None) -> str:
    """Wait for SSH, on another boot than ``not_boot``, and for cloud-init's end; return the boot's id."""
    current: str | None = None

    def ready() -> bool:
        nonlocal current
        if not processes("machine"):
            raise VirtualPiError(f"the machine went off: look at {CONSOLE}")
        current = boot_id()
        return current is not None and current != not_boot

    wait_until("SSH", ready, timeout, f"look at {CONSOLE}", pause=0.2)
    say("SSH answers")
    done = run(*ssh_command("cloud-init", "status", "--wait"), timeout=timeout, check=False)
    if done.returncode not in (0, 2):  # 2: done, with warnings
        raise VirtualPiError(
            f"cloud-init did not end well ({done.stdout.strip()}): `ssh -- cloud-init status --long`"
        )
    return str(current)


def reboot(say: Say) -> None:
    """Ask inside for a reboot and wait for the next boot."""
    before = boot_id()
    if before is None:
        raise VirtualPiError("SSH does not answer: `power-cut` boots the machine again")
    # The connection may end before the command's answer comes.
    run(*ssh_command("sudo", "systemctl", "reboot"), timeout=30, check=False)
    wait_ssh(say, not_boot=before)


def power_cut(state: State, say: Say) -> None:
    """Take the card away at this moment, kill the machine, and boot what was on the card."""
    state.require("process", "machine")
    freeze_card()
    end("machine")
    say("power cut; booting again")
    wait_for_card()
    power_on(state)


def freeze_card() -> None:
    """Stop all writing to the card without flushing anything, seen through the mount namespace of the supervisor's child."""
    for pid in processes("machine"):
        seen = Path(f"/proc/{pid}/root{card.MOUNT}")
        with contextlib.suppress(FileNotFoundError):  # it may end by itself at this moment
            if seen.is_mount():
                directory = os.open(seen, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
                finally:
                    os.close(directory)
                return


def wait_for_card() -> None:
    """The loop device of the boot before frees itself with its mount namespace: wait for that."""
    wait_until(
        "the card's release", lambda: not run("losetup", "-j", card.CARD).stdout.strip(), 30, "`losetup -a`"
    )


def shell(command: Sequence[str]) -> int:
    """Run a command line in the machine's shell, as ssh does; without one, log in."""
    return subprocess.run(ssh_command(*command, wait=10), check=False).returncode


def leftovers() -> list[str]:
    """Things of the machine that are on this host."""
    loops = run("losetup", "-j", card.CARD).stdout.split(":")[0]
    return [str(group) for group in control_groups() if group.exists()] + ([loops] if loops else [])


if __name__ == "__main__":
    sys.exit(supervise())
