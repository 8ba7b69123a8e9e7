"""The site check's judgement: what the probes saw in, rows of the table out."""

from __future__ import annotations

import base64
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]  # the checkout, seen from tests/<folder>/

NOW = 1_780_000_000
BOOTED = NOW - 86_400 * 3
DAY_S = 86_400


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "site_check", TOP / "playbooks/filter_plugins/site_check.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load()

SITE = {
    "devices": [
        {"name": "mate3s", "driver": "outback", "host": "192.168.1.100", "port": 1025},
        {"name": "sc1", "driver": "tristar-mppt-600v", "host": "192.168.1.101"},
    ],
    "interval_s": 15,
    "interface": "eth0",
    "address": "192.168.1.109/24",
    "units": {"influxdb.service": ["/etc/influxdb/config.toml"], "power.service": []},
    "keys": {"influxdb": "/etc/apt/keyrings/A.asc", "grafana": "/etc/apt/keyrings/B.asc"},
    "latest": "/run/latest.json",
    "backup_mark": "/var/last-backup",
}


class Seen:
    """A healthy site as the probes see it; a case changes some of it."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] | None = {
            "time": NOW - 5,
            "interval_s": 15,
            "devices": [
                self.device("mate3s", "192.168.1.100:1025"),
                self.device("sc1", "192.168.1.101:502"),
            ],
            "counters": {"stored_points": 0, "dropped_points": 0, "rejected_points": 0},
            "points": [
                {
                    "measurement": "collector_status",
                    "fields": {
                        "points": 20,
                        "inverters_read": 3,
                        "inverters_expected": 3,
                        "clock_source": 1,
                    },
                }
            ],
        }
        self.files = {"uptime": f"{NOW - BOOTED}.50 1.0\n", "resolv": "nameserver 172.20.10.1\n"}
        self.times = {
            "/run/latest.json": NOW - 3,
            "/etc/influxdb/config.toml": BOOTED - 100,
            "/var/last-backup": NOW - DAY_S,
        }
        self.neighbours = [
            {"dst": "192.168.1.100", "lladdr": "00:90:ea:00:00:01", "state": ["REACHABLE"]},
            {"dst": "192.168.1.101", "lladdr": "00:20:4a:00:00:02", "state": ["STALE"]},
        ]
        self.addresses = [
            {"ifname": "lo", "flags": ["LOOPBACK"], "addr_info": []},
            {
                "ifname": "eth0",
                "flags": ["BROADCAST", "UP", "LOWER_UP"],
                "addr_info": [{"local": "192.168.1.109", "prefixlen": 24}],
            },
        ]
        self.routes = [{"dst": "default", "gateway": "172.20.10.1", "dev": "wlan0", "metric": 600}]
        self.clock = {"NTPSynchronized": "yes"}
        self.units = {"influxdb.service": self.unit(), "power.service": self.unit()}
        self.pages = {"influxdb": 200, "grafana": 200}
        self.newest = {"mate3s": NOW - 5, "sc1": NOW - 5}
        self.offset_s: float | None = 4.0
        self.commands: dict[str, str | None] = {
            "date": str(NOW),
            "cable_dns": "\n",
            "disk": "       Used      Avail Mounted on\n2000000000 8000000000 /\n2000000000 8000000000 /",
            "throttled": "throttled=0x0",
            "key_influxdb": key(primary=None, signing=[NOW + 400 * DAY_S]),
            "key_grafana": key(primary=None, signing=[]),
        }
        self.knocked: dict[str, bool] = {}
        self.laptop = NOW + 1
        self.kernels = ["6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712"]

    @staticmethod
    def device(name: str, address: str) -> dict[str, Any]:
        return {
            "name": name,
            "address": address,
            "up": True,
            "age_s": 0.0,
            "response_ms": 12.3,
            "error": None,
        }

    @staticmethod
    def unit() -> dict[str, str]:
        return {
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "Result": "success",
            "NeedDaemonReload": "no",
            "InactiveExitTimestampMonotonic": "20000000",
        }

    def down(self, number: int) -> None:
        """The collector says that a device does not answer."""
        self.latest["devices"][number].update(
            up=False,
            age_s=300.0,
            response_ms=None,
            error="sc1 (192.168.1.101:502): no connection within 2 s; check power",
        )

    def stop(self, unit: str) -> None:
        self.units[unit].update(ActiveState="failed", Result="exit-code")

    def stop_collector(self) -> None:
        self.stop("power.service")
        self.latest = None
        del self.times["/run/latest.json"]
        self.knocked = {"mate3s": True, "sc1": True}

    def stop_database(self) -> None:
        self.stop("influxdb.service")
        self.pages["influxdb"] = -1
        self.newest = None

    def probes(self) -> dict[str, Any]:
        files = dict(self.files)
        if self.latest is not None:
            files["latest"] = json.dumps(self.latest)
        names = {*files, "latest", "temperature", "throttled", "reboot", "reboot_packages"}
        commands = {
            **self.commands,
            "neighbours": json.dumps(self.neighbours),
            "addresses": json.dumps(self.addresses),
            "routes": json.dumps(self.routes),
            "routes6": "[]",
            "clock": "\n".join(f"{key}={value}" for key, value in self.clock.items()),
            "units": "\n\n".join(
                "\n".join(f"{key}={value}" for key, value in {"Id": name, **unit}.items())
                for name, unit in self.units.items()
            ),
        }
        return {
            "read": [
                {"item": {"key": name}, **({"content": encoded(files[name])} if name in files else {})}
                for name in names
            ],
            "knocked": [
                {"item": {"name": name}, **({"state": "started"} if open_ else {"msg": "Timeout"})}
                for name, open_ in self.knocked.items()
            ],
            "asked": [
                {"item": {"key": name}, "rc": 0, "stdout": said}
                if said is not None
                else {"item": {"key": name}, "rc": 2, "msg": "No such file"}
                for name, said in commands.items()
            ],
            "laptop": str(self.laptop),
            "found": [{"path": path, "mtime": at} for path, at in self.times.items()],
            "kernels": [{"path": f"/boot/vmlinuz-{name}"} for name in self.kernels],
            "kernel": "6.12.47+rpt-rpi-v8",
            "answered": [{"item": {"key": name}, "status": status} for name, status in self.pages.items()],
            "readings": {"status": -1} if self.newest is None else {"status": 200, "json": self.answer()},
        }

    def answer(self) -> dict[str, Any]:
        offset = [] if self.offset_s is None else [{"values": [[NOW - 60, self.offset_s]]}]
        return {
            "results": [
                {
                    "series": [
                        {"tags": {"device": name}, "values": [[at, 25.6]]} for name, at in self.newest.items()
                    ]
                },
                {"series": offset},
            ]
        }


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def key(*, primary: int | None, signing: list[int]) -> str:
    """gpg's listing of a key; without signing subkeys the primary one signs."""
    capabilities = "cSC" if signing else "scSC"
    lines = [f"pub:-:4096:1:AAAA:1700000000:{primary or ''}::-:::{capabilities}::::::23::0:"]
    lines += [f"sub:-:4096:1:BBBB:1700000000:{until}:::::s::::::23:" for until in signing]
    lines.append("sub:-:4096:1:CCCC:1700000000::::::e::::::23:")
    return "\n".join(lines)


def rows(change: Callable[[Seen], object]) -> list[dict[str, str]]:
    seen = Seen()
    change(seen)
    return list(check.site_rows(seen.probes(), SITE))


def not_green(change: Callable[[Seen], object]) -> list[tuple[str, str]]:
    return [(row["level"], row["name"]) for row in rows(change) if row["level"] != "ok"]


def nothing(_: Seen) -> None:
    """A healthy site."""


def test_a_healthy_site_is_green() -> None:
    assert not_green(nothing) == []


def test_the_rows_of_devices_are_the_table_of_reservations() -> None:
    found = {row["name"]: row["found"] for row in rows(nothing)}
    assert found["mate3s"].split()[:2] == ["192.168.1.100", "00:90:ea:00:00:01"]
    assert found["sc1"].split()[:2] == ["192.168.1.101", "00:20:4a:00:00:02"]
    assert "3 of 3 inverters" in found["mate3s"]
    assert found["sc1"].endswith("answers in 12 ms; newest reading 3 s old")


def latest(**changes: Any) -> Callable[[Seen], None]:
    def change(seen: Seen) -> None:
        seen.latest["counters"].update({k: v for k, v in changes.items() if k.endswith("_points")})
        seen.latest["points"][0]["fields"].update(
            {k: v for k, v in changes.items() if not k.endswith("_points")}
        )

    return change


def command(name: str, said: str | None) -> Callable[[Seen], None]:
    return lambda seen: seen.commands.update({name: said})


def file(name: str, text: str) -> Callable[[Seen], None]:
    return lambda seen: seen.files.update({name: text})


def unit(name: str, **changes: str) -> Callable[[Seen], None]:
    return lambda seen: seen.units[name].update(changes)


def together(*changes: Callable[[Seen], object]) -> Callable[[Seen], None]:
    def change(seen: Seen) -> None:
        for one in changes:
            one(seen)

    return change


def unplugged(seen: Seen) -> None:
    seen.down(1)
    seen.neighbours[1] = {"dst": "192.168.1.101", "state": ["FAILED"]}


def no_modbus(seen: Seen) -> None:
    seen.down(1)
    seen.neighbours[1]["state"] = ["REACHABLE"]


def just_silent(seen: Seen) -> None:
    no_modbus(seen)
    seen.latest["devices"][1]["age_s"] = 15.0


def full_disk(seen: Seen) -> None:
    seen.commands["disk"] = "Used Avail Mounted on\n9600000000 400000000 /"


def dead_router(seen: Seen) -> None:
    seen.routes.insert(0, {"dst": "default", "gateway": "192.168.1.1", "dev": "eth0", "metric": 100})


def offline(seen: Seen) -> None:
    seen.routes = []
    seen.files["resolv"] = ""
    seen.clock["NTPSynchronized"] = "no"
    seen.latest["points"][0]["fields"]["clock_source"] = 2


def by_the_mate3s_clock(seen: Seen) -> None:
    """The Pi woke up in the past; the readings carry the MATE3s's time."""
    offline(seen)
    seen.laptop = NOW + 40 * DAY_S
    seen.latest["time"] = seen.laptop - 5
    seen.newest = {"mate3s": seen.laptop - 5, "sc1": seen.laptop - 5}


def hung(seen: Seen) -> None:
    seen.times["/run/latest.json"] = NOW - 90


def renamed(seen: Seen) -> None:
    seen.latest["devices"][1]["name"] = "sc9"


FAIL, WARNING = "FAIL", "warning"

CASES = [
    # The room
    ("nothing at the address", unplugged, [(FAIL, "sc1")], "Nothing is at this address"),
    ("no Modbus", no_modbus, [(FAIL, "sc1")], "no answer for 5 min (no connection within 2 s)"),
    ("no Modbus's remedy", no_modbus, [(FAIL, "sc1")], "It is there and does not speak Modbus"),
    ("silent for a while", lambda s: s.down(1), [(FAIL, "sc1")], "switch on? If so: is another program"),
    ("silent for a moment", just_silent, [(FAIL, "sc1")], "switch on? If so: is another program"),
    ("an inverter is missing", latest(inverters_read=2), [(FAIL, "mate3s")], "hub's cables"),
    ("another list of devices", renamed, [(FAIL, "sc1")], "site.yml"),
    ("readings are late", lambda s: s.newest.update(sc1=NOW - 90), [(FAIL, "readings")], "sc1: answers"),
    ("readings are missing", lambda s: s.newest.pop("sc1"), [(FAIL, "readings")], "sc1: answers"),
    ("points wait", latest(stored_points=500), [(WARNING, "backlog")], "500 points wait"),
    ("points were lost", latest(dropped_points=1), [(WARNING, "backlog")], "1 dropped"),
    ("points were refused", latest(rejected_points=2), [(WARNING, "backlog")], "2 refused"),
    # The services
    (
        "no database",
        Seen.stop_database,
        [(WARNING, "readings"), (FAIL, "influxdb")],
        "journalctl -u influxdb",
    ),
    (
        "no collector",
        Seen.stop_collector,
        [(WARNING, "readings"), (WARNING, "backlog"), (FAIL, "power")],
        "failed (exit-code)",
    ),
    (
        "a collector that hangs",
        hung,
        [(WARNING, "mate3s"), (WARNING, "sc1"), (WARNING, "readings"), (WARNING, "backlog"), (FAIL, "power")],
        "no cycle for 90 s",
    ),
    (
        "no collector and a silent device",
        together(Seen.stop_collector, lambda s: s.knocked.update(sc1=False)),
        [(FAIL, "sc1"), (WARNING, "readings"), (WARNING, "backlog"), (FAIL, "power")],
        "takes no connection",
    ),
    (
        "a database that says 503",
        lambda s: s.pages.update(influxdb=503),
        [(FAIL, "influxdb")],
        "restart influxdb",
    ),
    ("not at boot", unit("power.service", UnitFileState="disabled"), [(FAIL, "power")], "disabled"),
    ("an unread unit", unit("power.service", NeedDaemonReload="yes"), [(WARNING, "power")], "its unit"),
    (
        "an unread file",
        lambda s: s.times.update({"/etc/influxdb/config.toml": BOOTED + 60}),
        [(WARNING, "influxdb")],
        "/etc/influxdb/config.toml",
    ),
    # The network
    ("a default route over the cable", dead_router, [(FAIL, "cable (eth0)")], "192.168.1.1"),
    ("no link", lambda s: s.addresses[1].update(flags=["UP"]), [(FAIL, "cable (eth0)")], "no link"),
    (
        "another address",
        lambda s: s.addresses[1]["addr_info"][0].update(local="192.168.1.77"),
        [(FAIL, "cable (eth0)")],
        "192.168.1.77/24, not 192.168.1.109/24",
    ),
    ("no interface", lambda s: s.addresses.pop(), [(FAIL, "cable (eth0)")], "network_interface"),
    ("no internet", offline, [], "none is needed"),
    (
        "a dead name server in use",
        file("resolv", "nameserver 192.168.1.1\n"),
        [(FAIL, "name servers")],
        "192.168.1.1",
    ),
    (
        "a name server by DHCP",
        command("cable_dns", "192.168.1.1 | 192.168.1.2\n"),
        [(FAIL, "name servers")],
        "192.168.1.2",
    ),
    ("no name server", file("resolv", ""), [(WARNING, "name servers")], "Wi-Fi"),
    # The Pi
    (
        "the Pi lives in the past",
        together(offline, lambda s: setattr(s, "laptop", NOW + 9000)),
        [(FAIL, "clock")],
        "It follows the MATE3s's: set that",
    ),
    (
        "the Pi lives in the past, and no MATE3s knows better",
        together(offline, latest(clock_source=3), lambda s: setattr(s, "laptop", NOW + 9000)),
        [(FAIL, "clock")],
        "site.yml`, which sets it",
    ),
    ("the Pi's past costs no reading", by_the_mate3s_clock, [(FAIL, "clock")], "the MATE3s"),
    (
        "the laptop's clock is wrong",
        lambda s: setattr(s, "laptop", NOW - 9000),
        [(WARNING, "clock")],
        "set this laptop's",
    ),
    ("nobody confirms the clock", latest(clock_source=3), [(WARNING, "clock")], "unverified"),
    (
        "nobody has confirmed the clock yet",
        together(latest(clock_source=0), lambda s: s.newest.clear()),
        [(WARNING, "readings"), (WARNING, "clock")],
        "held until the time is known",
    ),
    (
        "MATE3s's clock",
        lambda s: setattr(s, "offset_s", -3600.0),
        [(WARNING, "MATE3s's clock")],
        "60 min behind",
    ),
    ("the disk is nearly full", full_disk, [(FAIL, "disk (/)")], "96 % used, 0.4 GB free"),
    ("the disk fills", command("disk", "x\n8600 1400 /"), [(WARNING, "disk (/)")], "86 %"),
    ("a warm Pi", file("temperature", "79900\n"), [], "80 °C"),
    ("a hot Pi", file("temperature", "81200\n"), [(WARNING, "temperature")], "81 °C"),
    ("a burning Pi", file("temperature", "85000\n"), [(FAIL, "temperature")], "85 °C"),
    ("no firmware", command("throttled", None), [], "not told here"),
    ("undervoltage now", file("throttled", "50005\n"), [(FAIL, "power supply")], "too low now"),
    (
        "undervoltage before",
        command("throttled", "throttled=0x50000"),
        [(WARNING, "power supply")],
        "a moment ago",
    ),
    ("throttled", command("throttled", "throttled=0x4"), [(WARNING, "power supply")], "slowed down"),
    (
        "a subkey that expires",
        command("key_influxdb", key(primary=None, signing=[NOW - DAY_S, NOW + 59 * DAY_S])),
        [(WARNING, "vendor keys")],
        "sudo rm /etc/apt/keyrings/A.asc`",
    ),
    (
        "a primary key that expires",
        command("key_influxdb", key(primary=NOW + DAY_S, signing=[NOW + 400 * DAY_S])),
        [(WARNING, "vendor keys")],
        time.strftime("%Y-%m-%d", time.gmtime(NOW + DAY_S)),
    ),
    ("a missing key", command("key_grafana", None), [(WARNING, "vendor keys")], "grafana: missing"),
    ("a newer kernel", lambda s: s.kernels.append("6.12.50+rpt-rpi-v8"), [(WARNING, "reboot")], "6.12.50"),
    ("another model's kernel", lambda s: s.kernels.append("6.12.50+rpt-rpi-2712"), [], "none is pending"),
    (
        "packages that want a reboot",
        together(file("reboot", "***"), file("reboot_packages", "libc6\nlibc6\n")),
        [(WARNING, "reboot")],
        "wanted by libc6",
    ),
    ("no backup", lambda s: s.times.pop("/var/last-backup"), [(WARNING, "backup")], "never"),
    (
        "an old backup",
        lambda s: s.times.update({"/var/last-backup": NOW - 40 * DAY_S}),
        [(WARNING, "backup")],
        "40 days ago",
    ),
    # Several at once
    (
        "three at once",
        together(unplugged, Seen.stop_database, full_disk),
        [(FAIL, "sc1"), (WARNING, "readings"), (FAIL, "influxdb"), (FAIL, "disk (/)")],
        "Nothing is at this address",
    ),
    # The check's own faults
    ("a probe that fails", command("disk", None), [(FAIL, "disk")], "not known: No such file"),
    ("an answer of another kind", command("disk", "x\nfull"), [(FAIL, "disk")], "not understood"),
]


@pytest.mark.parametrize(
    ("change", "expected", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_exactly_what_is_wrong_is_named(
    change: Callable[[Seen], object], expected: list[tuple[str, str]], said: str
) -> None:
    assert not_green(change) == expected
    assert said in check.site_table(rows(change)).replace("\n            ", " ")


@pytest.mark.parametrize("change", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_every_failing_row_has_a_remedy_and_no_green_one_has(change: Callable[[Seen], object]) -> None:
    for row in rows(change):
        assert bool(row["remedy"]) == (row["level"] != "ok"), row


def test_a_failing_probe_stops_no_other() -> None:
    healthy = [row["name"] for row in rows(nothing)]
    probes = Seen().probes()
    for one in probes["asked"]:
        if one["item"]["key"] != "date":
            one.update(rc=127, stdout="", msg="not found")
    broken = check.site_rows(probes, SITE)
    assert {"sc1", "readings", "backlog", "temperature", "reboot", "backup"} <= {
        row["name"] for row in broken
    }
    assert len(broken) >= len(healthy) - 1  # the two units have become one row
    assert any(row["level"] == "FAIL" for row in broken)


def test_a_table_is_readable_in_a_terminal() -> None:
    text = check.site_table(rows(together(unplugged, Seen.stop_database, full_disk)))
    lines = text.splitlines()
    assert all(len(line) <= 125 for line in lines), max(lines, key=len)
    assert lines[-1].endswith("warning, 3 FAIL")
    assert not any(character in text for character in '{}[]"')
