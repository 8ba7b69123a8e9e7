"""The grafana substitute answers, serves and refuses as a real server did."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import recordings
from .lines import lines_of_code
from .servers import HERE, Server, basic, free_port, grafana_process, influxdb2, set_up, token, wait_for

PASSWORD, NEW_PASSWORD, LEGACY = "admin-password", "another-password", "legacy-pa$$w0rd"
INI = f"""[security]
admin_password = {PASSWORD}
secret_key = 0123456789
[auth.anonymous]
enabled = true
org_role = Viewer
[dashboards]
default_home_dashboard_path = dashboards/power.json
"""
WHO = ("as admin", "as wrong password", "as anonymous")
LISTED = {
    "shown by the web interface, and there is none": [
        "frontend settings: all key names",
        "/login anonymous",
        "/admin anonymous",
        "/logout anonymous",
        "/profile anonymous",
        "/d/nosuch anonymous",
        "/public/build/nosuch.js anonymous",
        "/favicon.ico anonymous",
        "/apple-touch-icon.png anonymous",
        "/swagger anonymous",
        "POST /login right",
        "POST /login wrong",
        "POST /login unknown user",
        "/api/login/ping anonymous",
        "/api/org with nonsense session cookie",
    ],
    "no call of ours": [
        "/robots.txt anonymous",
        "/healthz anonymous",
        "/metrics anonymous",
        "/metrics/plugins/influxdb anonymous",
        "change own password, wrong old one",
        "change own password, new one too short",
        "admin reloads provisioning of plugins",
        "admin reloads provisioning of notifications",
        "health of t-flux",
    ],
    "alarms are checked, never kept or evaluated": [
        "rule group",
        "admin deletes file-provisioned rule",
        "admin changes file-provisioned policy",
        "test receiver (nothing listens)",
        *(
            f"/api/v1/provisioning/{what} as admin"
            for what in ("alert-rules/pv-low", "contact-points", "policies", "mute-timings", "templates")
        ),
    ],
}
GROUPS = {  # asked as each of WHO
    "shown by the web interface, and there is none": ["frontend settings (some keys)"],
    "no call of ours": [
        "/api/admin/settings",
        "/api/admin/stats",
        "/api/org/users",
        "/api/auth/keys",
        "/api/serviceaccounts/search",
    ],
    "alarms are checked, never kept or evaluated": [
        "/api/prometheus/grafana/api/v1/rules",
        "/api/prometheus/grafana/api/v1/alerts",
        "/api/alertmanager/grafana/api/v2/alerts",
        "/api/alertmanager/grafana/config/api/v1/alerts",
        "/api/alertmanager/grafana/api/v2/status",
        "/api/ruler/grafana/api/v1/rules",
    ],
}
NOT_COVERED = {title: reason for reason, titles in LISTED.items() for title in titles}
NOT_COVERED |= {f"{t} {who}": reason for reason, titles in GROUPS.items() for t in titles for who in WHO}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def adapted(text: str, database: Server, folder: Path) -> str:
    """Put this run's addresses and paths into a recorded text."""
    text = text.replace("127.0.0.1:8086", f"127.0.0.1:{database.port}").replace(
        "127.0.0.1:28099", "127.0.0.1:9"
    )
    return text.replace("/etc/secrets/read.token", str(folder / "read.token"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The influxdb2 substitute with three measurements, the newest point just now."""
    with influxdb2(tmp_path_factory.mktemp("influxdb2")) as server:
        server.extra = set_up(server, password=LEGACY)
        resource = {"type": "buckets", "id": server.extra["bucket"], "orgID": server.extra["org"]}
        body = {"orgID": server.extra["org"], "permissions": [{"action": "read", "resource": resource}]}
        made = server.ask("POST", "/api/v2/authorizations", body=body, headers=token("operatortoken"))
        server.extra["reader"] = made.json()["token"]  # type: ignore[index]
        lines = f"solar_charger_partial pv_power=138 {int(time.time())}\nbattery_partial soc=50\nother v=1"
        args = {"org": "Parks Ranch", "bucket": "power", "precision": "s"}
        assert (
            server.ask("POST", "/api/v2/write", args, lines.split("\n")[0], token("operatortoken")).status
            == 204
        )
        rest = {**args, "precision": "ns"}
        assert (
            server.ask(
                "POST", "/api/v2/write", rest, "\n".join(lines.split("\n")[1:]), token("operatortoken")
            ).status
            == 204
        )
        yield server


@contextmanager
def running(folder: Path, database: Server, files: dict[str, str], ini: str = INI) -> Iterator[Server]:
    """Run the substitute with files; wait until its dashboards are served."""
    write(folder, {name: adapted(text, database, folder) for name, text in files.items()})
    (folder / "read.token").write_text(database.extra["reader"] + "\n", encoding="utf-8")
    server = grafana_process(folder, ini, {"GF_DASH_DIR": str(folder / "dashboards")})
    try:
        assert wait_for(server, lambda: server.ask("GET", "/api/health").status == 200), (
            folder / "log"
        ).read_text()
        assert wait_for(
            server, lambda: server.ask("GET", "/api/dashboards/uid/power").status in (200, 401, 403)
        )
        yield server
    finally:
        server.stop()


@pytest.fixture
def recorded() -> dict[str, str]:
    """The files that the real server was given."""
    files: dict[str, str] = recordings.load("grafana-provisioning-cases.json")["base"]
    return files


@pytest.fixture
def base() -> dict[str, str]:
    """Files of our own: a data source with a token, one with user and password, a dashboard."""
    common = {"type": "influxdb", "access": "proxy", "url": "http://127.0.0.1:8086", "database": "power"}
    header = {"httpMode": "POST", "httpHeaderName1": "Authorization"}
    secret = {"httpHeaderValue1": "Token $__file{/etc/secrets/read.token}"}
    by_token = {"name": "power", "uid": "power-influxql", "jsonData": header, "secureJsonData": secret}
    by_user = {"name": "power-v1auth", "uid": "v1auth", "user": "grafana"}
    by_user |= {"secureJsonData": {"password": LEGACY.replace("$", "$$")}}
    sources = [{**common, **by_token}, {**common, **by_user}]
    provider = {"name": "ours", "type": "file", "options": {"path": "$__env{GF_DASH_DIR}"}}
    return {
        "provisioning/datasources/ours.yaml": json.dumps({"apiVersion": 1, "datasources": sources}),
        "provisioning/dashboards/ours.yaml": json.dumps({"apiVersion": 1, "providers": [provider]}),
        "dashboards/power.json": json.dumps({"uid": "power", "title": "Power", "panels": []}),
    }


def ask(server: Server, case: dict[str, Any]) -> Any:
    request = case["request"]
    headers = {
        "admin": basic("admin", server.extra["password"]),
        "wrong": basic("admin", "nonsense"),
        "none": {},
        "other": {"Authorization": "Basic nonsense" if "Basic" in case["title"] else "Bearer nonsense"},
    }[request["auth"]]
    body = request.get("body")
    if body is not None and not isinstance(body, str):
        text = json.dumps(body).replace("<ADMIN_PW>", PASSWORD).replace("<NEW_ADMIN_PW>", NEW_PASSWORD)
        body = json.loads(text)
    return server.ask(request["method"], request["path"], body=body, headers=headers)


def differs(case: dict[str, Any], answer: Any) -> str | None:
    recorded, kind = case["answer"], case["headers"].get("content-type")
    recorded = recorded.replace("<EPOCH_MS>", '"<EPOCH_MS>"')
    text = re.sub(r"time >= \d+ms and time <= \d+ms", "RANGE", answer.body.decode())
    text = re.sub(r'("values":\s*\[\[)(\d{13})', r'\1"\2"', text)
    recorded = re.sub(r"time \\u003e= \d+ms and time \\u003c= \d+ms", "RANGE", recorded)
    same = recordings.fits(recorded, text) or recorded.startswith("<HTML page")
    if (answer.status, answer.headers.get("content-type")) != (case["status"], kind) or not same:
        return f"{case['title']}: {answer.status} {answer.headers.get('content-type')} {text}\n   instead of {case['status']} {kind} {recorded}"
    return None


def by_file(cases: list[dict[str, Any]], database: Server) -> str:
    """Give a provisioning file with the data sources that the recording made by API."""
    sources = [case["request"]["body"] for case in cases if case["title"].startswith("create datasource t-")]
    text = json.dumps(
        {"apiVersion": 1, "datasources": [{**s, "editable": True} for s in sources if s["name"] != "t-flux"]}
    )
    return text.replace("<READ_TOKEN>", database.extra["reader"]).replace(
        "<LEGACY_PW>", LEGACY.replace("$", "$$")
    )


def unlock(folder: Path) -> None:
    """Forget wrong logins."""
    connection = sqlite3.connect(folder / "data/grafana.db")
    with connection:
        connection.execute("DELETE FROM login_attempt")
    connection.close()


def test_answers_are_those_of_a_real_server(
    tmp_path: Path, database: Server, recorded: dict[str, str]
) -> None:
    cases = recordings.load("grafana-answers.json")
    unknown = set(NOT_COVERED) - {case["title"] for case in cases}
    assert not unknown, "a title in NOT_COVERED is no recorded case"
    faults, compared = [], 0
    with running(tmp_path, database, recorded) as server:
        server.extra = {"password": PASSWORD}
        for one in cases:
            case = json.loads(adapted(json.dumps(one), database, tmp_path))
            title = case["title"]
            if "repeated" not in title:  # the recording was made with the lock switched off until those cases
                unlock(tmp_path)
            if title.startswith("create datasource t-wrongtoken"):  # we provision by files: these come as one
                write(
                    tmp_path,
                    {
                        "provisioning/datasources/z.yaml": adapted(
                            by_file(cases, database), database, tmp_path
                        )
                    },
                )
                path = "/api/admin/provisioning/datasources/reload"
                assert server.ask("POST", path, headers=basic("admin", PASSWORD)).status == 200
            if (
                title == "create datasource t-flux by API as admin"
            ):  # two that came as files had other numbers
                case["answer"] = case["answer"].replace('"id":11', '"id":13')
            if title == "change own password":  # by the admin's route
                path = "/api/admin/users/1/password"
                body = {"password": NEW_PASSWORD}
                assert server.ask("PUT", path, body=body, headers=basic("admin", PASSWORD)).status == 200
            if title == "new password afterwards":
                server.extra["password"] = NEW_PASSWORD
            if (
                title in NOT_COVERED
                or title == "change own password"
                or (title.startswith("create datasource t-") and "t-flux" not in title)
            ):
                continue
            faults.append(differs(case, ask(server, case)))
            if title == "admin route for a password":
                server.extra["password"] = PASSWORD
            compared += 1
    assert not [fault for fault in faults if fault], "\n".join(fault for fault in faults if fault)
    assert compared >= 110


def cases() -> list[Any]:
    path = recordings.REFERENCE / "grafana-provisioning-cases.json"
    if not path.is_file():
        return [
            pytest.param(
                None, id="no recordings", marks=pytest.mark.skip(reason="no recordings on this machine")
            )
        ]
    return [
        pytest.param(case, id=case["name"]) for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
    ]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, database: Server) -> Path:
    """A database that has run with the base files."""
    folder = tmp_path_factory.mktemp("used")
    with running(folder, database, recordings.load("grafana-provisioning-cases.json")["base"]):
        pass
    return folder / "data/grafana.db"


def served(server: Server) -> dict[str, list[str]]:
    sources = server.ask("GET", "/api/datasources").json()
    hits = server.ask("GET", "/api/search").json()
    assert isinstance(sources, list)
    assert isinstance(hits, list)
    return {
        "datasources": sorted(
            f"{s['name']}|{s['uid']}|{s['type']}|{s['url']}|default={s['isDefault']}" for s in sources
        ),
        "search": sorted(f"{h['type']}|{h['uid']}|{h['title']}|{h.get('folderTitle', '')}" for h in hits),
    }


def is_served(wanted: dict[str, list[str]], got: dict[str, list[str]]) -> bool:
    pairs = [(sorted(wanted[key]), got[key]) for key in wanted]
    if any(len(one) != len(other) for one, other in pairs):
        return False
    patterns = [sorted(one, key=lambda text: text.replace("<uid>", "")) for one, _ in pairs]
    for lines, (_, others) in zip(patterns, pairs, strict=True):
        rest = list(others)
        for line in lines:
            pattern = re.escape(line).replace("<uid>", r"[\w-]+")
            found = next((other for other in rest if re.fullmatch(pattern, other)), None)
            if found is None:
                return False
            rest.remove(found)
    return True


@pytest.mark.parametrize("data", ["fresh", "used"])
@pytest.mark.parametrize("case", cases())
def test_provisioning_files_are_served_or_refused_as_by_a_real_server(
    case: dict[str, Any], data: str, tmp_path: Path, database: Server, recorded: dict[str, str], used: Path
) -> None:
    files = {
        name: text for name, text in {**recorded, **case["changed"]}.items() if name not in case["removed"]
    }
    write(tmp_path, {name: adapted(text, database, tmp_path) for name, text in files.items()})
    (tmp_path / "read.token").write_text(database.extra["reader"], encoding="utf-8")
    (tmp_path / "data").mkdir()
    if data == "used":
        shutil.copy(used, tmp_path / "data/grafana.db")
    server = grafana_process(tmp_path, INI, {"GF_DASH_DIR": str(tmp_path / "dashboards")})
    try:
        if case["fresh"] != "runs":
            assert not wait_for(server, lambda: False, 10)
            assert f"exits {server.process.poll()}" == case[data]
            said = next((m for m in case["messages"] if m.startswith("Failed to start grafana")), "")
            if said and ": yaml:" not in said:
                assert adapted(said, database, tmp_path) in (tmp_path / "log").read_text(encoding="utf-8")
            return
        wanted = json.loads(adapted(json.dumps(case["served"]), database, tmp_path))
        if data == "fresh":
            assert wait_for(server, lambda: is_served(wanted, served(server)), 10), served(server)
        else:
            assert wait_for(server, lambda: server.ask("GET", "/api/health").status == 200)
        assert server.process.poll() is None
    finally:
        server.stop()


def test_the_proxy_carries_any_path_with_the_data_sources_credential(
    tmp_path: Path, database: Server, base: dict[str, str]
) -> None:
    with running(tmp_path, database, base) as server:
        listed = server.ask("GET", "/api/datasources").json()
        assert isinstance(listed, list)
        number = {source["name"]: source["id"] for source in listed}
        by_token, by_user = (f"/api/datasources/proxy/{number[name]}" for name in ("power", "power-v1auth"))
        query = {"db": "power", "q": "SHOW DATABASES"}
        for path in (by_token, by_user):
            assert b'[["power"]]' in server.ask("GET", f"{path}/query", query).body
        assert b'"name": "power"' in server.ask("GET", f"{by_token}/api/v2/buckets").body
        refused = server.ask("GET", f"{by_user}/api/v2/buckets")
        assert (refused.status, refused.body) == (400, b"Authentication to data source failed")
        assert server.ask("POST", f"{by_user}/write", {"db": "power"}, "m f=1").status == 403
        assert (
            server.ask("GET", "/api/datasources/proxy/uid/power-influxql/query", query).status == 404
        )  # the hyphen


def test_the_proxy_goes_nowhere_but_where_it_may(
    tmp_path: Path, database: Server, base: dict[str, str]
) -> None:
    ini = INI.replace("[auth.anonymous]", "data_source_proxy_whitelist = 127.0.0.1:1\n[auth.anonymous]")
    with running(tmp_path, database, base, ini) as server:
        assert server.ask("GET", "/api/datasources/proxy/1/ping").status == 403


def test_without_anonymous_nobody_gets_in(tmp_path: Path, database: Server, base: dict[str, str]) -> None:
    with running(tmp_path, database, base, INI.replace("enabled = true", "enabled = maybe")) as server:
        for path in (
            "/api/org",
            "/api/datasources",
            "/api/dashboards/uid/power",
            "/api/datasources/proxy/1/ping",
        ):
            assert server.ask("GET", path).status == 401


def test_the_admin_password_counts_at_the_first_start_only(
    tmp_path: Path, database: Server, base: dict[str, str]
) -> None:
    with running(tmp_path, database, base):
        pass
    with running(tmp_path, database, base, INI.replace(PASSWORD, "changed-password")) as server:
        assert server.ask("GET", "/api/org", headers=basic("admin", "changed-password")).status == 401
        assert server.ask("GET", "/api/org", headers=basic("admin", PASSWORD)).status == 200


def test_a_data_source_taken_out_of_the_database_comes_back_by_a_reload(
    tmp_path: Path, database: Server, base: dict[str, str]
) -> None:
    with running(tmp_path, database, base) as server:
        connection = sqlite3.connect(tmp_path / "data/grafana.db")
        with connection:
            connection.execute("DELETE FROM data_source WHERE name = 'power'")
        connection.close()
        assert server.ask("GET", "/api/datasources/uid/power-influxql").status == 404
        path = "/api/admin/provisioning/datasources/reload"
        assert server.ask("POST", path, headers=basic("admin", PASSWORD)).status == 200
        assert server.ask("GET", "/api/datasources/uid/power-influxql").status == 200


def test_no_secret_is_shown_or_kept_in_the_clear(
    tmp_path: Path, database: Server, base: dict[str, str]
) -> None:
    with running(tmp_path, database, base) as server:
        shown = (
            server.ask("GET", "/api/datasources/uid/power-v1auth").body
            + server.ask("GET", "/api/datasources").body
        )
        kept = (tmp_path / "data/grafana.db").read_bytes() + (tmp_path / "log").read_bytes()
    for word in (LEGACY, database.extra["reader"], PASSWORD):
        assert word.encode() not in shown + kept


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("pa$$word", "pa$word"),
        ("pa$word", "pa"),
        ("pa$1x", "pax"),
        ("end$", "end$"),
        ("${POWER_X}", "value"),
        ("$POWER_X", "value"),
        ("$__env{POWER_X}", "value"),
        ("$__env{POWER_NO}", ""),
        ("$__nosuch{x}", "{x}"),
        ("$__file{secret}", "filex/value"),
    ],
)
def test_dollars_are_expanded_as_by_a_real_server(written: str, read: str, tmp_path: Path) -> None:
    text = f"apiVersion: 1\ndatasources:\n  - name: x\n    uid: xuid\n    type: influxdb\n    user: '{written}'\n"
    (tmp_path / "secret").write_text(" file$value$$x/${POWER_X}\n", encoding="utf-8")
    write(tmp_path, {"provisioning/datasources/x.yaml": text})
    server = grafana_process(tmp_path, INI, {"POWER_X": "value"})
    try:
        assert wait_for(server, lambda: server.ask("GET", "/api/health").status == 200)
        assert server.ask("GET", "/api/datasources/uid/xuid").json()["user"] == read  # type: ignore[index]
    finally:
        server.stop()


def test_a_port_in_use_ends_it(tmp_path: Path, database: Server) -> None:
    server = grafana_process(
        tmp_path,
        INI.replace("[security]", f"[security]\nx = {free_port()}"),
        {"GF_SERVER_HTTP_PORT": str(database.port)},
    )
    assert server.process.wait(20) == 1


def test_it_says_that_it_has_no_screen(tmp_path: Path, database: Server, base: dict[str, str]) -> None:
    with running(tmp_path, database, base) as server:
        assert b"SUBSTITUTE" in server.ask("GET", "/").body


def test_it_stays_small() -> None:
    # 500 was the aim; the provisioning of alarms, the shapes of answers and what is made by hand took the rest
    assert sum(lines_of_code(path) for path in (HERE / "grafana").glob("*.py")) <= 780
