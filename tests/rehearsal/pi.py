"""The virtual Pi as its visitors see it: over SSH, and over HTTP from the network it serves."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

from tests.virtual_pi.machine import ssh_command
from tests.virtual_pi.network import WAN_PI

from .playbook import TOP

STATE = TOP / ".rehearsal"
SECRETS = TOP / "secrets" / "rehearsal"


def sudo(command: str, *, check: bool = True, timeout_s: float = 60) -> str:
    """Run a shell command as root on the Pi and return its standard output."""
    done = subprocess.run(
        ssh_command("sudo", "bash", "-s"),
        input=command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"on the Pi: {command}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def secret(name: str) -> str:
    """A secret of the rehearsal's site, by its file's name."""
    return (SECRETS / name).read_text(encoding="utf-8").strip()


def influxql(query: str) -> list[dict[str, Any]]:
    """Ask the database on the Pi as Grafana's user does; return the series."""
    command = (
        "curl -sS -G http://127.0.0.1:8086/query -K - "
        f"--data-urlencode db=power --data-urlencode epoch=s --data-urlencode {_quoted('q=' + query)} "
        f"<<< 'user = \"grafana:{secret('influxdb_grafana_password')}\"'"
    )
    answer = json.loads(sudo(command))
    result = answer["results"][0]
    if "error" in result:
        raise AssertionError(f"{query}: {result['error']}")
    return list(result.get("series", []))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class Answer:
    """An HTTP answer; status 0 where there was none."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


def grafana(
    path: str, *, method: str = "GET", body: Any = None, login: tuple[str, str] | None = None
) -> Answer:
    """Ask Grafana over the network, as a viewer without a login unless one is given."""
    request = urllib.request.Request(f"http://{WAN_PI}:3000{path}", method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if login is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as response:
            return Answer(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read().decode())
    except urllib.error.URLError as error:
        # Nobody listens: no answer, which is what a test that waits wants to see.
        return Answer(0, str(error.reason))


def boot_id() -> str:
    """The identity of the Pi's current boot."""
    return sudo("cat /proc/sys/kernel/random/boot_id").strip()
