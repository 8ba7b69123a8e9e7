"""The simulated power room: the devices of the inventory, answered by `power-collector simulate` in the room's namespace."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from .host import VirtualPiError, program, run, wait_until
from .network import ROOM
from .state import CHECKOUT, HOME, State, processes, start

CONFIG = HOME / "room.toml"
LOG = HOME / "room.log"
ANSWERS = HOME / "answers.jsonl"
CONTROL = HOME / "control.json"
SIMULATOR = "power-collector simulate --config {config} --log-answers {answers} --control {control}"


@dataclass(frozen=True)
class Endpoint:
    """Where a device of the room listens."""

    host: str
    port: int


def devices(inventory: Path) -> list[Endpoint]:
    """Read the devices' addresses from the inventory directory (group_vars/all/power_room.yml)."""
    try:
        import yaml
    except ImportError as error:
        raise VirtualPiError("PyYAML is missing: run this with the project's virtual environment") from error
    file = inventory / "group_vars/all/power_room.yml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = [
            Endpoint(str(one["host"]), int(one.get("port", 502))) for one in content["power_room_devices"]
        ]
    except FileNotFoundError as error:
        raise VirtualPiError(f"{file} is missing: name the inventory directory with --inventory") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise VirtualPiError(f"{file}: power_room_devices cannot be read ({error!r}): mend it") from error
    if not found:
        raise VirtualPiError(f"{file}: power_room_devices is empty: name the devices there")
    return found


def render(inventory: Path) -> Path:
    """Render the collector's configuration for this inventory, with the collector role's own template."""
    environment = {
        "ANSIBLE_ROLES_PATH": str(CHECKOUT / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    playbook = Path(__file__).with_name("room.yml")
    run(
        "env", *(f"{name}={value}" for name, value in environment.items()), program("ansible-playbook"),
        "-i", inventory / "hosts.yml", playbook, "-e", "ansible_connection=local", "-e", f"room_config={CONFIG}",
        timeout=120,
    )  # fmt: skip
    return CONFIG


def open_room(state: State, config: Path, simulator: str) -> None:
    """Start the simulator in the room's namespace."""
    for file in (ANSWERS, CONTROL):
        file.unlink(missing_ok=True)
    values = {"config": config, "answers": ANSWERS, "control": CONTROL}
    first, *rest = (word.format(**values) for word in shlex.split(simulator))
    start(state, "simulator", ["ip", "netns", "exec", ROOM, program(first), *rest], LOG)


def wait_open(endpoints: list[Endpoint]) -> None:
    """Wait until every device listens (seen from the kernel's table: a connection would count as a reader)."""
    wait_until(
        f"the simulated room ({len(endpoints)} devices)",
        lambda: len(listening(endpoints)) == len(endpoints) or not processes("simulator"),
        30,
        f"look at {LOG}",
    )
    if not processes("simulator"):
        raise VirtualPiError(f"the simulator ended at once: look at {LOG}")


def listening(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Those devices that listen in the room's namespace."""
    table = run("ip", "netns", "exec", ROOM, "ss", "-Hltn", check=False).stdout
    open_ones = {line.split()[3] for line in table.splitlines()}
    return [
        one
        for one in endpoints
        if {f"{one.host}:{one.port}", f"0.0.0.0:{one.port}", f"*:{one.port}"} & open_ones
    ]
