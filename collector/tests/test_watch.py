"""The live table: what it shows of a cycle, its history, and the picture."""

from __future__ import annotations

import copy
import io
import json
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from power_collector import latest, watch

NOW = 1_764_000_000


def cycle(time=NOW, *, power_kw=3.2, read=5, clock=None, up=True):
    table = {
        "time": time,
        "interval_s": 15,
        "devices": [
            {
                "name": name, "driver": "tristar-mppt", "address": f"{name}:502", "up": is_up,
                "failures": 0, "age_s": age_s, "response_ms": 21.4 if is_up else None,
                "error": None if is_up else "no connection",
            }
            for name, is_up, age_s in (("sc1", True, 0), ("sc2", up, 0 if up else 63), ("sc3", False, None))
        ],
        "counters": {"stored_points": 7, "dropped_points": 2, "rejected_points": 1},
        "points": [
            {"measurement": "solar_charger_partial", "tags": {}, "time": time,
             "fields": {"power_kw": power_kw, "read": read, "expected": 6}},
            {"measurement": "collector_status", "tags": {}, "time": time,
             "fields": {"inverters_read": 3, "inverters_expected": 3, "clock_source": 3}},
        ],
    }  # fmt: skip
    return table | {
        "clock": {"source": 3, "time": time, "system_time": time, "offset_s": None} | (clock or {})
    }


@pytest.fixture
def drawn(tmp_path):
    """Draw the cycles one after the other; return the last picture's lines."""

    def drawn(*cycles, now=NOW + 4, lost=False) -> list[str]:
        screen = watch.Screen(tmp_path)
        for one in cycles:
            (tmp_path / latest.NAME).write_text(json.dumps(one))
            screen.look()
        if lost:
            (tmp_path / latest.NAME).unlink()
            with pytest.raises(latest.NoCycleError):
                screen.look()
        console = Console(file=io.StringIO(), width=120)
        console.print(screen.view(now))
        return console.file.getvalue().splitlines()

    return drawn


def line(lines: list[str], word: str) -> str:
    (found,) = [one for one in lines if word in one]
    return found


def test_devices_with_state_and_age(drawn):
    lines = drawn(cycle(up=False))
    assert "up" in line(lines, "sc1")
    assert "4 s ago" in line(lines, "sc1")
    assert "down" in line(lines, "sc2")
    assert "67 s ago" in line(lines, "sc2")
    assert "no connection" in line(lines, "sc2")
    assert "never" in line(lines, "sc3")


def test_totals_and_points(drawn):
    lines = drawn(cycle())
    assert line(lines, "chargers 5 of 6") == "devices 2 of 3, chargers 5 of 6, inverters 3 of 3"
    assert line(lines, "points").startswith("2 points 4 s ago; 7 wait or are stored, 2 dropped, 1 rejected")


def test_a_collector_that_stopped_is_told(drawn):
    assert "does not run" not in "\n".join(drawn(cycle(), now=NOW + 50))
    assert "the collector does not run" in "\n".join(drawn(cycle(), now=NOW + 51))


def test_the_history_is_of_cycles_and_not_of_looks(drawn):
    values = [(NOW, 1.0), (NOW, 1.0), (NOW + 15, 8.0), (NOW + 30, 4.5)]
    curve = line(drawn(*(cycle(time, power_kw=power) for time, power in values)), "kW ")
    assert "4.50 kW" in curve
    assert " ▁█▄ " in curve or " ▁█▅ " in curve
    assert "1.00 to 8.00 kW" in curve


def test_the_last_table_stays_while_the_service_is_restarted(drawn):
    assert "sc1" in "\n".join(drawn(cycle(), lost=True))


def test_a_gap_in_the_history_stays_one(drawn):
    without = copy.deepcopy(cycle(NOW + 15))
    without["points"] = []
    lines = drawn(cycle(NOW), without, cycle(NOW + 30))
    assert " ▁ ▁ " in line(lines, "kW ")


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([5.0], "▁"), ([1, None, 2], "▁ █"), ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"), ([None], " ")],
)
def test_sparkline(values, bars):
    assert watch.sparkline(values) == bars


CLOCKS = [
    (None, "clock: unverified"),
    ({"source": 1}, "clock: synchronised"),
    ({"source": 0, "time": None, "system_time": NOW, "offset_s": None}, "clock: none yet"),
    ({"source": 2, "time": NOW, "system_time": NOW, "offset_s": -90.4}, "the MATE3s's is 90 s behind"),
    ({"source": 1, "time": NOW, "system_time": NOW, "offset_s": 3.0}, "the MATE3s's is 3 s ahead"),
    ({"source": 9}, "clock: 9"),
]


@pytest.mark.parametrize(("clock", "words"), CLOCKS)
def test_the_clock_and_its_source(drawn, clock, words):
    assert words in line(drawn(cycle(clock=clock)), "clock: ")


def test_the_age_goes_by_the_machines_clock(drawn):
    """The points' time may be the MATE3s's, years away from the machine's."""
    lines = drawn(cycle(clock={"source": 2, "system_time": NOW - 1e8}), now=NOW - 1e8 + 3)
    assert "2 points 3 s ago" in line(lines, "points")


def test_the_picture_is_svg_that_loads_nothing(tmp_path, capsys):
    (tmp_path / latest.NAME).write_text(json.dumps(cycle()))
    watch.show(tmp_path, svg=tmp_path / "watch.svg")
    text = (tmp_path / "watch.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    assert "sc1" in "".join(root.itertext())
    assert "url(http" not in text.replace('"', "")
    assert "sc1" in capsys.readouterr().out


# Which addresses a running collector reads


def test_the_addresses_of_a_running_collector(tmp_path):
    assert latest.addresses(tmp_path, NOW) == set()
    (tmp_path / latest.NAME).write_text(json.dumps(cycle()))
    assert latest.addresses(tmp_path, NOW + 20) == {"sc1:502", "sc2:502", "sc3:502"}
    assert latest.addresses(tmp_path, NOW + 3600) == set()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"points": 1}', '{"points": [], "time": "x", "devices": 3}']
)
def test_a_file_that_is_none_of_ours_names_no_address(tmp_path, text):
    (tmp_path / latest.NAME).write_text(text)
    assert latest.addresses(tmp_path, NOW) == set()
