"""A bad inventory is refused before anything is touched: no connection is tried, the fault is named.

The inventory's host is an address of this machine where nothing listens, so that a run which gets past the
inventory's check fails at the next one, and shows that it does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A copy of the ranch's inventory whose Pi does not exist."""
    copy = tmp_path / "inventory"
    shutil.copytree(TOP / "inventory" / "ranch", copy)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = {"monitor": {"hosts": {"power": {"ansible_host": "127.0.0.1", "ansible_port": port}}}}
    (copy / "hosts.yml").write_text(yaml.safe_dump(hosts))
    change(copy, "monitor.yml", lambda v: v.update(power_room_site="refusals"))
    return copy


def change(inventory: Path, file: str, how: Change) -> None:
    path = inventory / "group_vars" / "all" / file
    values = yaml.safe_load(path.read_text())
    how(values)
    path.write_text(yaml.safe_dump(values))


def run(
    inventory: Path, *arguments: str, playbook: str = "site.yml", programs: Path | None = None
) -> tuple[int, str]:
    """Run a playbook; `programs` is a folder whose programs are found before the system's."""
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook, *arguments],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def device(number: int, **values: Any) -> Change:
    """Change a device's values; None removes one."""

    def how(room: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is None:
                del room["power_room_devices"][number][key]
            else:
                room["power_room_devices"][number][key] = value

    return how


# One of each kind; the contradictions are in test_power_room_faults.py.
BAD = [
    ("power_room.yml", lambda v: v.pop("power_room_devices"), "power_room_devices"),
    ("power_room.yml", lambda v: v.update(power_room_buckett="power"), "power_room_buckett"),
    ("monitor.yml", lambda v: v.update(collector_intervall_s=3), "collector_intervall_s"),
    ("monitor.yml", lambda v: v.update(network_address="192.168.1.109"), "192.168.1.109/24"),
    ("monitor.yml", lambda v: v.update(pysunspec2_source="github"), "pysunspec2_source"),
    ("power_room.yml", lambda v: v.update(power_room_interval_s="often"), "interval_s"),
    ("power_room.yml", device(1, name=None), "name"),
    ("power_room.yml", device(1, drivr="tristar-mppt-600v"), "drivr"),
    ("power_room.yml", device(1, driver="tristar"), "tristar"),
    ("power_room.yml", device(1, host="192.168.2.101"), "192.168.2.101"),
]


@pytest.mark.parametrize(("file", "how", "named"), BAD, ids=[f"{n}-{bad[2]}" for n, bad in enumerate(BAD)])
def test_a_bad_value_is_refused_by_name_before_anything_is_touched(
    inventory: Path, file: str, how: Change, named: str
) -> None:
    change(inventory, file, how)
    code, output = run(inventory)
    assert code != 0
    assert "Nothing was touched" in output, output
    said = output[output.index("Nothing was touched") :]
    assert named in said, said
    assert "Reach the Pi" not in output
    assert not (TOP / "secrets" / "refusals").exists()


def test_a_good_inventory_gets_as_far_as_the_pi_that_is_not_there(inventory: Path) -> None:
    code, output = run(inventory)
    assert code != 0
    assert "Nothing was touched" not in output, output
    assert "does not answer. Is the Pi on" in output, output
    assert not (TOP / "secrets" / "refusals").exists()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle's folder with a manifest that fits."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    lines = []
    for name in ("packages.first", "packages.added", "packages.tar", "wheels.tar"):
        (folder / name).write_text(name)
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def test_a_whole_bundle_gets_as_far_as_the_pi_that_is_not_there(inventory: Path, bundle: Path) -> None:
    code, output = run(inventory, "-e", f"bundle={bundle}")
    assert code != 0
    assert "does not answer. Is the Pi on" in output, output


def test_a_folder_that_is_no_bundle_is_refused_before_anything_is_touched(
    inventory: Path, bundle: Path
) -> None:
    for folder in (bundle.with_name("none"), bundle.parent):
        code, output = run(inventory, "-e", f"bundle={folder}")
        assert code != 0
        assert f"Nothing was touched. {folder} is no bundle" in output, output
        assert "Reach the Pi" not in output


def change_a_bit(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(("name", "damage"), [("packages.tar", change_a_bit), ("wheels.tar", Path.unlink)])
def test_a_damaged_bundle_is_refused_before_anything_is_touched(
    inventory: Path, bundle: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(bundle / name)
    code, output = run(inventory, "-e", f"bundle={bundle}")
    assert code != 0
    assert f"Nothing was touched. The bundle {bundle} is damaged: {name} does not fit" in output, output
    assert "Reach the Pi" not in output


def test_the_check_of_a_pi_that_is_not_there_is_one_row_with_a_remedy(inventory: Path) -> None:
    code, output = run(inventory, playbook="playbooks/check.yml")
    assert code != 0
    table = output[output.index("TASK [The site]") : output.index("TASK [Say what fails]")]
    assert "FAIL the Pi cannot be looked at" in table
    assert "does not answer. Is the Pi on" in table
    assert "0 ok, 0 warning, 1 FAIL" in table


def test_a_run_without_a_monitor_is_not_green(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("others:\n  hosts:\n    elsewhere:\n")
    playbooks = [f"playbooks/{name}.yml" for name in ("backup", "bundle", "check", "sdcard")]
    for playbook in ("site.yml", *playbooks):
        code, output = run(hosts, playbook=playbook)
        assert code != 0
        assert "monitor" in output
