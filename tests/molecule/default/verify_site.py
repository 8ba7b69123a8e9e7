"""What the family, a neighbour on the LAN and a thief of the card would see of a provisioned site."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from power_collector import contract
from power_collector.config import SiteConfig
from power_collector.sun import Sun
from tests.rehearsal import pi, report
from tests.rehearsal.disturb import wait_for

SECRETS = (
    "influxdb_admin_password",
    "influxdb_operator_token",
    "influxdb_grafana_password",
    "grafana_admin_password",
    "grafana_secret_key",
)
DASHBOARD = "power_room"
DASHBOARDS = ("power_room", "power_hours", "power_days", "power_devices", "power_monitor")


@pytest.fixture(scope="module")
def series() -> dict[str, dict[str, str]]:
    """Measurement -> field -> InfluxDB's type, of what is in the database."""
    report.wait_for_values(timeout_s=60)
    return {one["name"]: dict(one["values"]) for one in pi.influxql("SHOW FIELD KEYS")}


def collector_token() -> str:
    return pi.sudo("cat /etc/power-collector/influxdb.token").strip()


def status_of(command: str, *, config: str = "") -> str:
    """The HTTP status that curl sees on the Pi; `config` goes through standard input, for secrets."""
    return pi.sudo(f"curl -sS -o /dev/null -w '%{{http_code}}' -K - {command} <<'EOF'\n{config}\nEOF").strip()


# The network


def test_internet_goes_by_wifi_and_never_by_the_cable() -> None:
    routes = json.loads(pi.sudo("ip -j route show default"))
    assert [route["dev"] for route in routes] == ["wlan0"]


def test_eth0_has_its_fixed_address() -> None:
    (interface,) = json.loads(pi.sudo("ip -j -4 address show dev eth0"))
    assert [(a["local"], a["prefixlen"]) for a in interface["addr_info"]] == [("192.168.1.109", 24)]


def test_the_dead_router_is_nobodys_name_server() -> None:
    assert "192.168.1.1" not in pi.sudo("cat /etc/resolv.conf; nmcli -g IP4.DNS device show eth0")


# Services and files


@pytest.mark.parametrize("unit", ["influxdb", "grafana-server", "power"])
def test_a_unit_is_enabled_and_active(unit: str) -> None:
    assert pi.sudo(f"systemctl is-enabled {unit}; systemctl is-active {unit}", check=False).split() == [
        "enabled",
        "active",
    ]


def test_no_unit_failed() -> None:
    assert pi.sudo("systemctl list-units --failed --no-legend --plain").strip() == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/power-collector/config.toml", "640 root power-collector"),
        ("/etc/power-collector/influxdb.token", "640 root power-collector"),
        ("/etc/grafana/grafana.ini", "640 root grafana"),
        ("/etc/systemd/system/power.service", "644 root root"),
        ("/var/lib/power-collector", "750 power-collector power-collector"),
    ],
)
def test_files_belong_to_whom_they_should(path: str, expected: str) -> None:
    assert pi.sudo(f"stat -c '%a %U %G' {path}").strip() == expected


def test_network_profiles_are_roots_alone() -> None:
    modes = pi.sudo("stat -c '%a %U' /etc/NetworkManager/system-connections/*").split("\n")
    assert set(filter(None, modes)) == {"600 root"}


@pytest.mark.parametrize("unit", ["influxdb", "grafana-server", "power"])
def test_a_unit_is_hardened(unit: str) -> None:
    """systemd's own measure, 0 (safe) to 10; the vendor's influxdb.service comes with 9.2."""
    answer = pi.sudo(f"systemd-analyze security --no-pager {unit}.service", check=False)
    (line,) = [line for line in answer.splitlines() if "Overall exposure level" in line]
    assert float(line.split(":")[1].split()[0]) <= 2.0, line


def test_only_grafana_and_ssh_listen_to_the_network() -> None:
    listening = pi.sudo("ss -Hltn").splitlines()
    ports = {line.split()[3] for line in listening}
    outside = {port.rsplit(":", 1)[1] for port in ports if not port.startswith(("127.", "[::1]"))}
    assert outside <= {"22", "3000"}, listening


# Secrets


def spellings() -> Iterator[tuple[str, str]]:
    for name in SECRETS:
        yield name, pi.secret(name)
    yield "the host key", pi.secret("ssh_host_ed25519_key").splitlines()[1]
    yield "the collector's token", collector_token()


@pytest.mark.parametrize(
    ("where", "command"),
    [
        (
            "units",
            "cat /etc/systemd/system/*.service /etc/systemd/system/*/*.conf /usr/lib/systemd/system/*.service; systemctl show '*'",
        ),
        ("process lists", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"),
        ("journal", "journalctl --no-pager -o export"),
        (
            "configuration that everybody reads",
            "find /etc /opt -type f -perm -o=r -size -1000k -exec cat {} +",
        ),
    ],
)
def test_no_secret_shows(where: str, command: str) -> None:
    shown = pi.sudo(command, check=False, timeout_s=180)
    assert len(shown) > 1000, f"nothing to search in: {where}"
    for name, value in spellings():
        assert value not in shown, f"{name} in {where}"
        assert base64.b64encode(value.encode()).decode().rstrip("=")[:-1] not in shown, (
            f"{name}, base64, in {where}"
        )


def test_no_secret_in_the_output_of_tasks() -> None:
    shown = (pi.STATE / "ansible.log").read_text(encoding="utf-8")
    assert "PLAY RECAP" in shown
    for name, value in spellings():
        assert value not in shown, name


def test_secrets_stay_private_on_the_laptop() -> None:
    assert oct(pi.SECRETS.stat().st_mode)[-3:] == "700"
    assert {oct(path.stat().st_mode)[-3:] for path in pi.SECRETS.iterdir()} == {"600"}


# The data


def test_all_devices_have_fresh_points(series: dict[str, dict[str, str]]) -> None:
    assert series
    assert report.missing_devices(report.values()) == []


def test_every_point_is_in_the_contract_with_its_type(series: dict[str, dict[str, str]]) -> None:
    kinds = {float: "float", int: "integer"}
    for name, fields in series.items():
        allowed = contract.measurement(name).fields
        assert {field: kinds[allowed[field].type] for field in fields} == fields, name


def test_every_measurement_of_the_contract_is_there(series: dict[str, dict[str, str]]) -> None:
    legacy = {device["legacy_measurement"] for device in report.devices() if "legacy_measurement" in device}
    # outback_system comes every 10 minutes, the first time with the first reading.
    assert set(series) == set(contract.MEASUREMENTS) | legacy


def test_all_inverters_are_read() -> None:
    (one,) = pi.influxql("SELECT last(inverters_read), inverters_expected FROM collector_status")
    assert one["values"][0][1:] == [3, 3]


def test_points_come_once_an_interval() -> None:
    (one,) = pi.influxql("SELECT cycle_ms FROM collector_status ORDER BY time DESC LIMIT 3")
    times = [value[0] for value in one["values"]]
    assert all(at % 15 == 0 for at in times)
    assert time.time() - times[0] < 40


# The clock


def test_the_times_are_vouched_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The room's MATE3s serves the host's time, and the virtual Pi has the host's clock: they agree."""
    with capsys.disabled():
        print(f"clock_source {report.clock()} ", end="")
    (one,) = pi.influxql(
        "SELECT count(points) FROM collector_status WHERE clock_source < 1 OR clock_source > 2"
    ) or [{"values": [[0, 0]]}]
    assert one["values"][0][1] == 0
    latest = json.loads(pi.sudo("cat /run/power-collector/latest.json"))
    assert abs(latest["clock"]["offset_s"]) < 5
    assert abs(latest["clock"]["time"] - time.time()) < 40


def test_the_service_can_ask_the_kernel_for_its_clock_and_not_set_it() -> None:
    """In a unit of its own with all that restricts power.service: the state, and the error of an attempt to set it."""
    restrictions = [
        line
        for line in pi.sudo("systemctl cat power.service").splitlines()
        if re.match(
            r"(User|NoNew|Capab|Protect|Private|Proc|Lock|MemoryD|Remove|Restrict[A-Z]|SystemCall)\w*=",
            line,
        )
    ]
    assert len(restrictions) > 20
    code = (
        "import ctypes; from power_collector.clock import Timex; t = Timex();"
        " c = ctypes.CDLL(None, use_errno=True).adjtimex; print(c(ctypes.byref(t)));"
        # The frequency as it is: it would change nothing.
        " t.modes = 2; print(c(ctypes.byref(t)), ctypes.get_errno())"
    )
    options = " ".join(shlex.quote(f"--property={line}") for line in restrictions)
    seen = pi.sudo(
        f"systemd-run --quiet --wait --pipe {options} /opt/power-collector/bin/python -c {shlex.quote(code)}"
    ).split()
    assert seen in (["0", "-1", "1"], ["5", "-1", "1"])  # 5: TIME_ERROR, not synchronised; 1: EPERM


def test_the_known_good_time_is_kept() -> None:
    known = json.loads(pi.sudo("cat /var/lib/power-collector/known-good-time.json"))
    assert re.fullmatch(r"[0-9a-f-]{36}", known["boot_id"])  # of an earlier boot, if that was within the hour
    assert -5 < time.time() - known["time"] < 2 * 3600


# Day and night, and the monitor itself


def test_each_device_has_its_day() -> None:
    """Its time is the midnight that began it, by the room's zone."""
    zone = ZoneInfo("America/Los_Angeles")
    midnights = [
        int(
            (datetime.now(zone) - timedelta(days=days))
            .replace(hour=0, minute=0, second=0, microsecond=0)
            .timestamp()
        )
        for days in (0, 1)  # midnight may have been a moment ago
    ]
    days = {
        one["tags"]["device"]: dict(zip(one["columns"], one["values"][-1], strict=True))
        for one in pi.influxql("SELECT * FROM daily_energy GROUP BY device")
    }
    assert set(days) == {device["name"] for device in report.devices()}
    for name, day in days.items():
        assert day["time"] in midnights
        fields = ("load_kwh", "generator_kwh", "grid_kwh") if name == "mate3s" else ("solar_kwh",)
        assert all(day[field] >= 0 for field in fields)


def room_totals() -> set[str]:
    """Fields of the newest point."""
    (now,) = pi.influxql("SELECT * FROM power_room_totals ORDER BY time DESC LIMIT 1")
    return {name for name, value in zip(now["columns"], now["values"][0], strict=True) if value is not None}


def test_the_room_as_a_whole_is_told() -> None:
    wanted = {
        "battery_power_kw",
        "generator_power_kw",
        "grid_power_kw",
        "solar_today_kwh",
        "load_today_kwh",
        "generator_today_kwh",
        "grid_today_kwh",
        # They lie between two readings.
        "battery_in_today_kwh",
        "battery_out_today_kwh",
    }
    wait_for("all totals", lambda: room_totals() >= wanted, 60)


def test_what_is_expected_of_chargers_follows_the_sun_and_of_inverters_always() -> None:
    expected = {
        one["tags"]["device"]: one["values"][0][1]
        for one in pi.influxql("SELECT last(expected) FROM device_status GROUP BY device")
    }
    assert expected.pop("mate3s") == 1
    sun = Sun(SiteConfig(latitude=35.0, longitude=-119.0, timezone="America/Los_Angeles"))
    now = time.time()
    # Of a cycle a moment ago.
    assert set(expected.values()) <= {int(sun.works(now)), int(sun.works(now - 60))}
    assert len(expected) == len(report.devices()) - 1


def test_the_monitor_watches_itself() -> None:
    """In this virtual Pi it sees the host's values."""
    (now,) = pi.influxql("SELECT * FROM host ORDER BY time DESC LIMIT 1")
    values = dict(zip(now["columns"], now["values"][0], strict=True))
    assert time.time() - values["time"] < 120
    assert 0 < values["memory_available_mb"] <= values["memory_total_mb"]
    assert 0 < values["disk_free_gb"] <= values["disk_total_gb"]
    assert values["uptime_s"] > 0


def test_the_day_is_kept_over_a_restart() -> None:
    kept = json.loads(pi.sudo("cat /var/lib/power-collector/day.json"))
    assert set(kept["energy"]["devices"]) == {device["name"] for device in report.devices()}


# The probe


def test_the_probe_finds_all_devices_within_ten_seconds() -> None:
    said, _, found = pi.sudo(f"{report.PROBE} --format json 2>&1").partition("[")
    seconds = re.search(r"254 hosts in ([0-9.]+) s", said)
    assert seconds is not None, said
    assert float(seconds[1]) < 10, said
    assert "a collector runs here and reads 7 of these addresses" in said
    keys = ("driver", "host", "port")
    expected = [tuple(device[key] for key in keys) for device in report.devices()]
    assert [tuple(one[key] for key in keys) for one in json.loads("[" + found)] == expected


# Who gets in


def test_database_listens_on_loopback_alone() -> None:
    listening = pi.sudo("ss -Hltn 'sport = :8086'").split()
    assert "127.0.0.1:8086" in listening
    assert not any(
        place.startswith(("0.0.0.0", "*", "[::]", "192.168", "172.30")) and place.endswith(":8086")
        for place in listening
    )


def test_nobody_gets_into_the_database_without_credentials() -> None:
    assert (
        status_of(
            "-G http://127.0.0.1:8086/query --data-urlencode db=power --data-urlencode 'q=SHOW MEASUREMENTS'"
        )
        == "401"
    )
    assert (
        status_of("--data-binary 'x f=1' 'http://127.0.0.1:8086/api/v2/write?org=Parks%20Ranch&bucket=power'")
        == "401"
    )
    assert status_of("http://127.0.0.1:8086/api/v2/buckets") == "401"


def test_nobody_reads_the_databases_insides() -> None:
    assert status_of("http://127.0.0.1:8086/metrics") in ("403", "404")
    assert status_of("http://127.0.0.1:8086/debug/pprof/") in ("403", "404")


def test_the_collectors_token_cannot_read() -> None:
    shown = pi.sudo(
        "curl -sS -G http://127.0.0.1:8086/query --data-urlencode db=power --data-urlencode 'q=SELECT * FROM mate3s LIMIT 1' -K - "
        f"<<'EOF'\nheader = \"Authorization: Token {collector_token()}\"\nEOF"
    )
    assert "Battery Voltage" not in shown


def test_the_collectors_token_writes_to_one_bucket_alone() -> None:
    header = f'header = "Authorization: Token {collector_token()}"'
    write = "--data-binary '' 'http://127.0.0.1:8086/api/v2/write?org=Parks%20Ranch&bucket={}'"
    assert status_of(write.format("power"), config=header) == "204"
    assert status_of(write.format("_monitoring"), config=header) in ("401", "403", "404")


def test_grafanas_user_cannot_write() -> None:
    login = f'user = "grafana:{pi.secret("influxdb_grafana_password")}"'
    for url in (
        "'http://127.0.0.1:8086/write?db=power'",
        "'http://127.0.0.1:8086/api/v2/write?org=Parks%20Ranch&bucket=power'",
    ):
        assert status_of(f"--data-binary 'intruder f=1' {url}", config=login) in ("401", "403", "404")
    assert pi.influxql("SELECT * FROM intruder") == []


def test_viewers_see_and_cannot_change() -> None:
    assert pi.grafana("/api/org").status == 200
    dashboard = pi.grafana(f"/api/dashboards/uid/{DASHBOARD}")
    assert dashboard.status == 200
    assert (
        pi.grafana(
            "/api/dashboards/db", method="POST", body={"dashboard": dashboard.json()["dashboard"]}
        ).status
        == 403
    )
    takeover = {"password": "a-password-of-mine"}
    assert pi.grafana("/api/admin/users/1/password", method="PUT", body=takeover).status in (401, 403)
    assert pi.grafana("/api/org", login=("admin", "admin")).status == 401


def test_the_owner_logs_in() -> None:
    assert (
        pi.grafana("/api/user", login=("admin", pi.secret("grafana_admin_password"))).json()["login"]
        == "admin"
    )


@pytest.mark.parametrize(
    "path",
    [
        "api/v2/buckets",
        "api/v2/authorizations",
        "api/v2/orgs",
        "api/v2/users",
        "metrics",
        "debug/pprof/",
        "private/legacy/authorizations",
    ],
)
def test_viewers_get_nothing_but_readings_through_the_data_source(path: str) -> None:
    answer = pi.grafana(f"/api/datasources/proxy/uid/influxdb/{path}")
    assert answer.status >= 400, answer.body[:300]


def test_viewers_cannot_write_through_the_data_source() -> None:
    for path in ("write?db=power", "api/v2/write?org=Parks%20Ranch&bucket=power"):
        assert (
            pi.grafana(
                f"/api/datasources/proxy/uid/influxdb/{path}", method="POST", body="intruder f=1"
            ).status
            >= 400
        )
    drop = pi.grafana(
        "/api/datasources/proxy/uid/influxdb/query?db=power&q=DROP%20MEASUREMENT%20mate3s", method="POST"
    )
    assert drop.status >= 400 or "error" in drop.json()["results"][0]
    assert pi.influxql('SELECT last("Battery Voltage") FROM mate3s')


def test_viewers_see_one_database() -> None:
    answer = pi.grafana("/api/datasources/proxy/uid/influxdb/query?q=SHOW%20DATABASES")
    assert list(answer.json()["results"][0]["series"][0]["values"]) == [["power"]]


# The dashboards


def queries() -> Iterator[tuple[str, str]]:
    for uid in DASHBOARDS:
        for panel in pi.grafana(f"/api/dashboards/uid/{uid}").json()["dashboard"]["panels"]:
            for target in panel.get("targets", []):
                yield f"{uid}: {panel['title']}", target["query"]


def must_bring_a_value(query: str) -> bool:
    """Say whether a room that has run for minutes has it: not alarms, a night, a backup, a Raspberry Pi's supply."""
    found = re.match(r'SELECT (?:last|mean)\("(\w+)"\)(?: / \d+)? FROM "(\w+)"', query)
    return found is not None and found[2] != "host" and found[1] != "battery_voltage_night_min"


def test_each_query_of_each_dashboard_is_answered_through_the_data_source() -> None:
    asked = list(queries())
    assert len(asked) >= 80
    assert sum(must_bring_a_value(query) for _, query in asked) >= 40
    now = int(time.time())
    for title, query in asked:
        body = {
            "from": str((now - 3600) * 1000),
            "to": str(now * 1000),
            "queries": [
                {
                    "refId": "A",
                    "datasource": {"type": "influxdb", "uid": "influxdb"},
                    "query": query,
                    "rawQuery": True,
                    "resultFormat": "time_series",
                    "intervalMs": 15000,
                    "maxDataPoints": 500,
                }
            ],
        }
        answer = pi.grafana("/api/ds/query", method="POST", body=body)
        assert answer.status == 200, (title, query, answer.body)
        frames = answer.json()["results"]["A"]["frames"] or []
        values = [value for frame in frames for value in frame["data"]["values"][-1] if value is not None]
        assert values or not must_bring_a_value(query), (title, query)


def test_the_alarms_are_provisioned_in_a_folder_of_their_own() -> None:
    rules = pi.sudo("cat /etc/grafana/provisioning/alerting/alarms.yaml")
    assert rules.count("- uid: power_") == 14
    assert "Alarms" in {folder["title"] for folder in pi.grafana("/api/folders").json()}


def test_home_is_the_dashboard() -> None:
    home = pi.grafana("/api/dashboards/home").json()
    assert home["dashboard"]["uid"] == DASHBOARD
