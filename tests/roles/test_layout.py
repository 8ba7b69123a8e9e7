"""Every role has the same files and verbs, and its argument specification says what its defaults say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (TOP / "roles").iterdir() if path.is_dir())
STEPS = {"systemd_unit", "vendor_package"}  # steps of other roles, never a role of a play


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_the_files_that_each_role_has(role: Path) -> None:
    for file in ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (role / file).is_file(), file


def test_specification_and_defaults_name_the_same_variables(role: Path) -> None:
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role / "defaults/main.yml") or {}
    required = {name for name, option in options.items() if option.get("required") and name not in defaults}
    assert set(options) - required == set(defaults)


def test_each_variable_is_the_roles_own(role: Path) -> None:
    assert all(name.startswith(f"{role.name}_") for name in load(role / "defaults/main.yml") or {})


def test_each_default_is_explained_to_the_owner(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{role.name}_"):
            above = lines[number - 1]
            # A comment may head a group of variables that belong together.
            assert "#" in line or above.startswith("#") or above.startswith((f"{role.name}_", " ")), line


@pytest.mark.parametrize(
    "role", [role for role in ROLES if role.name not in STEPS], ids=lambda role: role.name
)
def test_main_only_brings_in_the_roles_steps(role: Path) -> None:
    """What a role does is in files that say so; `install` and `configure` are the verbs that users may name."""
    tasks = load(role / "tasks/main.yml")
    imported = {Path(task["ansible.builtin.import_tasks"]).stem for task in tasks}
    assert imported & {"install", "configure"}


def test_site_yml_runs_every_role_but_the_shared_steps() -> None:
    play = load(TOP / "site.yml")[-1]
    assert {one["role"] for one in play["roles"]} == {role.name for role in ROLES} - STEPS
