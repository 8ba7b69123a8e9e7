"""The networks around the Pi: the power room's LAN in a namespace of its own, and the internet side (WAN) on the host."""

import ipaddress
import shutil
import sys
from pathlib import Path

from .host import VirtualPiError, run
from .state import RUN, State, start

ROOM = "power-room"  # namespace: the devices, the router, the laptop on the house LAN
PI = "power-pi"  # namespace: the Pi's own; new at each boot, as a boot finds unconfigured interfaces
LAN = "lan"  # bridge in the room
LAN_PORT = "pi-eth0"
LAN_MAC = "02:00:00:00:01:09"
WAN = "power-wan"  # bridge on the host
WAN_PORT = "power-wan-pi"
WAN_MAC = "02:00:00:00:01:0a"
WAN_NETWORK = "172.30.109.0/24"
WAN_HOST = "172.30.109.1"
WAN_PI = "172.30.109.2"
REPOSITORY_PORT = 8099
TABLE = "power_rehearsal"
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")

_TABLE = f"""
table inet {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {WAN_NETWORK} oifname != "{WAN}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter
  }}
  chain input {{
    type filter hook input priority filter
  }}
}}
"""
# The packages' repository on the host stands for a vendor's on the internet: it goes away with it.
_CUT = f"""
add rule inet {TABLE} forward iifname "{WAN}" counter drop
add rule inet {TABLE} forward oifname "{WAN}" counter drop
add rule inet {TABLE} input iifname "{WAN}" tcp dport {REPOSITORY_PORT} counter drop
"""
_MEND = f"flush chain inet {TABLE} forward\nflush chain inet {TABLE} input\n"
# The router answers DHCP and ARP, and swallows everything else.
_DEAD_NAME_SERVER = """
table inet router {
  chain input {
    type filter hook input priority filter
    udp dport 53 drop
    tcp dport 53 drop
  }
}
"""


class RoomAddresses:
    """The house LAN around the devices: everything else in it is derived from the first device's address."""

    def __init__(self, devices: list[str]) -> None:
        self.network = ipaddress.ip_network(f"{devices[0]}/24", strict=False)
        self.devices = sorted(set(devices), key=ipaddress.ip_address)
        self.router, self.laptop, self.pi_by_dhcp = (str(self.network[number]) for number in (1, 50, 150))
        strangers = [host for host in devices if ipaddress.ip_address(host) not in self.network]
        if strangers:
            raise VirtualPiError(
                f"devices outside of {self.network}: {', '.join(strangers)}: mend power_room_devices"
            )
        if taken := {self.router, self.laptop, self.pi_by_dhcp} & set(devices):
            raise VirtualPiError(
                f"{', '.join(taken)} is the rehearsal's router, laptop or Pi: mend power_room_devices"
            )


def resolvers(
    etc: Path = Path("/etc/resolv.conf"), systemd: Path = Path("/run/systemd/resolve/resolv.conf")
) -> list[str]:
    """The host's name servers that a machine beside it can reach as well (IPv4, no loopback)."""
    for file in (etc, systemd):
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
        if usable := [one for one in servers if ":" not in one and not one.startswith("127.")]:
            return usable
    raise VirtualPiError(
        f"no name server in {etc} that the Pi could reach: put one there that is not on loopback"
    )


def make_room(state: State, room: RoomAddresses, log: Path) -> None:
    """Make the room's namespace with all its addresses, and the router that offers ways to nowhere."""
    _require_free(Path("/run/netns", ROOM))
    state.record("netns", ROOM)
    run("ip", "netns", "add", ROOM)
    _no_forwarding(ROOM)
    run("ip", "-n", ROOM, "link", "set", "lo", "up")
    run("ip", "-n", ROOM, "link", "add", LAN, "type", "bridge")
    for address in (room.router, room.laptop, *room.devices):
        run("ip", "-n", ROOM, "address", "add", f"{address}/24", "dev", LAN)
    run("ip", "-n", ROOM, "link", "set", LAN, "up")
    # What is run in the room comes from the laptop, not from the router.
    run("ip", "-n", ROOM, "route", "replace", str(room.network), "dev", LAN, "src", room.laptop)
    run("ip", "netns", "exec", ROOM, "nft", "-f", "-", text=_DEAD_NAME_SERVER)
    dhcp = _dhcp(
        "room-dhcp", LAN, LAN_MAC, room.pi_by_dhcp, str(room.network[199]), room.router, [room.router]
    )
    start(state, "room-dhcp", ["ip", "netns", "exec", ROOM, *dhcp], log)


def make_wan(state: State, log: Path) -> None:
    """Make the internet side: a bridge on the host, DHCP with the host's resolvers, masquerading."""
    servers = resolvers()
    _require_free(Path("/sys/class/net", WAN))
    state.record("link", WAN)
    run("ip", "link", "add", WAN, "type", "bridge")
    run("ip", "address", "add", f"{WAN_HOST}/24", "dev", WAN)
    run("ip", "link", "set", WAN, "up")
    state.record("nft", "inet", TABLE)
    run("nft", "-f", "-", text=_TABLE)
    state.record("sysctl", str(IP_FORWARD), IP_FORWARD.read_text(encoding="utf-8").strip())
    IP_FORWARD.write_text("1", encoding="utf-8")
    start(state, "wan-dhcp", _dhcp("wan-dhcp", WAN, WAN_MAC, WAN_PI, WAN_PI, WAN_HOST, servers), log)


def serve_repository(state: State, directory: Path, log: Path) -> None:
    """Serve the directory of vendor packages on the WAN's host end."""
    directory.mkdir(parents=True, exist_ok=True)
    server = [
        sys.executable,
        "-m",
        "http.server",
        str(REPOSITORY_PORT),
        "--bind",
        WAN_HOST,
        "--directory",
        str(directory),
    ]
    start(state, "repository", server, log)


def record_pi(state: State) -> None:
    """Record what plug_in makes at each boot."""
    _require_free(Path("/run/netns", PI))
    state.record("netns", PI)
    state.record("link", WAN_PORT)


def plug_in() -> None:
    """Give the Pi a new namespace with eth0 on the room's LAN and wlan0 on the WAN."""
    for command in (
        ["ip", "link", "delete", WAN_PORT],
        ["ip", "-n", ROOM, "link", "delete", LAN_PORT],
        ["ip", "netns", "delete", PI],
    ):
        run(*command, check=False)
    run("ip", "netns", "add", PI)
    _no_forwarding(PI)
    run(
        "ip",
        "-n",
        ROOM,
        "link",
        "add",
        LAN_PORT,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "address",
        LAN_MAC,
        "netns",
        PI,
    )
    run("ip", "-n", ROOM, "link", "set", LAN_PORT, "master", LAN, "up")
    run(
        "ip",
        "link",
        "add",
        WAN_PORT,
        "type",
        "veth",
        "peer",
        "name",
        "wlan0",
        "address",
        WAN_MAC,
        "netns",
        PI,
    )
    run("ip", "link", "set", WAN_PORT, "master", WAN, "up")


def give_addresses(room: RoomAddresses) -> None:
    """Configure the Pi's interfaces from outside, where no NetworkManager can run in it."""
    for interface, address in (("lo", None), ("wlan0", f"{WAN_PI}/24"), ("eth0", f"{room.pi_by_dhcp}/24")):
        run("ip", "-n", PI, "link", "set", interface, "up")
        if address:
            run("ip", "-n", PI, "address", "add", address, "dev", interface)
    run("ip", "-n", PI, "route", "add", "default", "via", WAN_HOST, "dev", "wlan0")


def cut_wan() -> None:
    """Take the internet away; the host end of the WAN stays, so that SSH goes on."""
    run("nft", "-f", "-", text=_MEND + _CUT)


def mend_wan() -> None:
    """Give the internet back."""
    run("nft", "-f", "-", text=_MEND)


def wan_condition() -> str | None:
    """``up``, ``down`` or None when there is no WAN."""
    rules = run("nft", "list", "chain", "inet", TABLE, "forward", check=False)
    bridge = run("ip", "-4", "address", "show", "dev", WAN, check=False).stdout
    if rules.returncode or WAN_HOST not in bridge or IP_FORWARD.read_text(encoding="utf-8").strip() != "1":
        return None
    return "down" if "drop" in rules.stdout else "up"


def leftovers() -> list[str]:
    """Things on this host with our names."""
    paths = [Path("/run/netns", name) for name in (ROOM, PI)] + [
        Path("/sys/class/net", name) for name in (WAN, WAN_PORT)
    ]
    found = [str(path) for path in paths if path.exists()]
    if shutil.which("nft") and run("nft", "list", "table", "inet", TABLE, check=False).returncode == 0:
        found.append(f"nft table inet {TABLE}")
    return found


def _dhcp(
    name: str, link: str, mac: str, address: str, last: str, router: str, servers: list[str]
) -> list[str]:
    return [
        "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--user=root", "--pid-file=",
        "--port=0", "--no-hosts", "--no-resolv", "--no-ping", "--dhcp-authoritative", "--bind-interfaces",
        f"--interface={link}", "--except-interface=lo", f"--dhcp-leasefile={RUN / name}.leases",
        f"--dhcp-range={address},{last},255.255.255.0,1h", f"--dhcp-host={mac},{address}",
        f"--dhcp-option=3,{router}", f"--dhcp-option=6,{','.join(servers)}",
    ]  # fmt: skip


def _no_forwarding(namespace: str) -> None:
    """New namespaces may inherit the host's setting; neither the dead router nor the Pi passes packets on."""
    run("ip", "netns", "exec", namespace, "sh", "-c", f"echo 0 > {IP_FORWARD}")


def _require_free(path: Path) -> None:
    if path.exists():
        raise VirtualPiError(f"{path} is there already and not ours: remove it if nobody needs it")
