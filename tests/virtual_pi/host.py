"""What the host must offer, and the one way in which commands are run on it."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]

# The command that must be there -> the Debian package that brings it.
COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "ssh": "openssh-client",
    "losetup": "mount",
    "unshare": "util-linux",
}
INSTALLER = Path(__file__).parents[1] / "install_debian_packages"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class VirtualPiError(Exception):
    """Something that cannot be done; the message is one line with cause and remedy."""


def tied() -> Callable[[], None]:
    """What a child runs before its program, so that the kernel ends it with us: a killed ``up`` leaves no helper running."""
    parent = os.getpid()

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return tie


def run(
    *argv: str | Path,
    timeout: float = 60,
    check: bool = True,
    text: str | None = None,
    outlives_us: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end within ``timeout`` seconds; a failure is told with the command's last words."""
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            preexec_fn=None if outlives_us else tied(),
        )
    except FileNotFoundError as error:
        raise VirtualPiError(f"{command[0]} is missing: install it and try again") from error
    except subprocess.TimeoutExpired as error:
        raise VirtualPiError(f"`{' '.join(command)}` did not end within {timeout:.0f} s") from error
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise VirtualPiError(f"`{' '.join(command)}` ended with {done.returncode}: {words[-1]}")
    return done


def program(name: str) -> str:
    """Prefer the program of the virtual environment that this tool runs in."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if os.sep not in name and beside.exists() else name


def wait_until(what: str, ready: Callable[[], bool], timeout: float, remedy: str, pause: float = 0.1) -> None:
    """Ask ``ready`` again and again for at most ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise VirtualPiError(f"{what} did not happen within {timeout:.0f} s: {remedy}")
        time.sleep(pause)


def require_root() -> None:
    """Refuse without root: namespaces, loop devices and firewall tables are made."""
    if os.geteuid() != 0:
        raise VirtualPiError(
            "the virtual Pi needs root (it makes namespaces and loop devices): run it with sudo"
        )


def require(say: Say) -> None:
    """Refuse where root, namespaces or loop devices are missing; install missing Debian packages."""
    require_root()
    missing = {COMMANDS[name] for name in COMMANDS if shutil.which(name) is None}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if missing:
        say(f"installing on this host: {', '.join(sorted(missing))}")
        # A killed `up` lets apt end in peace: half-configured packages would be worse than a finished installation.
        run(INSTALLER, *sorted(missing), timeout=900, outlives_us=True)
    if run("unshare", "--mount", "--net", "--pid", "--fork", "true", check=False).returncode:
        raise VirtualPiError(
            "this machine makes no namespaces (a container without CAP_SYS_ADMIN?): use a real or virtual machine"
        )
    if run("losetup", "--find", check=False).returncode:
        raise VirtualPiError(
            "no loop device is to be had: `modprobe loop`, or give the container /dev/loop-control"
        )
