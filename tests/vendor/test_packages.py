"""Where the packages come from, what is in the substitutes' files, and that apt takes the repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .errors import VendorError
from .prepare import URL, VENDORS, Source, offer_newer, prepare, reachable
from .servers import HERE, free_port
from .tools import run


def nowhere(_url: str) -> bool:
    return False


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vendor")
    prepare(folder, {}, nowhere)
    return folder


def deb(state: Path, name: str) -> Path:
    (found,) = (state / "repo/pool").glob(f"{name}_*.deb")
    return found


def given(folder: Path, name: str, version: str) -> Path:
    """Make a small .deb as somebody might bring it."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True, exist_ok=True)
    fields = {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "x <x@localhost>"}
    text = "".join(f"{key}: {value}\n" for key, value in fields.items())
    (root / "DEBIAN/control").write_text(f"{text}Description: a package\n", encoding="utf-8")
    debs = folder / "debs"
    debs.mkdir(exist_ok=True)
    run(["dpkg-deb", "--root-owner-group", "--build", root, debs])
    return debs


def variables(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((state / "vars.yml").read_text(encoding="utf-8"))
    return found


def by_name(sources: list[Source]) -> dict[str, str]:
    return {source.package: source.source for source in sources}


@pytest.mark.parametrize(
    ("name", "version", "field", "value"),
    [
        ("influxdb2", "2.9.1+substitute", "Conflicts", "influxdb"),
        ("grafana", "9.3.2+substitute", "Depends", "python3-yaml"),
    ],
)
def test_a_substitute_says_what_it_is(state: Path, name: str, version: str, field: str, value: str) -> None:
    fields = {
        key: run(["dpkg-deb", "-f", deb(state, name), key]).strip()
        for key in ("Version", "Description", field)
    }
    assert fields["Version"] == version
    assert fields["Description"].startswith("SUBSTITUTE")
    assert value in fields[field]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "influxdb2",
            {
                "./usr/bin/influxd": "-rwxr-xr-x",
                "./usr/lib/influxdb2-substitute/influxd": "-rwxr-xr-x",
                "./usr/lib/influxdb/scripts/influxd-systemd-start.sh": "-rwxr-xr-x",
                "./usr/lib/systemd/system/influxdb.service": "-rw-r--r--",
                "./etc/default/influxdb2": "-rw-r--r--",
                "./usr/share/doc/influxdb2/copyright": "-rw-r--r--",
            },
        ),
        (
            "grafana",
            {
                "./usr/sbin/grafana-server": "-rwxr-xr-x",
                "./usr/share/grafana-substitute/server.py": "-rw-r--r--",
                "./usr/lib/systemd/system/grafana-server.service": "-rw-r--r--",
                "./etc/default/grafana-server": "-rw-r--r--",
            },
        ),
    ],
)
def test_its_files_are_roots_and_where_the_real_ones_are(
    state: Path, name: str, files: dict[str, str]
) -> None:
    listing = [line.split() for line in run(["dpkg-deb", "-c", deb(state, name)]).splitlines()]
    assert {line[1] for line in listing} == {"root/root"}
    modes = {line[5]: line[0] for line in listing}
    assert {path: modes.get(path) for path in files} == files


def test_debians_own_service_is_not_in_the_way(state: Path) -> None:
    listing = run(["dpkg-deb", "-c", deb(state, "influxdb2")])
    assert "init.d" not in listing
    assert "influxdb.conf" not in listing


@pytest.mark.parametrize(
    ("model", "status"), [("Raspberry Pi 4 Model B Rev 1.5\0", 1), ("QEMU Virtual Machine\0", 0), (None, 0)]
)
def test_it_is_refused_on_a_real_pi(model: str | None, status: int, tmp_path: Path, state: Path) -> None:
    where = tmp_path / "model"
    if model:
        where.write_text(model, encoding="utf-8")
    for name in ("influxdb2", "grafana"):
        run(["dpkg-deb", "-e", deb(state, name), tmp_path / name])
        script = (tmp_path / name / "preinst").read_text(encoding="utf-8")
        assert "/proc/device-tree/model" in script
        moved = script.replace("/proc/device-tree/model", str(where))
        done = subprocess.run(
            ["sh", "-s", "install"], input=moved, text=True, capture_output=True, check=False
        )
        assert done.returncode == status
        assert ("SUBSTITUTE" in done.stderr) == (status == 1)


def test_apt_takes_the_repository_with_its_key_and_with_no_other(state: Path, tmp_path: Path) -> None:
    repo = state / "repo"

    def policy(key: Path) -> str:
        for name in ("lists/partial", "cache/archives/partial"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "status").touch()
        listed = tmp_path / "sources.list"
        listed.write_text(f"deb [signed-by={key}] file:{repo} stable main\n", encoding="utf-8")
        options = {
            "Dir::State::lists": tmp_path / "lists",
            "Dir::Cache": tmp_path / "cache",
            "Dir::Etc::SourceList": listed,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::status": tmp_path / "status",
            "APT::Sandbox::User": "root",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", *words, "-o", "APT::Update::Error-Mode=any", "update"])
        return run(["apt-cache", *words, "policy", "influxdb2", "grafana"])

    other = tmp_path / "other"
    prepare_key_only(other)
    with pytest.raises(VendorError, match=r"NO_PUBKEY|not signed|Missing key"):
        policy(other / "key.asc")
    shown = policy(repo / "key.asc")
    assert "Candidate: 2.9.1+substitute" in shown
    assert "Candidate: 9.3.2+substitute" in shown


def prepare_key_only(folder: Path) -> None:
    from .repository import Signer

    with Signer(folder / "signing-key.asc") as signer:
        (folder / "key.asc").write_text(signer.public_key(), encoding="ascii")


def test_the_roles_get_the_repositorys_variables(state: Path, tmp_path: Path) -> None:
    got = variables(state)
    tmp_path.chmod(0o700)
    shown = run(
        ["gpg", "--homedir", str(tmp_path), "--show-keys", "--with-colons", str(state / "repo/key.asc")]
    )
    fingerprint = next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:"))
    common = {"url": URL, "key_url": f"{URL}key.asc", "key_fingerprint": fingerprint}
    assert got == {
        **{
            f"{role}_repository_{key}": value
            for role in ("influxdb", "grafana")
            for key, value in common.items()
        },
        "influxdb_package": "influxdb2=2.9.*",
        "grafana_package": "grafana=9.3.*",
    }
    said = json.loads((state / "sources.json").read_text(encoding="utf-8"))
    assert [(one["package"], one["source"]) for one in said] == [
        ("influxdb2", "substitute"),
        ("grafana", "substitute"),
    ]
    assert all("SUBSTITUTE" in one["says"] for one in said)


def test_a_second_run_changes_nothing(state: Path) -> None:
    def all_files() -> dict[Path, tuple[int, bytes]]:
        paths = [path for path in state.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before = all_files()
    assert len(before) >= 12
    prepare(state, {}, nowhere)
    assert all_files() == before


def test_the_signing_key_is_for_its_owner_alone(state: Path) -> None:
    assert (state / "signing-key.asc").stat().st_mode & 0o777 == 0o600


def test_given_files_come_first_and_missing_ones_from_the_next_source(tmp_path: Path) -> None:
    given(tmp_path, "grafana", "12.9.1")
    given(tmp_path, "something-else", "1")
    debs = given(tmp_path, "grafana", "13.0.2")
    sources = prepare(tmp_path / "state", {"POWER_VENDOR_DEBS": str(debs)}, nowhere)
    assert by_name(sources) == {"influxdb2": "substitute", "grafana": "given deb"}
    assert variables(tmp_path / "state")["grafana_package"] == "grafana=13.0.*"
    assert [path.name for path in (tmp_path / "state/repo/pool").glob("grafana*")] == [
        "grafana_13.0.2_amd64.deb"
    ]


def test_where_the_vendors_are_reached_the_roles_defaults_count(tmp_path: Path) -> None:
    asked: list[str] = []

    def probe(url: str) -> bool:
        asked.append(url)
        return True

    sources = prepare(tmp_path, {}, probe)
    assert by_name(sources) == {"influxdb2": "vendor repository", "grafana": "vendor repository"}
    assert variables(tmp_path) == {}
    assert asked == [vendor.key_url for vendor in VENDORS]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_packages_is_refused_before_anything_is_made(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "debs"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(VendorError, match="POWER_VENDOR_DEBS"):
        prepare(tmp_path / "state", {"POWER_VENDOR_DEBS": str(folder)}, nowhere)
    assert not (tmp_path / "state").exists()


def test_a_server_that_is_not_there_is_not_reachable() -> None:
    assert not reachable(f"http://127.0.0.1:{free_port()}/key")


def test_the_maintainer_scripts_are_sound_shell() -> None:
    scripts = [
        path for path in HERE.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert len(scripts) >= 6
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True)


def test_a_newer_version_is_offered_beside_the_one_that_is_there(tmp_path: Path) -> None:
    prepare(tmp_path, {}, nowhere)
    assert offer_newer(tmp_path, {}) == {"influxdb2": "2.10.1+substitute", "grafana": "9.4.2+substitute"}
    listed = (tmp_path / "repo/dists/stable/main/binary-amd64/Packages").read_text(encoding="utf-8")
    for version in ("2.9.1+substitute", "2.10.1+substitute", "9.3.2+substitute", "9.4.2+substitute"):
        assert f"Version: {version}\n" in listed
    prepare(tmp_path, {}, nowhere)
    assert sorted(path.name.split("_")[1] for path in (tmp_path / "repo/pool").iterdir()) == [
        "2.9.1+substitute",
        "9.3.2+substitute",
    ]


def test_a_given_newer_version_is_offered(tmp_path: Path) -> None:
    prepare(tmp_path / "state", {}, nowhere)
    debs = given(tmp_path, "influxdb2", "2.12.0-1")
    assert offer_newer(tmp_path / "state", {"POWER_VENDOR_DEBS_NEWER": str(debs)})["influxdb2"] == "2.12.0-1"
