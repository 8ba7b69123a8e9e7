"""The provisioned Pi judged from outside: what a second run must not touch, and whether services run what is on the card."""

from __future__ import annotations

import shlex

from . import pi

# What a service has read when it started: its program's package or note, its configuration, its unit.
FILES = {
    "influxdb": (
        "/var/lib/dpkg/info/influxdb2.list",
        "/etc/influxdb/config.toml",
        "/etc/systemd/system/influxdb.service.d",
    ),
    "grafana-server": (
        "/var/lib/dpkg/info/grafana.list",
        "/etc/grafana/grafana.ini",
        "/etc/grafana/secrets",
        "/etc/grafana/provisioning",
        "/etc/systemd/system/grafana-server.service.d",
    ),
    "power": (
        "/opt/power-collector/installed",
        "/etc/power-collector",
        "/etc/systemd/system/power.service",
    ),
}


def footprint() -> str:
    """What a second run must not touch: contents and modes of /etc and /opt, and when the services started."""
    return pi.sudo(
        "find /etc /opt -xdev -not -path '*/__pycache__*' -type f -exec sha256sum {} + | sort -k2; "
        "find /etc /opt -xdev -not -path '*/__pycache__*' -printf '%p %m %u %g\\n' | sort; "
        "systemctl show -p Id,ExecMainStartTimestampMonotonic,InvocationID influxdb grafana-server power NetworkManager",
        timeout_s=180,
    )


def stale_services() -> list[str]:
    """What is wrong with the services: not running, or a file newer than the start; empty where all is well."""
    said = []
    for unit, files in FILES.items():
        said += pi.sudo(
            f"systemctl is-active --quiet {unit} || echo {unit} does not run\n"
            f"systemctl is-enabled --quiet {unit} || echo {unit} does not start at boot\n"
            f"[ $(systemctl show {unit} -p NeedDaemonReload --value) = no ] || echo {unit} runs an older unit\n"
            f"for file in {' '.join(map(shlex.quote, files))}; do [ -e $file ] || echo $file is missing; done\n"
            f"started=$(systemctl show {unit} --timestamp=unix -p ExecMainStartTimestamp --value)\n"
            # The second in which it started counts for its own: the services start after their files, not at once.
            f'find {" ".join(map(shlex.quote, files))} -type f -newermt "@$((${{started#@}} + 1))" '
            f"-printf '{unit} started before %p was written\\n'\n"
        ).splitlines()
    return said


def torn_packages() -> list[str]:
    """Packages that are not wholly installed, and their files that are not what was packed; empty where all is well."""
    return pi.sudo(
        "dpkg --audit; dpkg --verify | grep -v '^..5...... c ' | grep -v '^missing.* c '; apt-get check -qq 2>&1",
        check=False,
        timeout_s=180,
    ).splitlines()
