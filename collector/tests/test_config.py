"""The configuration file: what is accepted, and what is said of what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_collector.config import ConfigError, load, parse

PATH = Path("power.toml")

OUTBACK = """
[[devices]]
name = "mate3s"
driver = "outback"
host = "192.168.1.100"
port = 1025
inverters = 3
"""

CHARGER = """
[[devices]]
name = "sc1"
driver = "tristar-mppt-600v"
host = "192.168.1.101"
legacy_measurement = "solar_charger_1"
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, PATH)
    return caught.value.faults


def test_defaults_are_those_of_the_documentation() -> None:
    config = parse(CHARGER, PATH)
    (device,) = config.devices
    assert (config.interval_s, device.port, device.timeout_s, device.float16) == (15, 502, 2.0, False)
    assert config.influxdb is None
    assert (config.store.path, config.store.max_mb, config.store.max_age_days) == (
        Path("/var/lib/power-collector/store.sqlite"),
        256,
        30,
    )


def test_a_whole_file_is_taken_as_it_stands() -> None:
    config = parse(
        """
        interval_s = 5
        [influxdb]
        url = "http://localhost:8086"
        org = "Parks Ranch"
        bucket = "power"
        token_file = "/etc/power-collector/influxdb.token"
        """
        + OUTBACK
        + CHARGER,
        PATH,
    )
    assert config.influxdb is not None
    assert config.influxdb.token_file == Path("/etc/power-collector/influxdb.token")
    assert [device.name for device in config.chargers] == ["sc1"]
    assert config.devices[0].inverters == 3


def test_site_and_host_are_told_or_left_out() -> None:
    without = parse(CHARGER, PATH)
    assert (without.site, without.host) == (None, None)
    told = parse(
        '[site]\nlatitude = 35\nlongitude = -119.5\ntimezone = "America/Los_Angeles"\n[host]\n' + CHARGER,
        PATH,
    )
    assert told.site is not None
    assert (told.site.latitude, told.site.longitude) == (35.0, -119.5)
    assert told.host is not None
    assert told.host.last_backup == Path("/var/lib/power-monitor/last_backup")


SITE = '[site]\nlatitude = 35.0\nlongitude = -119.0\ntimezone = "America/Los_Angeles"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "devices"),
        ("devices = []", "devices"),
        ("interval_s = 0\n" + CHARGER, "interval_s"),
        ("interval_s = 0.5\n" + CHARGER, "interval_s"),
        ("intervall_s = 15\n" + CHARGER, "intervall_s"),
        (SITE.replace("35.0", "95.0") + CHARGER, "site.latitude"),
        (SITE.replace("-119.0", "-190.0") + CHARGER, "site.longitude"),
        (SITE.replace("Angeles", "Angels") + CHARGER, "site.timezone"),
        (SITE.replace("America/Los_Angeles", "") + CHARGER, "site.timezone"),
        (SITE.replace("America/Los_Angeles", "/etc/localtime") + CHARGER, "site.timezone"),
        ("[site]\nlatitude = 35.0\n" + CHARGER, "site.longitude"),
        ("[host]\ndisk = 3\n" + CHARGER, "host.disk"),
        (CHARGER.replace("sc1", "s c 1"), "devices[1].name"),
        (CHARGER.replace("192.168.1.101", "192.168.1.999"), "devices[1].host"),
        (CHARGER.replace("192.168.1.101", "192.168.1"), "devices[1].host"),
        (CHARGER.replace("192.168.1.101", "-bad-.example"), "devices[1].host"),
        (CHARGER + "port = 0", "devices[1].port"),
        (CHARGER + "port = 70000", "devices[1].port"),
        (CHARGER + 'port = "1025"', "devices[1].port"),
        (CHARGER + "timeout_s = 0", "devices[1].timeout_s"),
        (CHARGER + "timeout_s = 15", "timeout_s of sc1"),
        ("interval_s = 2\n" + CHARGER, "timeout_s of sc1"),
        (CHARGER.replace("tristar-mppt-600v", "tristar"), "devices[1].driver"),
        (CHARGER.replace("solar_charger_1", "mate3s"), "devices[1].legacy_measurement"),
        (CHARGER + "inverters = 3", "inverters"),
        (OUTBACK.replace("inverters = 3", ""), "inverters"),
        (OUTBACK + "float16 = true", "float16"),
        (OUTBACK + 'legacy_measurement = "solar_charger_1"', "legacy_measurement"),
        (
            CHARGER + CHARGER.replace("sc1", "sc2").replace(".101", ".102"),
            "legacy_measurement 'solar_charger_1'",
        ),
        (CHARGER + CHARGER.replace("sc1", "sc2").replace("_1", "_2"), "address '192.168.1.101:502'"),
        (CHARGER + CHARGER.replace(".101", ".102").replace("_1", "_2"), "name 'sc1'"),
        (OUTBACK + OUTBACK.replace("mate3s", "axs").replace(".100", ".99"), "more than one outback"),
        (
            "[influxdb]\nurl = 'localhost:8086'\norg='o'\nbucket='b'\ntoken_file='t'\n" + CHARGER,
            "influxdb.url",
        ),
        ("[influxdb]\nurl = 'http://localhost:8086'\n" + CHARGER, "influxdb.token_file"),
        ("[influxdb]\nurl = 8086\n" + CHARGER, "influxdb.url"),
        ("[store]\nmax_mb = 0\n" + CHARGER, "store.max_mb"),
        ("= nonsense", "not TOML"),
    ],
)
def test_a_fault_is_named_with_its_place(text: str, place: str) -> None:
    assert any(place in fault for fault in faults(text)), faults(text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8086",
        "ftp://localhost:8086",
        "http://",
        "http://:8086",
        "http://localhost:",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost:port",
        "http://[::1",
        "http://[::1:8086",
        "http://[nonsense]:8086",
        "http://a..b:8086",
        "http://-a:8086",
        "http://192.168.1.300:8086",
        "http://local host:8086",
        "http://local\thost:8086",
        "http://localhöst:8086",
        "http://name:password@localhost:8086",
        "http://localhost:8086/api",
        "http://localhost:8086/?org=o",
        "http://localhost:8086#here",
        "http://localhost:8086\\api",
    ],
)
def test_a_url_that_leads_nowhere_is_refused_with_its_place_and_a_remedy(url: str) -> None:
    text = f"[influxdb]\nurl = {json.dumps(url)}\norg='o'\nbucket='b'\ntoken_file='t'\n"
    (fault,) = faults(text + CHARGER)
    assert fault.startswith(f"influxdb.url: {url!r}: ")
    assert fault.endswith("; write it like http://localhost:8086")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8086",
        "https://influx.example.org",
        "http://192.168.1.109:8086/",
        "http://[::1]:8086",
        "HTTP://Power:1",
    ],
)
def test_a_url_of_scheme_host_and_port_is_taken(url: str) -> None:
    config = parse(f"[influxdb]\nurl='{url}'\norg='o'\nbucket='b'\ntoken_file='t'\n{CHARGER}", PATH)
    assert config.influxdb is not None
    assert config.influxdb.url == url


def test_every_fault_is_named_not_only_the_first() -> None:
    found = faults("interval_s = 0\n" + CHARGER + "port = 0\nfloat17 = true\n")
    assert len(found) == 3
    assert all(any(key in fault for fault in found) for key in ("interval_s", "port", "float17"))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "binary.toml")


@given(st.text())
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    try:
        outcome: object = parse(text, PATH)
    except ConfigError as error:
        outcome = error.faults
    assert outcome
