"""The alarms: their table, the rules that Grafana gets, and what the first line of the screen says, for days that provoke them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from power_collector.contract import Point

from .influxql import Database, database
from .provisioned import RANCH, WORDS, Json, Provisioned, panels, provision, run_playbook
from .room import Change, Room, of_device, with_values

UIDS = [
    "power_battery_very_low", "power_battery_very_high", "power_inverter_fault", "power_charger_fault",
    "power_battery_low", "power_battery_high", "power_device_silent", "power_inverters_missing",
    "power_no_fresh_data", "power_undervoltage", "power_disk_nearly_full", "power_points_dropped",
    "power_backlog_growing", "power_clock_unverified",
]  # fmt: skip
"""Grafana knows a rule by it; one that is taken out of the table goes to `removed` there."""
WELL = "All is well"
NOTICES = [
    "$tag_device does not answer at the moment: wait ten minutes",
    "An inverter does not answer at the moment: wait ten minutes",
]
"""What the screen alone says, below all alarms."""


def rising(field: str, a_minute: int) -> Change:
    """Let a counter of the collector rise."""

    def change(one: Point) -> Point:
        if one.measurement != "collector_status":
            return one
        return replace(one, fields={**one.fields, field: one.time // 60 % 1000 * a_minute})

    return change


def once(seconds_ago: int, now: int, **values: float) -> Change:
    """Put values into the room's totals of one cycle."""

    def change(one: Point) -> Point:
        mine = one.measurement == "power_room_totals" and one.time == now - seconds_ago
        return replace(one, fields={**one.fields, **values}) if mine else one

    return change


def ending(seconds_ago: int, now: int, inner: Change = lambda one: one) -> Change:
    """Let the data end."""
    return lambda one: inner(one) if one.time <= now - seconds_ago else None


def after_a_pause(seconds: int, now: int, inner: Change) -> Change:
    """Let the data stop for twenty minutes and more, and come again for so many seconds."""
    return lambda one: inner(one) if one.time > now - seconds else None


def silent(device: str) -> Change:
    """Let a device fall silent of which readings are expected."""

    def change(one: Point) -> Point:
        mine = one.measurement == "device_status" and one.tags["device"] == device
        return replace(one, fields={**one.fields, "up": 0, "expected": 1}) if mine else one

    return change


def very_low_where_read(one: Point) -> Point:
    """Let the battery be very low as long as somebody reads it."""
    read = one.measurement == "power_room_totals" and "battery_voltage" in one.fields
    return replace(one, fields={**one.fields, "battery_voltage": 45.0}) if read else one


def waiting(points: Callable[[int], int | None], now: int) -> Change:
    """Let so many points wait so many seconds ago; None: that cycle has not arrived."""

    def change(one: Point) -> Point | None:
        if one.measurement != "collector_status":
            return one
        count = points(now - one.time)
        return None if count is None else replace(one, fields={**one.fields, "stored_points": count})

    return change


class Stories:
    """Days of one database, each two hours after the other, since no query has an upper bound in time."""

    def __init__(self, into: Database) -> None:
        self._into = into
        self._begin = Room([]).now - 5 * 86400
        self._count = 0

    def now(self) -> int:
        return self._begin + self._count * 7200

    def tell(self, change: Change | None = None, **room: Any) -> Database:
        """Write half an hour and give the database as it is at its end."""
        told = Room(
            RANCH["power_room_devices"], RANCH["power_room_inverters"], now=self.now(), change=change, **room
        )
        self._into.write(told.points(hours=0.5, days=0))
        self._into.now = told.now
        self._count += 1
        return self._into


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    with database(tmp_path_factory.mktemp("stories"), 0) as made:
        yield Stories(made)


def line(ranch: Provisioned, at: Database) -> str:
    """What the first line of the screen says."""
    panel = panels(ranch.dashboards["power_room"])[0]
    for target in panel["targets"]:
        if series := at.ask(target["query"]):
            return str(target["alias"]).replace("$tag_device", series[0].get("tags", {}).get("device", ""))
    return str(panel["fieldConfig"]["defaults"]["noValue"])


def colour(ranch: Provisioned, said: str) -> str:
    """The name of the first line's colour when it says so."""
    defaults = panels(ranch.dashboards["power_room"])[0]["fieldConfig"]["defaults"]
    found = [
        mapping["options"]["result"]["color"]
        for mapping in defaults["mappings"]
        if re.fullmatch(mapping["options"]["pattern"].strip("/"), said)
    ]
    shown = found[0] if found else defaults["thresholds"]["steps"][0]["color"]
    return next(name for name, value in WORDS["colours"].items() if value == shown)


def firing(ranch: Provisioned, at: Database) -> list[str]:
    """Which rules are over their threshold, as Grafana would evaluate them."""
    found = []
    for rule in ranch.rules:
        query, reduce, threshold = rule["data"]
        assert reduce["model"]["reducer"] == "last"
        (condition,) = threshold["model"]["conditions"]
        (limit,) = condition["evaluator"]["params"]
        below = condition["evaluator"]["type"] == "lt"
        values = [one["values"][-1][1] for one in at.ask(query["model"]["query"])]
        if any(value < limit if below else value > limit for value in values) or (
            not values and rule["noDataState"] == "Alerting"
        ):
            found.append(rule["uid"])
    return found


def test_the_table_is_complete_and_its_uids_are_kept(ranch: Provisioned) -> None:
    assert [rule["uid"] for rule in ranch.rules] == UIDS
    severities = [rule["labels"]["severity"] for rule in ranch.rules]
    assert severities == sorted(severities, key=["critical", "warning"].index)


def test_screen_and_rules_are_made_from_the_same_table(ranch: Provisioned) -> None:
    panel = panels(ranch.dashboards["power_room"])[0]
    told = {
        rule["annotations"]["summary"].replace("{{ $labels.device }}", "$tag_device"): rule
        for rule in ranch.rules
    }
    absent = panel["fieldConfig"]["defaults"]["noValue"]
    alarms = [text for text in told if text != absent]
    assert [t["alias"] for t in panel["targets"]] == [absent, *alarms, *NOTICES, WELL]
    for target in panel["targets"][: len(told)]:
        assert f"({told[target['alias']]['data'][0]['model']['query']})" in target["query"]
    assert told[absent]["noDataState"] == "Alerting"
    # what hides the others when nothing is new looks as far back as any of them
    furthest = [max(re.findall(r"now\(\) - (\d+)h", t["query"]), default="0") for t in panel["targets"]]
    assert furthest[0] == max(furthest) != "0"


def test_a_good_day_is_well(ranch: Provisioned, day: Database) -> None:
    assert firing(ranch, day) == []
    assert line(ranch, day) == WELL
    assert colour(ranch, WELL) == "good"


ENOUGH = {
    "power_battery_very_low": (with_values("power_room_totals", battery_voltage=45.0), "Battery very low"),
    "power_battery_very_high": (
        with_values("power_room_totals", battery_voltage=64.0),
        "Battery voltage very high",
    ),
    "power_inverter_fault": (with_values("inverter", errors=4), "Inverter fault"),
    "power_charger_fault": (of_device("sc3", faults=2), "sc3 has a fault"),
    "power_battery_low": (with_values("power_room_totals", battery_voltage=47.5), "Battery low"),
    "power_battery_high": (with_values("power_room_totals", battery_voltage=61.0), "Battery voltage high"),
    "power_inverters_missing": (with_values("collector_status", inverters_read=2), "An inverter is missing"),
    "power_undervoltage": (with_values("host", undervoltage=1), "The Pi's supply"),
    "power_disk_nearly_full": (with_values("host", disk_free_gb=2.0), "The Pi's card"),
    "power_points_dropped": (rising("dropped_points", 3), "Readings were lost"),
    "power_backlog_growing": (rising("stored_points", 200), "Readings wait"),
    "power_clock_unverified": (with_values("collector_status", clock_source=3), "The clock"),
}
WITH_IT = {
    "power_battery_very_low": ["power_battery_low"],
    "power_battery_very_high": ["power_battery_high"],
}  # fmt: skip


@pytest.mark.parametrize("uid", ENOUGH)
def test_an_alarm_comes_by_what_provokes_it(uid: str, ranch: Provisioned, stories: Stories) -> None:
    change, said = ENOUGH[uid]
    at = stories.tell(change)
    assert firing(ranch, at) == [uid, *WITH_IT.get(uid, [])]
    assert line(ranch, at).startswith(said)
    severity = next(rule["labels"]["severity"] for rule in ranch.rules if rule["uid"] == uid)
    assert colour(ranch, line(ranch, at)) == severity


def test_a_silent_charger_is_told_by_day(ranch: Provisioned, stories: Stories) -> None:
    at = stories.tell(silent=frozenset({"sc3"}), hour=12)
    assert firing(ranch, at) == ["power_device_silent"]
    assert line(ranch, at).startswith("sc3 does not answer")


def test_at_night_nothing_is_expected_of_a_charger(ranch: Provisioned, stories: Stories) -> None:
    at = stories.tell(silent=frozenset({"sc3"}), hour=0)
    assert firing(ranch, at) == []
    assert line(ranch, at) == WELL


def test_the_mate3s_is_always_expected(ranch: Provisioned, stories: Stories) -> None:
    at = stories.tell(silent=frozenset({"mate3s"}), hour=0)
    assert firing(ranch, at) == ["power_device_silent", "power_inverters_missing"]
    assert line(ranch, at).startswith("mate3s does not answer")


@pytest.mark.parametrize("seconds", [150, 1200])
def test_without_fresh_data_nothing_is_said_of_old_ones(
    seconds: int, ranch: Provisioned, stories: Stories
) -> None:
    lost = rising("dropped_points", 3)
    at = stories.tell(ending(seconds, stories.now(), lambda one: very_low_where_read(lost(one) or one)))
    # rules look as far back as they need to
    assert {"power_no_fresh_data", "power_points_dropped"} <= set(firing(ranch, at))
    assert line(ranch, at).startswith("No readings for 2 minutes")
    assert colour(ranch, line(ranch, at)) == "none"


@pytest.mark.parametrize("seconds", [150, 400])
def test_what_is_known_of_the_battery_outlasts_the_mate3s(
    seconds: int, ranch: Provisioned, stories: Stories
) -> None:
    """The wall and the message say the same as long as the collector is there."""
    silence = {"silent": frozenset({"mate3s"}), "silent_s": seconds}
    at = stories.tell(very_low_where_read, **silence)
    assert firing(ranch, at) == ["power_battery_very_low", "power_battery_low"]
    assert line(ranch, at).startswith("Battery very low")
    at = stories.tell(**silence)
    assert firing(ranch, at) == []
    assert line(ranch, at) == "mate3s does not answer at the moment: wait ten minutes"
    assert colour(ranch, line(ranch, at)) == "warning"


@pytest.mark.parametrize(
    ("seconds", "hour", "said"),
    [(105, 12, WELL), (150, 12, "sc3 does not answer at the moment: wait ten minutes"), (150, 0, WELL)],
)
def test_all_is_well_when_each_expected_device_has_answered_in_two_minutes(
    seconds: int, hour: float, said: str, ranch: Provisioned, stories: Stories
) -> None:
    at = stories.tell(silent=frozenset({"sc3"}), silent_s=seconds, hour=hour)
    assert firing(ranch, at) == []
    assert line(ranch, at) == said


def test_all_is_not_well_without_an_inverter(ranch: Provisioned, stories: Stories) -> None:
    now, missing = stories.now(), with_values("collector_status", inverters_read=2)
    at = stories.tell(lambda one: missing(one) if one.time > now - 150 else one)
    assert firing(ranch, at) == []
    assert line(ranch, at) == "An inverter does not answer at the moment: wait ten minutes"
    assert colour(ranch, line(ranch, at)) == "warning"


OF_TEN_MINUTES = {
    **{
        uid: ENOUGH[uid]
        for uid in (
            "power_battery_low",
            "power_battery_high",
            "power_inverters_missing",
            "power_clock_unverified",
        )
    },
    "power_device_silent": (silent("sc2"), "sc2 does not answer: "),
}


@pytest.mark.parametrize("uid", OF_TEN_MINUTES)
def test_one_reading_after_a_pause_decides_nothing(uid: str, ranch: Provisioned, stories: Stories) -> None:
    change, said = OF_TEN_MINUTES[uid]
    for seconds in (15, 105):
        at = stories.tell(after_a_pause(seconds, stories.now(), change))
        assert firing(ranch, at) == []
        assert not line(ranch, at).startswith(said)
    at = stories.tell(after_a_pause(120, stories.now(), change))
    assert firing(ranch, at) == [uid]
    assert line(ranch, at).startswith(said)


def test_two_minutes_of_readings_are_counted_by_their_interval(tmp_path: Path) -> None:
    made = provision(tmp_path, power_room_interval_s=5)
    asked = {rule["uid"]: rule["data"][0]["model"]["query"] for rule in made.rules}
    assert '"readings" >= 24' in asked["power_battery_low"]


def test_an_outage_that_is_over_is_no_growing_backlog(ranch: Provisioned, stories: Stories) -> None:
    """What waited in it arrives with the numbers of that time, and those rise."""

    def outage(seconds: int) -> int:
        return max(0, (300 - seconds) // 15 * 25)

    for moment in (
        lambda s: 500 if s == 0 else outage(s) if s >= 300 else None,  # the first cycle that is written
        outage,  # and then what waited
        lambda s: 0 if s == 0 else outage(s),  # one cycle later
    ):
        at = stories.tell(waiting(moment, stories.now()))
        assert firing(ranch, at) == []
        assert line(ranch, at) == WELL


def test_a_backlog_grows_when_some_cycles_are_written_and_others_wait(
    ranch: Provisioned, stories: Stories
) -> None:
    at = stories.tell(waiting(lambda s: (1500 - s) // 60 * 25, stories.now()))
    assert firing(ranch, at) == ["power_backlog_growing"]
    at = stories.tell(waiting(lambda s: (1500 - s) // 60 * 15, stories.now()))
    assert firing(ranch, at) == []


def test_one_low_reading_is_no_low_battery_but_a_very_low_one_stays_for_ten_minutes(
    ranch: Provisioned, stories: Stories
) -> None:
    at = stories.tell(once(300, stories.now(), battery_voltage=47.0))
    assert firing(ranch, at) == []
    at = stories.tell(once(585, stories.now(), battery_voltage=45.0))
    assert firing(ranch, at) == ["power_battery_very_low"]
    at = stories.tell(once(615, stories.now(), battery_voltage=45.0))
    assert firing(ranch, at) == []


def test_one_poll_without_an_answer_is_no_alarm(ranch: Provisioned, stories: Stories) -> None:
    now = stories.now()

    def change(one: Point) -> Point:
        mine = one.measurement == "device_status" and one.tags["device"] == "sc2" and one.time >= now - 60
        return replace(one, fields={**one.fields, "up": 0}) if mine else one

    at = stories.tell(change)
    assert firing(ranch, at) == []
    assert line(ranch, at) == WELL


def test_the_worst_alarm_comes_first(ranch: Provisioned, stories: Stories) -> None:
    low, hidden = with_values("power_room_totals", battery_voltage=47.5), with_values("inverter", errors=4)

    def change(one: Point) -> Point:
        changed = low(one)
        assert changed is not None
        return hidden(changed)  # type: ignore[return-value]

    at = stories.tell(change)
    assert firing(ranch, at) == ["power_inverter_fault", "power_battery_low"]
    assert line(ranch, at).startswith("Inverter fault")


def test_a_flag_is_shown_by_its_word(ranch: Provisioned, stories: Stories) -> None:
    at = stories.tell(of_device("sc3", faults=(1 << 2) | (1 << 8) | (1 << 14), alarms=(1 << 17) | (1 << 25)))
    said = []
    panel = next(p for p in panels(ranch.dashboards["power_devices"]) if p["title"] == "Faults and warnings")
    for target in panel["targets"]:
        for one in at.ask(target["query"]):
            columns = [
                name
                for name, value in zip(one["columns"], one["values"][0], strict=True)
                if name != "time" and value
            ]
            tags = one.get("tags", {})
            said += [
                target["alias"].replace("$tag_device", tags.get("device", "")).replace("$col", name)
                for name in columns
            ]
    assert said == [
        "sc3: software", "sc3: battery sensor lost", "sc3: other", "sc3: array voltage high", "sc3: network", "inverters: none",
    ]  # fmt: skip


def test_nothing_in_an_empty_database_is_an_alarm_but_that(ranch: Provisioned, empty: Database) -> None:
    assert firing(ranch, empty) == ["power_no_fresh_data"]
    assert line(ranch, empty).startswith("No readings")


def test_every_line_fits_the_screen(ranch: Provisioned) -> None:
    # 660 pixels for it on the seven-inch screen, in letters of 20 pixels
    for target in panels(ranch.dashboards["power_room"])[0]["targets"]:
        assert len(target["alias"].replace("$tag_device", "charger1")) <= 66


def test_each_alarm_asks_the_family_to_do_something_and_docs_say_it_too(ranch: Provisioned) -> None:
    page = (Path(__file__).parents[2] / "docs/screens.md").read_text()
    for rule in ranch.rules:
        assert len(rule["annotations"]["description"]) > 80
        assert f"**{rule['title']}**" in page


def test_dollars_are_where_grafana_does_not_expand_them(ranch: Provisioned) -> None:
    """It expands titles and labels, and not annotations and queries (tried on 9.3.2)."""
    for rule in ranch.rules:
        assert "$" not in json.dumps([rule["title"], rule["labels"], rule["uid"]])
    assert any("{{ $labels.device }}" in rule["annotations"]["summary"] for rule in ranch.rules)
    assert any(
        '{{ printf "%.1f" $values.B.Value }} V' in rule["annotations"]["description"] for rule in ranch.rules
    )


def test_alarms_have_a_folder_of_their_own(ranch: Provisioned) -> None:
    (group,) = ranch.alarms["groups"]
    assert group["folder"] == "Alarms"
    assert "deleteRules" not in ranch.alarms


def test_a_rule_that_is_taken_out_of_the_table_is_deleted(tmp_path: Path) -> None:
    kept = {
        "uid": "power_kept", "title": "Kept", "severity": "warning", "line": "kept", "ask": "nothing", "absent": True,
        "below": 1, "for": "1m",
        "value": 'SELECT count("points") FROM "collector_status" WHERE time > now() - 2m',
    }  # fmt: skip
    made = provision(tmp_path, __grafana_alarms={"alarms": [kept], "notices": [], "removed": ["power_gone"]})
    assert [rule["uid"] for rule in made.rules] == ["power_kept"]
    assert made.alarms["deleteRules"] == [{"orgId": 1, "uid": "power_gone"}]


def test_thresholds_are_variables(tmp_path: Path) -> None:
    made = provision(
        tmp_path, grafana_battery_low_v=24.0, grafana_battery_very_low_v=23.0, grafana_disk_free_percent=20
    )
    limits = {
        rule["uid"]: rule["data"][2]["model"]["conditions"][0]["evaluator"]["params"] for rule in made.rules
    }
    assert limits["power_battery_low"] == [24.0]
    assert limits["power_battery_very_low"] == [23.0]
    assert limits["power_disk_nearly_full"] == [20]


# Who is told


def test_nobody_is_told_unless_the_owner_says_so(ranch: Provisioned) -> None:
    assert "contactPoints" not in ranch.contacts
    assert ranch.contacts["resetPolicies"] == [1]
    assert len(ranch.contacts["deleteContactPoints"]) == 3


EMAIL = {
    "grafana_alarm_email": "us@example.com",
    "grafana_smtp_host": "mail.example.com:587",
    "grafana_smtp_from": "power@example.com",
}
WEBHOOK = {"grafana_alarm_webhook_url": "https://ntfy.example.com/ranch"}
TELEGRAM = {
    "grafana_alarm_telegram_chat": "-100123456",
    "grafana_alarm_telegram_token": "123456789:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc",
}


def receivers(made: Json) -> dict[str, Json]:
    (point,) = made["contactPoints"]
    assert made["policies"][0]["receiver"] == point["name"]
    return {one["type"]: one["settings"] for one in point["receivers"]}


def test_those_whom_the_owner_names_are_told(tmp_path: Path) -> None:
    made = provision(tmp_path, **EMAIL, **WEBHOOK, **TELEGRAM).contacts
    assert receivers(made) == {
        "email": {"addresses": "us@example.com", "singleEmail": True},
        "webhook": {"url": WEBHOOK["grafana_alarm_webhook_url"], "httpMethod": "POST"},
        "telegram": {
            "chatid": "-100123456",
            "bottoken": f"$__file{{{tmp_path}/secrets/alarm_telegram_token}}",
        },
    }
    assert "deleteContactPoints" not in made
    # Grafana calls an alarm over, too, when its readings end.
    assert all(one["disableResolveMessage"] for one in made["contactPoints"][0]["receivers"])
    assert (
        TELEGRAM["grafana_alarm_telegram_token"]
        not in (tmp_path / "provisioning/alerting/contacts.yaml").read_text()
    )


def test_one_who_is_no_longer_told_is_deleted(tmp_path: Path) -> None:
    made = provision(
        tmp_path, **WEBHOOK, grafana_alarm_webhook_user="ranch", grafana_alarm_webhook_password="word"
    ).contacts
    assert receivers(made)["webhook"]["password"] == f"$__file{{{tmp_path}/secrets/alarm_webhook_password}}"
    assert [one["uid"] for one in made["deleteContactPoints"]] == ["owner_email", "owner_telegram"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grafana_alarm_webhook_url": "https://me:word@example.com/hook"}, "holds a secret"),
        ({"grafana_alarm_webhook_url": "https://example.com/hook?token=abc"}, "holds a secret"),
        ({"grafana_alarm_webhook_url": "https://hooks.slack.com/services/T/B/x"}, "holds a secret"),
        (
            {"grafana_alarm_webhook_url": "https://example.com/v1/8f14e45fceea167a5a36dedd4bea2543"},
            "holds a secret",
        ),
        ({**EMAIL, "grafana_smtp_host": ""}, "cannot be sent"),
        ({**TELEGRAM, "grafana_alarm_telegram_token": ""}, "cannot be right"),
        ({"grafana_battery_low_v": 61.0}, "out of order"),
        (WEBHOOK, ""),
        ({**EMAIL, **TELEGRAM}, ""),
    ],
)
def test_what_cannot_be_or_would_tell_a_secret_is_refused(given: Json, said: str, tmp_path: Path) -> None:
    done = run_playbook(tmp_path, **given)
    if said:
        assert done.returncode != 0
        assert said in re.sub(r"\s+", " ", done.stdout + done.stderr)
    else:
        assert done.returncode == 0, done.stdout + done.stderr
