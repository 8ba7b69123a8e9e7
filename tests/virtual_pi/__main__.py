"""Command line of the virtual Pi."""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from . import architecture, card, host, machine, network, room
from .host import VirtualPiError
from .state import CHECKOUT, HOME, State, exclusive, processes

NETWORK_LOG = HOME / "network.log"
BEGIN = time.monotonic()


def say(text: str) -> None:
    """Print a line of progress with the seconds since the command's start."""
    print(f"[{time.monotonic() - BEGIN:5.1f} s] {text}", flush=True)


def up(options: argparse.Namespace) -> int:
    """Boot a virtual Pi from a blank card, beside a simulated room."""
    host.require(say=say)
    endpoints = room.devices(options.inventory)
    addresses = network.RoomAddresses([one.host for one in endpoints])
    with exclusive():
        state = State.claim(options.inventory)
        try:
            _make(state, options, endpoints, addresses)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("interrupted: removing what was made")
            state.undo()
            return 130
        except VirtualPiError:
            say("it stays as it is, for a look; `.venv/bin/python -m tests.virtual_pi down` removes it")
            raise
    say(
        f"the virtual Pi is up: `ssh` by wlan0 at {network.WAN_PI}, by eth0 (DHCP) at {addresses.pi_by_dhcp} in the room"
    )
    return 0


def _make(
    state: State,
    options: argparse.Namespace,
    endpoints: list[room.Endpoint],
    addresses: network.RoomAddresses,
) -> None:
    card.require_space()
    card.make_key()
    for log in (NETWORK_LOG, machine.CONSOLE, room.LOG):
        log.unlink(missing_ok=True)
    architecture.emulate(state, card.cache_directory(), say)
    base = card.base_card(state, say)
    say("card: blank, preset by playbooks/sdcard.yml")
    card.blank_card(state, base, say)
    say(f"room: {len(addresses.devices)} addresses in {addresses.network}, router {addresses.router}")
    network.make_room(state, addresses, NETWORK_LOG)
    say(f"WAN: {network.WAN_NETWORK}")
    network.make_wan(state, NETWORK_LOG)
    network.serve_repository(state, HOME / "vendor" / "repo", HOME / "repository.log")
    say("machine: first boot")
    network.record_pi(state)
    machine.power_on(state)
    say("room: starting the simulator")
    room.open_room(state, options.room_config or room.render(options.inventory), options.simulator)
    room.wait_open(endpoints)
    say("machine: waiting for SSH and cloud-init")
    machine.wait_ssh(say)
    # A power cut from here on is about what is tried out, not about a first boot whose keys are not on the card yet.
    host.run(*machine.ssh_command("sync"))


def down(options: argparse.Namespace) -> int:
    """Remove the virtual Pi and everything that was made for it."""
    host.require_root()
    with exclusive():
        state = State.load()
        if state is not None and state.checkout != str(CHECKOUT) and not options.any:
            raise VirtualPiError(
                f"the virtual Pi belongs to {state.checkout}: run `down` there, or here with --any if nobody needs it"
            )
        failures = state.undo() if state is not None else []
        failures += network.leftovers() + machine.leftovers()
    for failure in failures:
        say(f"still there: {failure}")
    if not failures:
        say("nothing is left")
    return 1 if failures else 0


def reboot(_: argparse.Namespace) -> int:
    """Reboot from inside and wait for SSH on the new boot."""
    host.require_root()
    with exclusive():
        State.own()
        machine.reboot(say)
    say("rebooted")
    return 0


def power_cut(_: argparse.Namespace) -> int:
    """Cut the power at this moment, boot what is on the card, and wait for SSH."""
    host.require_root()
    with exclusive():
        state = State.own()
        machine.power_cut(state, say)
        machine.wait_ssh(say)
    say("up again")
    return 0


def wan(options: argparse.Namespace) -> int:
    """Take the internet away (SSH goes on), or give it back."""
    host.require_root()
    with exclusive():
        State.own()
        (network.cut_wan if options.condition == "down" else network.mend_wan)()
    say(f"WAN: {options.condition}")
    return 0


def ssh(options: argparse.Namespace) -> int:
    """Run a command in the machine over SSH; without one, log in."""
    host.require_root()
    State.own()
    return machine.shell(options.command)


def exec_room(options: argparse.Namespace) -> int:
    """Run a command in the room's namespace, as from a laptop on the house LAN."""
    host.require_root()
    State.own()
    return subprocess.run(["ip", "netns", "exec", network.ROOM, *options.command], check=False).returncode


def status(_: argparse.Namespace) -> int:
    """Print what is up and what is missing."""
    host.require_root()
    state = State.load()
    rows: list[tuple[str, bool, str]] = []
    if state is not None and state.checkout == str(CHECKOUT):
        endpoints = room.devices(Path(state.inventory))
        open_ones = room.listening(endpoints)
        wan_is = network.wan_condition()
        boot = machine.boot_id() if processes("machine") else None
        size = card.CARD.stat().st_blocks / 2048 if card.CARD.exists() else 0
        rows = [
            (
                "machine",
                boot is not None,
                f"SSH answers at {network.WAN_PI}, boot {boot}" if boot else "no SSH",
            ),
            ("card", size > 0, f"{card.CARD}, {size:.0f} MiB used" if size else "missing"),
            (
                "room",
                0 < len(endpoints) == len(open_ones),
                f"{len(open_ones)} of {len(endpoints)} devices listen",
            ),
            ("router", bool(processes("room-dhcp")), "DHCP with ways to nowhere"),
            ("WAN", wan_is is not None and bool(processes("wan-dhcp")), f"internet {wan_is}"),
            (
                "repository",
                bool(processes("repository")),
                f"http://{network.WAN_HOST}:{network.REPOSITORY_PORT}/",
            ),
            ("leftovers", True, "-"),
        ]
    elif state is not None:
        rows = [("machine", False, f"belongs to {state.checkout}")]
    else:
        left = network.leftovers() + machine.leftovers()
        rows = [("machine", False, "off"), ("leftovers", not left, ", ".join(left) or "none")]
    for name, good, text in rows:
        print(f"{name:<11} {'ok' if good else 'MISSING':<8} {text}")
    return 0 if all(good for _, good, _ in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.virtual_pi", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        added.set_defaults(function=function)
        return added

    one = command("up", up)
    one.add_argument(
        "--inventory", type=Path, default=CHECKOUT / "inventory/rehearsal", help="inventory directory"
    )
    one.add_argument("--simulator", default=room.SIMULATOR, help="command of the room (default: %(default)s)")
    one.add_argument("--room-config", type=Path, help="its {config} (default: rendered from the inventory)")
    command("down", down).add_argument(
        "--any", action="store_true", help="also when another checkout made it"
    )
    command("reboot", reboot)
    command("power-cut", power_cut)
    command("status", status)
    command("wan", wan).add_argument("condition", choices=["down", "up"])
    command("ssh", ssh).add_argument("command", nargs="*", help="-- COMMAND")
    command("exec-room", exec_room).add_argument("command", nargs="+", help="-- COMMAND")
    return parser


def main() -> int:
    """Run one command; a refusal is one line with cause and remedy."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    options = _parser().parse_args()
    try:
        return int(options.function(options))
    except VirtualPiError as error:
        print(f"virtual Pi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
