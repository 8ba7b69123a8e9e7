"""Building the substitutes' .deb files; the same input gives the same bytes."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from .engine import architecture, engine_files
from .tools import run

HERE = Path(__file__).parent
EPOCH = "1735689600"  # the files' time inside: any fixed one
UNITS = "usr/lib/systemd/system"
LIBRARY = "usr/lib/influxdb2-substitute"
# where each file goes: target, mode
INFLUXDB2 = {
    "influxd.sh": ("usr/bin/influxd", 0o755),
    "adapter.py": (f"{LIBRARY}/adapter.py", 0o644),
    "recovery.py": (f"{LIBRARY}/recovery.py", 0o644),
    "influxd-systemd-start.sh": ("usr/lib/influxdb/scripts/influxd-systemd-start.sh", 0o755),
    "influxdb.service": (f"{UNITS}/influxdb.service", 0o644),
    "default": ("etc/default/influxdb2", 0o644),
}
GRAFANA = {
    **{
        f"{name}.py": (f"usr/share/grafana-substitute/{name}.py", 0o644)
        for name in ("server", "settings", "database", "provisioning", "queries")
    },
    "grafana-server": ("usr/sbin/grafana-server", 0o755),
    "grafana-server.service": (f"{UNITS}/grafana-server.service", 0o644),
    "default": ("etc/default/grafana-server", 0o644),
    "sample.ini": ("usr/share/grafana/conf/sample.ini", 0o644),
    "sample.yaml": ("usr/share/grafana/conf/sample.yaml", 0o644),
}


def build_influxdb2(folder: Path, version: str = "") -> Path:
    """Build the influxdb2 substitute into `folder`, under another version than its own where one is given; gives the file."""
    engine = engine_files()
    extra = {
        engine / "usr/bin/influxd": (f"{LIBRARY}/influxd", 0o755),
        engine / "usr/share/doc/influxdb/copyright": ("usr/share/doc/influxdb2/copyright", 0o644),
    }
    return _build("influxdb2", INFLUXDB2, architecture(), folder, extra, version)


def build_grafana(folder: Path, version: str = "") -> Path:
    """Build the grafana substitute into `folder`, under another version than its own where one is given; gives the file."""
    return _build("grafana", GRAFANA, "all", folder, {}, version)


def _build(
    name: str,
    files: dict[str, tuple[str, int]],
    arch: str,
    folder: Path,
    extra: dict[Path, tuple[str, int]],
    version: str,
) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, name)
        wanted = {HERE / name / source: place for source, place in files.items()} | extra
        for path in sorted((HERE / name / "debian").iterdir()):
            mode = 0o644 if path.name in ("control", "conffiles") else 0o755
            wanted[path] = (f"DEBIAN/{path.name}", mode)
        wanted[HERE / "preinst"] = ("DEBIAN/preinst", 0o755)
        for source, (place, mode) in wanted.items():
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            target.chmod(mode)
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        control = root / "DEBIAN/control"
        text = control.read_text(encoding="utf-8")
        if version:
            text = re.sub(r"^Version: .*$", f"Version: {version}", text, flags=re.MULTILINE)
        control.write_text(text.replace("Version:", f"Architecture: {arch}\nVersion:", 1), encoding="utf-8")
        # gzip: seconds matter more than bytes
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, folder]
        run(command, env={"SOURCE_DATE_EPOCH": EPOCH})
    return next(folder.glob(f"{name}_{version or '*'}_{arch}.deb"))
