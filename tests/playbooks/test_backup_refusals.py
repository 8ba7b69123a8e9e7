"""Backups that cannot be made and restores that must not be: refused on the laptop, the cause and the remedy named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.playbooks.test_backup import backup, folder, load
from tests.playbooks.test_refusals import TOP, inventory, run

__all__ = ["backup", "folder", "inventory"]  # fixtures

SITE = "refusals"
SECRET = "influxdb_operator_token"


def program(programs: Path, name: str, script: str) -> None:
    programs.mkdir(exist_ok=True)
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A laptop with a good rsync, whatever this machine has."""
    program(tmp_path / "bin", "rsync", "echo 'rsync  version 3.2.7  protocol version 31'")
    return tmp_path / "bin"


@pytest.mark.parametrize(
    "says", ["openrsync: protocol version 29", "rsync  version 2.6.9  protocol version 29"]
)
def test_a_laptop_without_a_usable_rsync_is_told_how_to_get_one(
    inventory: Path, programs: Path, says: str
) -> None:
    program(programs, "rsync", f"echo '{says}'")
    code, output = run(inventory, playbook="playbooks/backup.yml", programs=programs)
    assert code != 0
    assert f"needs rsync 3.1.3 or later (found: {says.replace('  ', ' ')})" in output, output
    assert "sudo apt install rsync" in output


def test_a_sudo_that_asks_is_refused_before_anything_else(inventory: Path, programs: Path) -> None:
    program(programs, "ssh", "echo 'sudo: a password is required' >&2; exit 1")
    code, output = run(inventory, "-e", "ansible_user=pi", playbook="playbooks/backup.yml", programs=programs)
    assert code != 0
    assert "must not ask pi for a password here" in output, output
    assert "NOPASSWD: ALL' | sudo tee /etc/sudoers.d/010_pi-nopasswd" in output
    assert "Reach the Pi" not in output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "backup_kept=3",
            "backup_kept is not known here: is it misspelt? Known are backup_keep, backup_stop_max_s",
        ),
        ("backup_keep=zero", "backup_keep must be a number of backups, 1 or more"),
        ("backup_keep=0", "backup_keep must be a number of backups, 1 or more"),
        ("backup_stop_max_s=0", "backup_stop_max_s must be seconds, 10 or more"),
    ],
)
def test_a_setting_that_would_be_passed_over_is_refused(inventory: Path, given: str, said: str) -> None:
    code, output = run(inventory, "-e", given, playbook="playbooks/backup.yml")
    assert code != 0
    assert f"Nothing was touched. Mend the inventory (or what -e says): {said}" in output, output


def test_a_pi_that_does_not_answer_is_told_as_in_site_yml(inventory: Path, programs: Path) -> None:
    code, output = run(inventory, playbook="playbooks/backup.yml", programs=programs)
    assert code != 0
    assert "does not answer. Is the Pi on" in output, output
    assert not (TOP / "backups" / SITE).exists()


# Restores


@pytest.fixture
def secrets() -> Iterator[Path]:
    """The laptop's secrets of the inventory's site, none at first."""
    yield TOP / "secrets" / SITE
    shutil.rmtree(TOP / "secrets" / SITE, ignore_errors=True)


@pytest.fixture
def good(folder: Path, secrets: Path) -> Path:
    """A whole backup of the inventory's site."""
    (folder / "secrets").mkdir()
    (folder / "secrets" / SECRET).write_text("a" * 64)
    finish(folder)
    return folder


def finish(folder: Path, **values: object) -> None:
    manifest = {"format": 1, "site": SITE, "organization": "Parks Ranch", "bucket": "power"}
    manifest |= {"files": load().folder_checksums(str(folder)), **values}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage(folder: Path) -> None:
    (folder / "influxdb/influxd.bolt").write_text("tokenz")


BAD: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("damaged", damage, ["is damaged: influxdb/influxd.bolt was changed.", "Take another one."]),
    ("unfinished", lambda f: (f / "manifest.json").unlink(), ["it was never finished, or it is no backup"]),
    (
        "other site",
        lambda f: finish(f, site="other"),
        ["is of the site other", "Give the right inventory (-i)"],
    ),
    ("other bucket", lambda f: finish(f, bucket="other"), ["bucket other"]),
]


@pytest.mark.parametrize(("how", "said"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_backup_that_does_not_fit_is_refused_before_the_pi_is_looked_at(
    inventory: Path, good: Path, secrets: Path, how: Callable[[Path], object], said: list[str]
) -> None:
    how(good)
    code, output = run(inventory, "-e", f"restore_from={good}")
    assert code != 0
    assert all(words in output for words in said), output
    assert "Reach the Pi" not in output
    assert not secrets.exists()


def test_secrets_that_differ_are_named_without_their_values(
    inventory: Path, good: Path, secrets: Path
) -> None:
    secrets.mkdir(parents=True)
    (secrets / SECRET).write_text("b" * 64)
    code, output = run(inventory, "-e", f"restore_from={good}")
    assert code != 0
    assert f"Not the same in {secrets} and in {good}/secrets: {SECRET}." in output, output
    assert f"mv {secrets} {secrets}.other" in output
    assert "bbbb" not in output
    assert "aaaa" not in output


def test_a_good_backup_gets_as_far_as_the_pi_that_is_not_there(
    inventory: Path, good: Path, secrets: Path, programs: Path
) -> None:
    """And the laptop, which lacks the secrets, has taken them from the backup; not what stood on cards, which older ones have."""
    for name in ("replaced/20261129T173214/user-data", "of/the owner's"):
        (good / "secrets" / name).parent.mkdir(parents=True)
        (good / "secrets" / name).write_text("c" * 64)
    finish(good)
    code, output = run(inventory, "-e", f"restore_from={good}", programs=programs)
    assert code != 0
    assert "does not answer. Is the Pi on" in output, output
    assert (secrets / SECRET).read_text() == "a" * 64
    assert (secrets / SECRET).stat().st_mode & 0o777 == 0o600
    assert (secrets / "of/the owner's").read_text() == "c" * 64
    assert secrets.stat().st_mode & 0o777 == (secrets / "of").stat().st_mode & 0o777 == 0o700
    assert not (secrets / "replaced").exists()
    assert "aaaa" not in output


@pytest.mark.parametrize("arguments", [["--tags", "collector"], ["--skip-tags", "grafana"], ["--check"]])
def test_a_part_of_site_yml_is_no_restore(inventory: Path, good: Path, arguments: list[str]) -> None:
    code, output = run(inventory, "-e", f"restore_from={good}", *arguments)
    assert code != 0
    assert "A restore is the whole of site.yml" in output, output


def test_a_misspelt_restore_does_not_make_an_empty_site(inventory: Path, good: Path) -> None:
    code, output = run(inventory, "-e", f"restore_form={good}")
    assert code != 0
    assert "unknown variable (misspelt?): restore_form" in output, output
