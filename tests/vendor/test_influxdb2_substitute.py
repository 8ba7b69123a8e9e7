"""The influxdb2 substitute answers as a real server did, and holds what it promises besides."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import recordings
from .lines import lines_of_code
from .servers import HERE, Server, basic, free_port, influxdb2, influxdb2_environment, set_up, token

OPERATOR = "operator-token-chosen-by-us-0123456789"
USER = ("grafana", "read-only-password")

NOT_COVERED = {
    "database mappings": "no call of ours: InfluxQL uses the virtual mapping",
    "flux": "no call of ours: queries are InfluxQL",
    "sign in": "the web interface's call, and there is none",
    "sign in, wrong": "the web interface's call, and there is none",
    "remotes": "no call of ours",
    "replications": "no call of ours",
    "metrics": "its numbers are the real server's own; we switch it off",
}
# The recorded points lie within a year of their recording, and one case sets a retention of a year: move them to now,
# by whole weeks, so that they keep their places in the shards.
RECORDED_S = 1764000000
WEEK_S = 604800
SHIFT_S = int((time.time() - RECORDED_S - 7200) // WEEK_S) * WEEK_S
# what was sent, where the recording does not say or holds only its beginning
SENT = {
    "write, gzip": f"m,device=a f=4.5 {RECORDED_S + SHIFT_S + 45}".encode(),
    "write, 5,000 lines": "\n".join(
        f"big,d=a f={i}.0 {RECORDED_S + SHIFT_S + i}" for i in range(5000)
    ).encode(),
}
TOKENS = {  # title -> which token "auth: token" means
    "buckets, wrong token": "wrong",
    "write, wrong token": "wrong",
    "authorizations with the write token": "<writeToken>",
    "write, collector token": "<writeToken>",
    "write, other bucket with the collector token": "<writeToken>",
    "select, write token": "<writeToken>",
    "write with the deleted token": "<writeToken>",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with influxdb2(tmp_path_factory.mktemp("influxdb2")) as server:
        yield server


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with influxdb2(tmp_path_factory.mktemp("influxdb2"), settings="metrics-disabled = true\n") as server:
        server.extra = set_up(server)
        yield server


def learn(names: dict[str, str], recorded: Any, answered: Any) -> None:
    """Note what the placeholders of an answer stand for in this run."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for key, value in recorded.items():
            learn(names, value, answered.get(key))
    elif isinstance(recorded, list) and isinstance(answered, list):
        for one, other in zip(recorded, answered, strict=False):
            learn(names, one, other)
    elif isinstance(recorded, str) and re.fullmatch(r"<\w+>", recorded):
        names.setdefault(recorded, str(answered))


def fill(names: dict[str, str], text: str) -> str:
    return re.sub(r"<\w+>", lambda found: names.get(found[0], found[0]), text)


def shift(case: dict[str, Any]) -> dict[str, Any]:
    """Move a case's points to now."""
    text = json.dumps(case)
    shifted: dict[str, Any] = json.loads(
        re.sub(r"176400\d{4}", lambda found: str(int(found[0]) + SHIFT_S), text)
    )
    return shifted


def replay(server: Server, case: dict[str, Any], names: dict[str, str]) -> str | None:
    """Send a recorded request; gives what differs."""
    title, case = case["title"], shift(case)
    method, target = case["request"].split(" ", 1)
    path, _, args = fill(names, target).partition(" ")
    word = TOKENS.get(title, "<readToken>")
    headers = {
        "operator": token(OPERATOR),
        "token": token(names.get(word, word)),
        "basic": basic(USER[0], "nonsense" if "wrong" in title else USER[1]),
        "none": {},
    }[case["auth"]]
    sent: Any = case["sent"]
    if isinstance(sent, dict):
        sent = json.loads(fill(names, json.dumps(sent)))
    if isinstance(sent, str) and path == "/query":
        headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    if title in SENT:
        sent = SENT[title]
    if "gzip" in title:
        sent, headers = gzip.compress(sent), {**headers, "Content-Encoding": "gzip"}
    answer = server.ask(method, path, json.loads(args) if args else None, sent, headers)
    text = answer.body.decode()
    wanted = {k.lower(): v for k, v in case["headers"].items()}
    kept = {
        k: answer.headers[k]
        for k in ("content-type", "x-influxdb-build", "x-platform-error-code")
        if k in answer.headers
    }
    if (answer.status, kept) != (case["status"], wanted) or not recordings.fits(case["answer"], text):
        return f"{title}: {answer.status} {kept} {text!r}\n   instead of {case['status']} {wanted} {case['answer']!r}"
    if case["answer"].startswith("{") and recordings.whole(case["answer"]):
        learn(names, json.loads(case["answer"]), json.loads(text))
    elif title == "setup":
        made = json.loads(text)
        names |= {f"<{thing}ID>": made[thing]["id"] for thing in ("user", "bucket", "org", "auth")}
    return None


def test_answers_are_those_of_a_real_server(fresh: Server) -> None:
    cases = recordings.load("influxdb2-answers.json")
    unknown = set(NOT_COVERED) - {case["title"] for case in cases}
    assert not unknown, "a title in NOT_COVERED is no recorded case"
    names: dict[str, str] = {}
    faults = [replay(fresh, case, names) for case in cases if case["title"] not in NOT_COVERED]
    assert not [fault for fault in faults if fault], "\n".join(fault for fault in faults if fault)
    assert len(faults) >= 75


def query(server: Server, text: str, headers: dict[str, str], database: str = "power") -> Any:
    return server.ask("GET", "/query", {"db": database, "q": text, "epoch": "s"}, headers=headers).json()[
        "results"
    ]  # type: ignore[index]


GRAFANA = basic("grafana", "readonlypassword")
WRITE = {"org": "Parks Ranch", "bucket": "power", "precision": "s"}


def write(server: Server, lines: str, word: str | None = None) -> int:
    headers = token(word or server.extra["write token"])
    return server.ask("POST", "/api/v2/write", WRITE, lines, headers).status


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM other..m",
        'SELECT * FROM "other"."autogen"."m"',
        "SELECT * FROM (SELECT * FROM other..m)",
        "SELECT * INTO power..copy FROM m",
        "SHOW MEASUREMENTS ON other",
        "SHOW SERIES EXACT CARDINALITY ON other",
        "SHOW TAG VALUES ON _adapter_scratch WITH KEY = d",
        "SHOW QUERIES",
        "SHOW USERS",
        "SHOW CONTINUOUS QUERIES",
        "CREATE DATABASE x",
        "DROP DATABASE power",
        "SET PASSWORD FOR admin = 'x'",
        "DELETE FROM m",
    ],
)
def test_a_user_sees_its_bucket_and_nothing_else(ready: Server, text: str) -> None:
    ready.ask(
        "POST",
        "/api/v2/buckets",
        body={"name": "other", "orgID": ready.extra["org"]},
        headers=token("operatortoken"),
    )
    ready.ask(
        "POST", "/api/v2/write", {**WRITE, "bucket": "other"}, "m f=1 1764000000", token("operatortoken")
    )
    assert write(ready, "m f=2 1764000000") == 204
    (result,) = query(ready, text, GRAFANA)
    assert "series" not in result
    assert "error" in result
    assert query(ready, "SELECT f FROM m", GRAFANA)[0]["series"][0]["values"] == [[1764000000, 2]]


def test_a_user_gets_into_no_v2_call(ready: Server) -> None:
    for path in (
        "/api/v2/buckets",
        "/api/v2/orgs",
        "/api/v2/authorizations",
        "/private/legacy/authorizations",
    ):
        assert ready.ask("GET", path, headers=GRAFANA).status == 401
        assert ready.ask("GET", path, {"u": "grafana", "p": "readonlypassword"}).status == 401


def test_the_collectors_token_cannot_read(ready: Server) -> None:
    assert (
        query(ready, "SELECT f FROM m", token(ready.extra["write token"]))[0]["error"]
        == "database not found: power"
    )


def test_metrics_and_debug_are_off_when_disabled(ready: Server) -> None:
    assert [ready.ask("GET", path).status for path in ("/metrics", "/debug/pprof/", "/debug/vars")] == [
        404,
        404,
        404,
    ]


@pytest.mark.parametrize(
    "lines",
    [
        'text,tag=a\\ b f="a, b=c \\"quoted\\" #" 1764000001',
        'm s="two\nlines" 1764000002',
        "m f=1e3,g=-2.5E-2,h=t,i=-7i 1764000003",
        "µ,ß=ü ä=1 1764000004",
        "# a comment\n\nm f=1 1764000005\n",
        "m f=1",
    ],
)
def test_unusual_lines_are_taken(ready: Server, lines: str) -> None:
    assert write(ready, lines) == 204


@pytest.mark.parametrize(
    "line",
    ["m", "m f", "m f=", "m f=1 2 3", "m,=a f=1", 'm f="open', "m f=1i5", "m f=nan", ",a=b f=1", "m f=1 5\r"],
)
def test_of_a_batch_with_a_malformed_line_nothing_is_stored(ready: Server, line: str) -> None:
    assert write(ready, f"half,l=a f=1 1764000000\n{line}\nhalf,l=a f=1 1764000001") == 400
    assert "series" not in query(ready, "SELECT f FROM half", GRAFANA)[0]


def test_of_a_batch_whose_sender_died_nothing_is_stored(ready: Server) -> None:
    body = b"cut f=1 1764000000\ncut f=2 1764000001\ncut f=3 1764000002"
    torn = body[: body.rindex(b"0")]  # its last line looks whole still
    head = (
        "POST /api/v2/write?org=Parks+Ranch&bucket=power&precision=s HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Token {ready.extra['write token']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ready.port), timeout=10) as dying:
        dying.sendall(head.encode() + torn)
        dying.shutdown(socket.SHUT_WR)
        assert b" 204 " not in dying.recv(100)
    assert "series" not in query(ready, "SELECT f FROM cut", GRAFANA)[0]


def test_retention_reaches_the_engine(ready: Server) -> None:
    rules = {"retentionRules": [{"type": "expire", "everySeconds": 2592000}]}
    path = f"/api/v2/buckets/{ready.extra['bucket']}"
    assert ready.ask("PATCH", path, body=rules, headers=token("operatortoken")).status == 200
    values = query(ready, "SHOW RETENTION POLICIES", GRAFANA)[0]["series"][0]["values"]
    assert values[0][:3] == ["autogen", "720h0m0s", "24h0m0s"]


def test_a_deleted_user_is_out(ready: Server) -> None:
    operator = token("operatortoken")
    body = {
        "orgID": ready.extra["org"],
        "token": "passing",
        "permissions": [{"action": "read", "resource": {"type": "buckets"}}],
    }
    made = ready.ask("POST", "/private/legacy/authorizations", body=body, headers=operator).json()["id"]  # type: ignore[index]
    path = f"/private/legacy/authorizations/{made}"
    ready.ask("POST", f"{path}/password", body={"password": "passing-by"}, headers=operator)
    assert (
        ready.ask("GET", "/query", {"q": "SHOW DATABASES"}, headers=basic("passing", "passing-by")).status
        == 200
    )
    assert ready.ask("DELETE", path, headers=operator).status == 204
    assert (
        ready.ask("GET", "/query", {"q": "SHOW DATABASES"}, headers=basic("passing", "passing-by")).status
        == 401
    )


def test_acknowledged_points_tokens_and_users_survive_a_kill(tmp_path: Path) -> None:
    with influxdb2(tmp_path) as server:
        ids = set_up(server)
        server.extra = ids
        assert [write(server, f"m f={i} {1764000000 + i}") for i in range(50)] == [204] * 50
        server.stop(signal.SIGKILL)
    with influxdb2(tmp_path) as server:
        server.extra = ids
        assert query(server, "SELECT count(f) FROM m", GRAFANA)[0]["series"][0]["values"] == [[0, 50]]
        assert write(server, "m f=1 1764000100") == 204
        assert server.ask("GET", "/api/v2/setup").json() == {"allowed": False}


def test_no_secret_is_in_its_files(ready: Server) -> None:
    secrets = [b"operatortoken", b"readonlypassword", b"a-long-password", ready.extra["write token"].encode()]
    for path in ready.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [word for word in secrets if word in data], path


def test_an_address_that_is_not_there_ends_it_at_once(tmp_path: Path) -> None:
    environment = influxdb2_environment(tmp_path, free_port())
    config = Path(environment["INFLUXD_CONFIG_PATH"])
    config.write_text(config.read_text().replace("127.0.0.1", "203.0.113.7"))
    done = subprocess.run(
        [sys.executable, HERE / "influxdb2/adapter.py"], env=environment, timeout=20, capture_output=True
    )
    assert done.returncode == 1
    assert b"203.0.113.7" in done.stderr


def recover(folder: Path, **names: str) -> subprocess.CompletedProcess[str]:
    """Run `influxd recovery auth create-operator` on the database in `folder`."""
    command = [sys.executable, str(HERE / "influxdb2/recovery.py"), "recovery", "auth", "create-operator"]
    names = {"username": "admin", "org": "Parks Ranch", **names}
    command += [word for name, value in names.items() for word in (f"--{name}", value)]
    command += ["--bolt-path", str(folder / "influxd.bolt")]
    return subprocess.run(command, timeout=20, capture_output=True, text=True, check=False)


def test_a_stopped_database_gets_a_new_operator_token(tmp_path: Path) -> None:
    """Table and messages are those of a real 2.9.1."""
    with influxdb2(tmp_path) as server:
        ids = set_up(server)
        running = recover(tmp_path)
    assert running.returncode == 1
    assert running.stderr.startswith("Error: unable to open boltdb file unable to open boltdb file timeout\n")
    done = recover(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = [re.split(r"\t+", line) for line in done.stdout.splitlines()]
    assert header == ["ID", "User Name", "User ID", "Description", "Token", "Permissions"]
    old, writing, new = sorted(rows, key=lambda row: "Recovery" in row[3])
    assert (old[1], old[3:5], new[3]) == ("admin", ["admin's Token", "REDACTED"], "admin's Recovery Token")
    assert writing[-1] == f"[write:orgs/{ids['org']}/buckets/{ids['bucket']}]"
    assert new[5].startswith("[read:authorizations write:authorizations read:buckets ")
    assert re.fullmatch(r"[\w-]{86}==", new[4])
    with influxdb2(tmp_path) as server:
        server.extra = ids
        for word in (new[4], "operatortoken", "nonsense"):
            status = server.ask("GET", "/api/v2/orgs", headers=token(word)).status
            assert status == (401 if word == "nonsense" else 200)
        assert write(server, "m f=1 1764000000", new[4]) == 204


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"username": "nobody"}, 'could not find user "nobody": user not found'),
        ({"org": "else"}, 'could not find org "else": organization name "else" not found'),
    ],
)
def test_an_operator_token_for_an_unknown_name_is_refused(
    tmp_path: Path, names: dict[str, str], said: str
) -> None:
    with influxdb2(tmp_path) as server:
        set_up(server)
    done = recover(tmp_path, **names)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"Error: {said}\nSee 'influxd -h' for help\n",
    )


def test_it_stays_small() -> None:
    assert sum(lines_of_code(path) for path in (HERE / "influxdb2").glob("*.py")) <= 575
