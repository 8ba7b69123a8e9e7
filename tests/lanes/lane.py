"""A lane: a host of its own on this host, with a way to the internet through it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.virtual_pi import machine, network
from tests.virtual_pi.host import VirtualPiError, run, tied, wait_until
from tests.virtual_pi.state import CHECKOUT, remove_cgroup

NAME = "power-lane"
TABLE = "power_lanes"
NETWORK = "172.30.110.0/24"
BEFORE = Path("/run/power-lanes")  # whether the host passed packets on before; and the lock
# What a lane makes itself, or what none of them needs.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".rehearsal", ".*_cache", ".hypothesis", "secrets", "backups", "bundles"
)
_TABLE = f"""
table inet {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {NETWORK} oifname != "{NAME}*" masquerade
  }}
}}
"""
# The control groups come first: those of a new namespace begin where its first process is.
_BEGIN = """
for group in $GROUPS_OF_LANE; do echo 0 >"$group/$LANE/cgroup.procs"; done
exec unshare --mount --net --pid --cgroup --fork --kill-child --mount-proc sh -euc "$INSIDE" sh "$@"
"""
# Of /sys only what tells of networks: the control groups are mounted below it. Ansible keeps the connections to a Pi by its address,
# which is the same in each lane.
_INSIDE = """
for group in $GROUPS_OF_LANE; do mount --bind "$group/$LANE" "$group"; done
mount -t tmpfs tmpfs /run
mkdir /run/sys
mount -t sysfs sysfs /run/sys
for part in class/net devices/virtual/net; do mount --bind "/run/sys/$part" "/sys/$part"; done
resolver=$(readlink --canonicalize-missing /etc/resolv.conf)
mkdir -p "${resolver%/*}" "$HOME/.ansible"
touch "$resolver"
mount --bind "$COPY/.resolv.conf" "$resolver"
mount -t tmpfs tmpfs "$HOME/.ansible"
cd "$COPY"
ip link set lo up
timeout 20 sh -c 'until ip link show dev uplink >/dev/null 2>&1; do sleep 0.1; done'
ip address add "$ADDRESS/30" dev uplink
ip link set uplink up
ip route add default via "$GATEWAY"
code=0
"$@" || code=$? # a child: the first process of a namespace waits for those that lose their parent
exit $code
"""


@contextlib.contextmanager
def internet() -> Iterator[None]:
    """Pass on the lanes' packages, and leave the host as it was; refuse where lanes are at work already."""
    with BEFORE.open("a+", encoding="utf-8") as kept:
        try:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VirtualPiError("lanes are at work on this host already: try again after them") from None
        kept.seek(0)
        if not (before := kept.read()):
            before = network.IP_FORWARD.read_text(encoding="utf-8")
            kept.write(before)
            kept.flush()
        run("nft", "delete", "table", "inet", TABLE, check=False)  # of lanes that were killed
        try:
            run("nft", "-f", "-", text=_TABLE)
            network.IP_FORWARD.write_text("1", encoding="utf-8")
            yield
        finally:
            network.IP_FORWARD.write_text(before, encoding="utf-8")
            run("nft", "delete", "table", "inet", TABLE)
            BEFORE.unlink()


@contextlib.contextmanager
def checkout(number: int) -> Iterator[Path]:
    """Copy the checkout for a lane; what its runs keep is in the copy, and is gone with it."""
    copy = Path(f"/var/tmp/{NAME}-{number}")
    shutil.rmtree(copy, ignore_errors=True)  # of a lane that was killed
    shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=LEFT_OUT)
    try:
        (copy / ".venv").symlink_to(CHECKOUT / ".venv")
        servers = "".join(f"nameserver {server}\n" for server in network.resolvers())
        (copy / ".resolv.conf").write_text(servers, encoding="utf-8")
        yield copy
    finally:
        shutil.rmtree(copy)


_at_work: list[subprocess.Popen[str]] = []


def run_in(number: int, copy: Path, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command at the copied checkout's top, in lane `number`, from 0; of the lane nothing stays."""
    link = f"{NAME}-{number}"
    gateway, address = (f"172.30.110.{4 * number + host}" for host in (1, 2))
    groups = [group.parent for group in machine.control_groups()]
    for group in groups:
        (group / link).mkdir(exist_ok=True)
    environment = {
        "LANE": link,
        "GROUPS_OF_LANE": " ".join(map(str, groups)),
        "INSIDE": _INSIDE,
        "COPY": str(copy),
        "ADDRESS": address,
        "GATEWAY": gateway,
    }
    process = subprocess.Popen(
        ["sh", "-euc", _BEGIN, "sh", *argv],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=tied(),
    )
    _at_work.append(process)
    try:
        ours = Path("/proc/self/ns/net").readlink()
        wait_until(
            "a lane's network",
            lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != ours,
            20,
            "try again",
        )
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(process.pid))
        run("ip", "address", "add", f"{gateway}/30", "dev", link)
        run("ip", "link", "set", link, "up")
        output, _ = process.communicate()
    finally:
        process.kill()
        process.wait()
        _at_work.remove(process)
        for group in groups:
            remove_cgroup(str(group / link))
    return subprocess.CompletedProcess(argv, process.returncode, output)


def stop() -> None:
    """End the commands of all lanes."""
    for process in list(_at_work):
        process.kill()
