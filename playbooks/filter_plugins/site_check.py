"""Judges what playbooks/check.yml has seen of a site: probes in, rows of one table out."""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

OK, WARNING, FAIL = "ok", "warning", "FAIL"
"""Only FAIL changes the exit code."""

Row = dict[str, str]

MODBUS_PORT = 502
CLOCK_TOLERANCE_S = 120
DISK_WARNING, DISK_FAIL = 85, 95
"""Per cent used, of what programs may use."""
TEMPERATURE_WARNING_C, TEMPERATURE_FAIL_C = 80, 85
"""A Pi slows down at the first and stops its CPU at the second."""
KEY_WARNING_S = 60 * 86400
BACKUP_WARNING_S = 31 * 86400
CLOCK_SOURCES = {0: "not known yet", 1: "synchronised (NTP)", 2: "the MATE3s", 3: "unverified"}

SITE_YML = "Run `ansible-playbook site.yml`"
JOURNAL = "`journalctl -u {}` on the Pi tells why"


class ProbeError(Exception):
    """A probe brought nothing; the message says why."""


def row(level: str, name: str, found: str, remedy: str = "") -> Row:
    """Return a row of the table; every row but a green one says what to do about it."""
    return {"level": level, "name": name, "found": found, "remedy": remedy}


class Probes:
    """What the tasks have registered, by name."""

    def __init__(self, results: Mapping[str, Any], site: Mapping[str, Any]) -> None:
        """Keep the results; `site` is `check_site` of playbooks/vars/check.yml."""
        self.site = site
        self._read = _by_key(results["read"])
        self._asked = _by_key(results["asked"])
        self._pages = _by_key(results["answered"])
        self.knocked = {one["item"]["name"]: one for one in results["knocked"] if not one.get("skipped")}
        self.changed_at = {one["path"]: float(one["mtime"]) for one in results["found"]}
        """Path -> time of change (seconds since 1970), of the files that are there."""
        self.kernels = [one["path"].partition("vmlinuz-")[2] for one in results["kernels"]]
        self.kernel = str(results["kernel"])
        self.laptop = int(results["laptop"])
        self.readings = results["readings"]

    def file(self, name: str) -> str | None:
        """Return a file's text, None where there is no such file."""
        content = self._read[name].get("content")
        return None if content is None else base64.b64decode(content).decode(errors="replace")

    def output(self, name: str) -> str:
        """Return what a command said.

        Raises:
            ProbeError: it failed or is not there.
        """
        result = self._asked[name]
        if result.get("rc") != 0:
            said = result.get("stderr") or result.get("msg") or "no answer"
            raise ProbeError(" ".join(str(said).split()))
        return str(result["stdout"])

    def status(self, name: str) -> int:
        """Return the HTTP status of a server's page, -1 where nobody answered."""
        return int(self._pages[name].get("status", -1))

    @property
    def now(self) -> int:
        """The Pi's clock, seconds since 1970."""
        return int(self.output("date"))

    @property
    def latest(self) -> dict[str, Any] | None:
        """The collector's last cycle, None where it is missing or too old to tell anything."""
        text, age_s = self.file("latest"), self.latest_age_s
        if text is None or age_s is None or age_s > 3 * self.site["interval_s"] + 5:
            return None
        return dict(json.loads(text))

    @property
    def latest_age_s(self) -> float | None:
        """Seconds since the collector's last cycle, None where it does not run."""
        changed_at = self.changed_at.get(self.site["latest"])
        return None if changed_at is None else self.now - changed_at

    def collector_status(self) -> dict[str, Any]:
        """Return the fields of the collector's own point; empty where it does not run."""
        points = (self.latest or {}).get("points", [])
        return next((p["fields"] for p in points if p["measurement"] == "collector_status"), {})

    def answers(self) -> list[dict[str, Any]] | None:
        """Return InfluxDB's answers to the two questions of check.yml, None where there is none."""
        results = (self.readings.get("json") or {}).get("results", [])
        if len(results) != 2 or any("error" in one for one in results):
            return None
        return list(results)

    def newest(self) -> dict[str, int] | None:
        """Return the time of each device's newest reading, None where the database does not tell."""
        answers = self.answers()
        if answers is None:
            return None
        return {one["tags"]["device"]: int(one["values"][0][0]) for one in answers[0].get("series", [])}

    def reading_age_s(self, at: int) -> float:
        """Return the age of a reading by the collector's clock, which need not be the Pi's."""
        latest, age_s = self.latest, self.latest_age_s
        now = self.now if latest is None or age_s is None else latest["time"] + age_s
        return max(0.0, now - at)  # A cycle may have ended since.


def _by_key(results: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {one["item"]["key"]: one for one in results}


def age(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


# The room


def devices(probes: Probes) -> Iterator[Row]:
    """Judge each device: does it answer; with its address and MAC, the table of DHCP reservations."""
    try:
        neighbours = json.loads(probes.output("neighbours"))
    except ProbeError:
        neighbours = []  # The interface is missing, which the row of the cable says.
    at = {one["dst"]: one for one in neighbours}
    newest = probes.newest() or {}
    told = {one["name"]: one for one in (probes.latest or {}).get("devices", [])}
    for device in probes.site["devices"]:
        name, host = device["name"], device["host"]
        neighbour = at.get(host, {})
        if probes.latest is not None:
            level, found, remedy = _by_collector(probes, device, told.get(name), neighbour)
        else:
            level, found, remedy = _by_knocking(probes.knocked.get(name), neighbour)
        if name in newest:
            found += f"; newest reading {age(probes.reading_age_s(newest[name]))} old"
        yield row(level, name, f"{host:<15} {neighbour.get('lladdr', 'no MAC address'):<17} {found}", remedy)


def _by_collector(
    probes: Probes, device: Mapping[str, Any], told: Mapping[str, Any] | None, neighbour: Mapping[str, Any]
) -> tuple[str, str, str]:
    """Judge a device by the running collector's word: level, what was found, remedy."""
    port = device.get("port", MODBUS_PORT)
    if told is None or told["address"] != f"{device['host']}:{port}":
        return FAIL, "the collector reads another list of devices", SITE_YML
    if not told["up"]:
        since = "since the collector's start" if told["age_s"] is None else f"for {age(told['age_s'])}"
        # Without the name and the advice, which the row has already.
        reason = re.sub(r"^\S+ \([^)]*\): |;.*", "", told["error"] or "not tried since")
        return FAIL, f"no answer {since} ({reason})", _remedy(neighbour, told["age_s"])
    status = probes.collector_status()
    read, expected = status.get("inverters_read"), status.get("inverters_expected")
    found = f"answers in {told['response_ms']:.0f} ms"
    if device["driver"] != "outback":
        return OK, found, ""
    found += f"; {read} of {expected} inverters"
    if read != expected:
        return (
            FAIL,
            found,
            "Look at the hub's cables and the inverters' displays; or mend power_room_inverters",
        )
    return OK, found, ""


def _by_knocking(knocked: Mapping[str, Any] | None, neighbour: Mapping[str, Any]) -> tuple[str, str, str]:
    """Judge a device by a connection of our own."""
    if knocked is None:
        return WARNING, "not known while the collector makes no cycles", "Mend power first"
    if knocked.get("state") == "started":
        return OK, "takes a connection", ""
    return FAIL, "takes no connection", _remedy(neighbour)


def _remedy(neighbour: Mapping[str, Any], silent_s: float | None = None) -> str:
    """Say what to look at, by what the kernel knows of the address: nobody, somebody once, somebody now."""
    plugged = "Is the device on, its network cable in at both ends, the switch on?"
    modbus = (
        "Is another program connected to it (some serve one at a time)? Is Modbus TCP on in its network "
        "settings, at this port? Else switch it off and on"
    )
    if "lladdr" not in neighbour:
        return (
            f"Nothing is at this address. {plugged} Else it has another one: compare the router's list of "
            "reservations with power_room.yml"
        )
    # The kernel believes in a neighbour for up to 45 s after its last word.
    if "REACHABLE" in neighbour.get("state", []) and (silent_s is None or silent_s > 60):
        return f"It is there and does not speak Modbus. {modbus}"
    return f"{plugged} If so: {modbus[0].lower()}{modbus[1:]}"


def readings(probes: Probes) -> Iterator[Row]:
    """Judge whether the readings of the devices that answer are in the database."""
    newest = probes.newest()
    if newest is None:
        yield row(WARNING, "readings", "not known while the database does not answer", "Mend influxdb first")
        return
    if probes.latest is None:
        youngest = max(newest.values(), default=None)
        found = "none" if youngest is None else f"the newest is {age(probes.reading_age_s(youngest))} old"
        yield row(WARNING, "readings", f"{found}: the collector makes no cycles", "Mend power first")
        return
    if probes.collector_status().get("clock_source") == 0:
        yield row(WARNING, "readings", "held until the time is known", "Look again in 2 minutes")
        return
    limit_s = 3 * probes.site["interval_s"] + 30
    answering = {one["name"] for one in probes.latest["devices"] if one["up"]}
    up = [one["name"] for one in probes.site["devices"] if one["name"] in answering]
    late = [n for n in up if n not in newest or probes.reading_age_s(newest[n]) > limit_s]
    if late:
        yield row(
            FAIL,
            "readings",
            f"{', '.join(late)}: answers, and its readings are not in the database",
            JOURNAL.format("power") + ": a token that is refused (run site.yml) and a full card are causes",
        )
    else:
        yield row(OK, "readings", f"of {len(up)} devices in the database, none older than {limit_s} s")


def backlog(probes: Probes) -> Iterator[Row]:
    """Judge what waits for the database, and what was lost since the collector's start."""
    if probes.latest is None:
        yield row(WARNING, "backlog", "not known while the collector makes no cycles", "Mend power first")
        return
    counters = probes.latest["counters"]
    stored, dropped, rejected = (counters[f"{what}_points"] for what in ("stored", "dropped", "rejected"))
    found = f"{stored} points wait, {dropped} dropped, {rejected} refused since the collector's start"
    if dropped:
        remedy = (
            "The store was full, or the card: mend what kept InfluxDB away, or raise collector_store_max_mb"
        )
    elif rejected:
        remedy = (
            "InfluxDB refuses their type or their time: `journalctl -u power` names them; please report it"
        )
    elif stored > 2 * probes.collector_status()["points"]:
        remedy = (
            "They go as soon as InfluxDB takes them, in less than a minute for a day of them; then look again"
        )
    else:
        yield row(OK, "backlog", found)
        return
    yield row(WARNING, "backlog", found, remedy)


# The services


def services(probes: Probes) -> Iterator[Row]:
    """Judge each unit: is it active, enabled, started after its files, and does it do its work."""
    blocks = probes.output("units").strip().split("\n\n")
    told = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    booted = probes.now - float((probes.file("uptime") or "").split()[0])
    for unit in told:
        name = unit["Id"].removesuffix(".service")
        started = booted + int(unit["InactiveExitTimestampMonotonic"]) / 1e6
        newer = [
            path
            for path in probes.site["units"][unit["Id"]]
            # The times were asked for at different moments.
            if probes.changed_at.get(path, -math.inf) > started + 5
        ]
        idle = _idle(probes, name)
        if unit["ActiveState"] != "active":
            result = unit.get("Result", "success")
            found = unit["ActiveState"] + ("" if result == "success" else f" ({result})")
            yield row(
                FAIL, name, found, f"{SITE_YML}, which starts it. If it does not stay: {JOURNAL.format(name)}"
            )
        elif idle:
            yield row(FAIL, name, f"runs, but {idle[0]}", idle[1])
        elif unit["UnitFileState"] != "enabled":
            yield row(FAIL, name, f"runs, but would not start at boot ({unit['UnitFileState']})", SITE_YML)
        elif newer or unit["NeedDaemonReload"] == "yes":
            what = ", ".join(newer) or "its unit"
            yield row(WARNING, name, f"runs with older settings than those in {what}", SITE_YML)
        else:
            yield row(OK, name, f"active for {age(probes.now - started)}, starts at boot")


def _idle(probes: Probes, name: str) -> tuple[str, str] | None:
    """Say what a service that is active does not do, and the remedy; None where it works."""
    if name == "influxdb":
        if probes.status("influxdb") != 200:
            return "does not answer", f"`sudo systemctl restart influxdb` on the Pi. {JOURNAL.format(name)}"
        if probes.answers() is None:
            return "refuses Grafana's user", f"{SITE_YML}, which mends it"
    if name == "grafana-server" and probes.status("grafana") != 200:
        return "does not show the dashboard", f"{SITE_YML}. {JOURNAL.format(name)}"
    if name == "power" and probes.latest is None:
        age_s = probes.latest_age_s
        since = "has made no cycle yet" if age_s is None else f"has made no cycle for {age(age_s)}"
        return since, f"Wait a minute: it is restarted by itself. If it stays so: {JOURNAL.format(name)}"
    return None


# The network


def cable(probes: Probes) -> Iterator[Row]:
    """Judge the cable to the power room: its fixed address, and that it takes no internet away."""
    interface, address = probes.site["interface"], probes.site["address"]
    name = f"cable ({interface})"
    found = [one for one in json.loads(probes.output("addresses")) if one.get("ifname") == interface]
    has = [f"{a['local']}/{a['prefixlen']}" for one in found for a in one["addr_info"]]
    routes = [one for one in _default_routes(probes) if one["dev"] == interface]
    mend = "Run `ansible-playbook site.yml --tags network`, which sets it"
    if not found:
        yield row(FAIL, name, "the Pi has no such interface", "Mend network_interface in the inventory")
    elif "LOWER_UP" not in found[0]["flags"]:
        yield row(FAIL, name, "no link", "Is the cable in at both ends, and the switch on?")
    elif address not in has:
        yield row(FAIL, name, f"has {', '.join(has) or 'no address'}, not {address}", mend)
    elif routes:
        gateway = routes[0].get("gateway", "?")
        yield row(FAIL, name, f"a default route leads to {gateway}, which has no internet", mend)
    else:
        yield row(OK, name, f"{address}, no default route")


def internet(probes: Probes) -> Iterator[Row]:
    """Say where the internet is sought. None is no fault: readings need none."""
    routes = [one for one in _default_routes(probes) if one["dev"] != probes.site["interface"]]
    if routes:
        first = min(routes, key=lambda one: one.get("metric", 0))
        yield row(OK, "internet", f"by {first['dev']}, gateway {first.get('gateway', 'none')}")
    else:
        yield row(OK, "internet", "none now (no default route: the hotspot is off), and none is needed")


def _default_routes(probes: Probes) -> list[dict[str, Any]]:
    both = [json.loads(probes.output(name) or "[]") for name in ("routes", "routes6")]
    return [one for routes in both for one in routes]


def name_servers(probes: Probes) -> Iterator[Row]:
    """Judge the name servers: none comes from the cable, where names are asked in vain."""
    network = ipaddress.ip_interface(probes.site["address"]).network
    used = re.findall(r"^nameserver\s+([^\s%]+)", probes.file("resolv") or "", re.MULTILINE)
    dead = re.findall(r"[^\s|]+", probes.output("cable_dns"))
    dead += [one for one in used if ipaddress.ip_address(one) in network and one not in dead]
    if dead:
        yield row(
            FAIL,
            "name servers",
            f"{', '.join(dead)}, on the cable, where nobody knows names",
            "Run `ansible-playbook site.yml --tags network`, which takes it out",
        )
    elif not used and any(one["dev"] != probes.site["interface"] for one in _default_routes(probes)):
        yield row(
            WARNING, "name servers", "none, although there is a way to the internet", "Reconnect the Wi-Fi"
        )
    else:
        yield row(OK, "name servers", ", ".join(used) or "none, as there is no internet")


# The Pi


def clock(probes: Probes) -> Iterator[Row]:
    """Judge the Pi's clock by this laptop's, where the readings' time comes from, and the MATE3s's clock."""
    told = dict(line.split("=", 1) for line in probes.output("clock").splitlines() if "=" in line)
    off_s = probes.now - probes.laptop
    by_ntp = told.get("NTPSynchronized") == "yes"
    source = probes.collector_status().get("clock_source")
    found = (
        f"{abs(off_s)} s off this laptop's, {'kept by NTP' if by_ntp else 'not synchronised'}; "
        f"the readings' time: {CLOCK_SOURCES.get(source, 'not known')}"
    )
    if abs(off_s) > CLOCK_TOLERANCE_S and not by_ntp:
        remedy = (
            "It follows the MATE3s's: set that on its own screen, or give the Pi internet for a minute"
            if source == 2
            else f"{SITE_YML}, which sets it, or give the Pi internet for a minute"
        )
        yield row(FAIL, "clock", found, remedy)
    elif abs(off_s) > CLOCK_TOLERANCE_S:
        yield row(WARNING, "clock", found, "The Pi has its time from the internet: set this laptop's clock")
    elif source in (0, 3):
        yield row(
            WARNING,
            "clock",
            found,
            "Nobody confirms the Pi's clock: give it internet for a minute, or set the MATE3s's",
        )
    else:
        yield row(OK, "clock", found)
    series = (probes.answers() or [{}, {}])[1].get("series", [])
    offset_s = series[0]["values"][0][1] if series else None
    if offset_s is not None and abs(offset_s) > CLOCK_TOLERANCE_S:
        yield row(
            WARNING,
            "MATE3s's clock",
            f"{age(abs(offset_s))} {'ahead' if offset_s > 0 else 'behind'}: its daily counters begin then",
            "Set date and time on the MATE3s's own screen",
        )


def disk(probes: Probes) -> Iterator[Row]:
    """Judge the room on the file systems that are written to."""
    lines = sorted(set(probes.output("disk").splitlines()[1:]))
    for line in lines:
        used, available, target = line.split(None, 2)
        percent = 100 * int(used) / (int(used) + int(available))
        level = FAIL if percent >= DISK_FAIL else WARNING if percent >= DISK_WARNING else OK
        remedy = (
            "On the Pi `sudo journalctl --vacuum-size=50M; sudo apt clean` makes some room, "
            "`sudo du -xhd2 /var | sort -h` shows what is large. "
            "Is it the readings? Set influxdb_retention_days, or use a larger card"
        )
        yield row(
            level,
            f"disk ({target})",
            f"{percent:.0f} % used, {int(available) / 1e9:.1f} GB free",
            "" if level == OK else remedy,
        )


def temperature(probes: Probes) -> Iterator[Row]:
    """Judge the CPU's temperature."""
    text = probes.file("temperature")
    if text is None:
        yield row(OK, "temperature", "not told here")
        return
    celsius = int(text) / 1000
    hot = celsius >= TEMPERATURE_WARNING_C
    level = FAIL if celsius >= TEMPERATURE_FAIL_C else WARNING if hot else OK
    yield row(
        level,
        "temperature",
        f"{celsius:.0f} °C",
        "Give it air: out of the sun, a case with a fan" if hot else "",
    )


def power_supply(probes: Probes) -> Iterator[Row]:
    """Judge the firmware's bits: now, and 16 higher those that Linux's own sensor has not cleared yet."""
    text = probes.file("throttled")
    if text is None:
        try:
            text = probes.output("throttled").removeprefix("throttled=")
        except ProbeError:
            yield row(OK, "power supply", "not told here")
            return
    bits = int(text, 16)
    remedy = "Use the Pi's own power supply, and a short thick cable to it"
    if bits & 0x1:
        yield row(FAIL, "power supply", "voltage too low now: data may be lost", remedy)
    elif bits & 0x10000:
        yield row(WARNING, "power supply", "voltage was too low a moment ago", remedy)
    elif bits & 0xE:
        yield row(WARNING, "power supply", "good, but the Pi is slowed down", "Give it air: it is too hot")
    else:
        yield row(OK, "power supply", "voltage good")


def vendor_keys(probes: Probes) -> Iterator[Row]:
    """Judge until when the vendors' keys sign packages. Only an upgrade depends on it."""
    found, late, missing = [], [], []
    for name, path in probes.site["keys"].items():
        try:
            until = _signs_until(probes.output(f"key_{name}"))
        except ProbeError:
            missing.append(name)
            found.append(f"{name}: missing")
            continue
        if until - probes.now < KEY_WARNING_S:
            late.append(path)
        found.append(
            f"{name} until {time.strftime('%Y-%m-%d', time.gmtime(until))}"
            if math.isfinite(until)
            else f"{name} for ever"
        )
    if late:
        remedy = (
            f"Before the next upgrade: `sudo rm {' '.join(dict.fromkeys(late))}` on the Pi, then run "
            "`ansible-playbook site.yml` with internet, which fetches the renewed key"
        )
        yield row(WARNING, "vendor keys", ", ".join(found), remedy)
    elif missing:
        yield row(WARNING, "vendor keys", ", ".join(found), f"{SITE_YML} with internet, which fetches them")
    else:
        yield row(OK, "vendor keys", ", ".join(found))


def _signs_until(listing: str) -> float:
    """Return when the last signing key of gpg's listing expires, or its primary key; infinity for never.

    Raises:
        ProbeError: there is no key in it.
    """
    primary: float | None = None
    signing = []
    for fields in (line.split(":") for line in listing.splitlines()):
        if fields[0] not in ("pub", "sub") or fields[1] == "r":
            continue
        until = float(fields[6]) if fields[6] else math.inf
        if fields[0] == "pub":
            primary = until
        if "s" in fields[11]:
            signing.append(until)
    if primary is None or not signing:
        raise ProbeError("no key that signs")
    return min(primary, max(signing))


def reboot(probes: Probes) -> Iterator[Row]:
    """Judge whether an upgrade waits for a reboot."""
    flavour = probes.kernel.rpartition("-")[2]
    newer = [
        one
        for one in probes.kernels
        if one.rpartition("-")[2] == flavour and _version(one) > _version(probes.kernel)
    ]
    packages = (probes.file("reboot_packages") or "").split()
    if newer:
        found = f"kernel {max(newer, key=_version)} is installed, {probes.kernel} runs"
    elif probes.file("reboot") is not None:
        found = f"wanted by {', '.join(dict.fromkeys(packages)) or 'an upgrade'}"
    else:
        yield row(OK, "reboot", "none is pending")
        return
    yield row(
        WARNING, "reboot", found, "`sudo reboot` on the Pi when it suits; readings are back within a minute"
    )


def _version(kernel: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", kernel)]


def backup(probes: Probes) -> Iterator[Row]:
    """Judge the age of the last backup. A site without one works: it is never more than a warning."""
    remedy = "Run `ansible-playbook playbooks/backup.yml`"
    made_at = probes.changed_at.get(probes.site["backup_mark"])
    if made_at is None:
        yield row(WARNING, "backup", "never", remedy)
    elif probes.now - made_at > BACKUP_WARNING_S:
        yield row(WARNING, "backup", f"{age(probes.now - made_at)} ago", remedy)
    else:
        yield row(OK, "backup", f"{age(probes.now - made_at)} ago")


JUDGES: tuple[Callable[[Probes], Iterator[Row]], ...] = (
    devices,
    readings,
    backlog,
    services,
    cable,
    internet,
    name_servers,
    clock,
    disk,
    temperature,
    power_supply,
    vendor_keys,
    reboot,
    backup,
)


def site_rows(probes: Mapping[str, Any], site: Mapping[str, Any]) -> list[Row]:
    """Return a row for each thing that was looked at; what cannot be judged is a row that fails, too.

    Args:
        probes: the registered results of playbooks/tasks/check/probe.yml.
        site: `check_site` of playbooks/vars/check.yml.
    """
    seen = Probes(probes, site)
    rows: list[Row] = []
    for judge in JUDGES:
        name = judge.__name__.replace("_", " ")
        try:
            rows += judge(seen)
        except ProbeError as error:
            rows.append(
                row(FAIL, name, f"not known: {error}", "Run the check again; if it stays so, report it")
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            rows.append(
                row(FAIL, name, f"not understood: {error!r}", "A fault of the check itself: report it")
            )
    return rows


def site_table(rows: Sequence[Row]) -> str:
    """Return the rows as text: level, name, what was found; under a row that is not green, what to do."""
    width = max(len(one["name"]) for one in rows)
    lines = []
    for one in rows:
        lines.append(f"{one['level']:<7}  {one['name']:<{width}}  {one['found']}")
        if one["remedy"]:
            lines += textwrap.wrap(
                one["remedy"],
                110,
                initial_indent=" " * 9 + "-> ",
                subsequent_indent=" " * 12,
                break_on_hyphens=False,
            )
    counts = [f"{sum(one['level'] == level for one in rows)} {level}" for level in (OK, WARNING, FAIL)]
    return "\n".join([*lines, "", ", ".join(counts)])


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"site_rows": site_rows, "site_table": site_table}
