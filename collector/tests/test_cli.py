"""The commands from outside: what they print, what they exit with, and what they import."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from power_collector import demo, latest, line_protocol, simulator, watch
from power_collector.cli import main
from power_collector.store import Store


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def room(config) -> Iterator[None]:
    """Serve the simulated room of a configuration from a thread of its own."""
    loop = asyncio.new_event_loop()
    up = threading.Event()
    done = asyncio.Event()

    async def serve() -> None:
        async with simulator.SimulatedRoom(config, bind=None, answers=None, control=None, zone=None):
            up.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert up.wait(10)
    yield
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()


@pytest.fixture
def config(make_config):
    hub, *chargers = free_ports(3)
    return make_config(*chargers, hub=hub, interval_s=1)


@pytest.fixture
def path(config, tmp_path) -> str:
    return str(tmp_path / "config.toml")


def test_once_prints_a_row_a_device(config, path, capsys) -> None:
    with room(config):
        assert main(["once", "--config", path]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["mate3s", "sc1", "sc2"]
    assert " V" in out[0]
    assert " W" in out[1]


def test_once_as_line_protocol_and_json_are_the_same_points(config, path, capsys) -> None:
    with room(config):
        assert main(["once", "--config", path, "--format", "lp"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["once", "--config", path, "--format", "json"]) == 0
        points = json.loads(capsys.readouterr().out)
    assert all(set(p) == {"measurement", "tags", "fields", "time"} for p in points)
    parsed = [line_protocol.parse(line) for line in lines]
    assert [(p.measurement, p.tags) for p in parsed] == [(p["measurement"], p["tags"]) for p in points]
    assert {p.measurement for p in parsed} >= {"mate3s", "inverter", "charge_controller", "device_status"}


def test_once_says_what_is_expected_of_chargers_where_the_site_is_known(make_config, path, capsys) -> None:
    at_the_pole = '[site]\nlatitude = {}90.0\nlongitude = 0.0\ntimezone = "UTC"'
    seen = []
    for sign in ("", "-"):
        hub, charger = free_ports(2)
        config = make_config(charger, hub=hub, interval_s=1, more=at_the_pole.format(sign))
        with room(config):
            assert main(["once", "--config", path, "--format", "json"]) == 0
        status = [p for p in json.loads(capsys.readouterr().out) if p["measurement"] == "device_status"]
        seen.append({p["tags"]["device"]: p["fields"]["expected"] for p in status})
    assert [one["mate3s"] for one in seen] == [1, 1]
    # Half a year of sun at one pole is night at the other; around an equinox it is low at both.
    assert sum(one["sc1"] for one in seen) <= 1


def test_once_with_a_silent_device_exits_3_and_prints_the_others(config, path, capsys) -> None:
    without_hub = config.model_copy(update={"devices": config.devices[1:]})
    with room(without_hub):
        assert main(["once", "--config", path]) == 3
    out = capsys.readouterr().out
    assert "mate3s  no answer" in out
    assert "sc1     output" in out


@pytest.mark.parametrize(
    "command", [["check-config"], ["once", "--config"], ["run", "--config"], ["simulate", "--config"]]
)
def test_a_bad_configuration_is_refused_with_every_fault_and_its_place(tmp_path, capsys, command) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('interval_s = 0\n[[devices]]\nname = "a"\ndriver = "outbck"\nhost = "192.168.1.300"\n')
    assert main([*command, str(bad)]) == 2
    faults = capsys.readouterr().err.splitlines()
    assert len(faults) == 3
    for place, fault in zip(
        ("interval_s", "devices[1].driver", "devices[1].host"),
        sorted(faults, key=lambda f: "interval" not in f),
        strict=True,
    ):
        assert f"{bad}: {place}" in fault


def test_a_good_configuration_passes_and_a_missing_one_does_not(config, path, capsys) -> None:
    assert main(["check-config", path]) == 0
    assert "3 devices every 1 s" in capsys.readouterr().out
    assert main(["check-config", path + ".gone"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_wrong_usage_exits_2(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fly"])
    assert exit_.value.code == 2


@pytest.fixture
def no_pauses(monkeypatch) -> None:
    monkeypatch.setattr("power_collector.probe.line.PAUSE_S", 0)
    monkeypatch.setattr("power_collector.probe.identify.RETRY_S", 0)


def targets(config) -> list[str]:
    return [f"{device.host}:{device.port}" for device in config.devices]


@pytest.mark.usefixtures("no_pauses")
def test_probe_in_each_format(config, capsys) -> None:
    with room(config):
        hub, charger, _ = targets(config)
        assert main(["probe", hub]) == 0
        out = capsys.readouterr()
        assert "1 host in " in out.err
        assert out.out.splitlines()[1].split()[:3] == [hub, "OutBack", "MATE3s"]
        assert "end of the chain: 65535, 0" in out.out
        assert main(["probe", charger, "--format", "json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert found["driver"] == "tristar-mppt-600v"
        assert main(["probe", charger, "--format", "yaml"]) == 0
        assert "  - name: sc1\n    driver: tristar-mppt-600v\n" in capsys.readouterr().out


def test_probe_of_nothing_says_where_to_look(capsys) -> None:
    (port,) = free_ports(1)
    assert main(["probe", "127.0.0.1", "--port", str(port)]) == 1
    out = capsys.readouterr()
    assert "check power, cable, addresses and --port" in out.err
    assert out.out == ""


@pytest.mark.usefixtures("no_pauses")
def test_probe_beside_a_silent_listener_exits_3(config, capsys) -> None:
    with room(config), socket.create_server(("127.0.0.1", 0)) as mute:
        charger, mute_port = targets(config)[1], mute.getsockname()[1]
        assert main(["probe", f"127.0.0.1:{mute_port}", charger]) == 3
    assert "did not come within" in capsys.readouterr().out


def test_probe_refuses_a_large_range(capsys) -> None:
    assert main(["probe", "10.0.0.0/8"]) == 2
    assert "ask at most a /22 at once" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pauses")
def test_probe_warns_where_a_collector_runs(config, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    charger = targets(config)[1]
    running = LATEST | {
        "clock": {"system_time": time.time()},
        "devices": [LATEST["devices"][0] | {"address": charger}],
    }
    (tmp_path / "latest.json").write_text(json.dumps(running))
    assert main(["probe", charger]) == 1
    out = capsys.readouterr()
    assert "a collector runs here and reads 1 of these addresses" in out.err
    assert "asked again, since at first: no connection" in out.out


def test_watch_without_a_terminal_prints_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert main(["watch"]) == 1
    assert "systemctl status power" in capsys.readouterr().err
    (tmp_path / "latest.json").write_text("[]")
    assert main(["watch"]) == 1
    assert "not written by a collector" in capsys.readouterr().err
    (tmp_path / "latest.json").write_text(json.dumps(LATEST))
    assert main(["watch"]) == 0
    out = capsys.readouterr().out
    for word in ("sc1", "412 W", "sc2", "s ago", "sc2: no answer", "does not run"):
        assert word in out


def test_watch_with_a_configuration_refuses_a_collector_that_has_another(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    path = tmp_path / "config.toml"
    charger = '[[devices]]\nname = "sc{0}"\ndriver = "tristar-mppt"\nhost = "a"\nport = {0}\n'
    path.write_text(charger.format(1) + charger.format(2))
    (tmp_path / "latest.json").write_text(json.dumps(LATEST))
    assert main(["watch", "--config", str(path)]) == 0
    assert "412 W" in capsys.readouterr().out
    path.write_text(charger.format(1) + charger.format(2) + charger.format(3))
    assert main(["watch", "--config", str(path)]) == 1
    assert "they differ in sc3; restart it" in capsys.readouterr().err
    path.write_text("")
    assert main(["watch", "--config", str(path)]) == 2


LATEST = {
    "time": 1_764_000_000,
    "interval_s": 15,
    "clock": {"time": 1_764_000_000, "system_time": 1_764_000_000, "source": 1, "offset_s": None},
    "devices": [
        {
            "name": "sc1",
            "driver": "tristar-mppt",
            "address": "a:1",
            "up": True,
            "failures": 0,
            "age_s": 0.0,
            "response_ms": 21.4,
            "error": None,
        },
        {
            "name": "sc2",
            "driver": "tristar-mppt",
            "address": "a:2",
            "up": False,
            "failures": 4,
            "age_s": 63.0,
            "response_ms": None,
            "error": "sc2: no answer",
        },
    ],
    "counters": {"stored_points": 0, "dropped_points": 0, "rejected_points": 0},
    "points": [
        {
            "measurement": "charge_controller",
            "tags": {"device": "sc1"},
            "fields": {"output_power_w": 412.0},
            "time": 1_764_000_000,
        },
    ],
}


def test_watch_on_a_terminal_draws_until_ctrl_c(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "latest.json").write_text(json.dumps(LATEST))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            (tmp_path / "latest.json").unlink()  # the service is being restarted
        if len(naps) == 4:
            raise KeyboardInterrupt

    watch.show(tmp_path, sleep=nap)
    assert len(naps) == 4
    assert "sc1" in capsys.readouterr().out


def test_the_runtime_directory_is_systemds(monkeypatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert latest.runtime_directory() is None
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/power-collector:/run/other")
    assert latest.runtime_directory() == Path("/run/power-collector")


def _start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "power_collector", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_service_collects_and_ends_at_sigterm_with_everything_stored(config, path, tmp_path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    with room(config), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        service = _start(
            "run", "--config", path, RUNTIME_DIRECTORY=str(runtime), NOTIFY_SOCKET=str(tmp_path / "notify")
        )
        try:
            told = [manager.recv(100) for _ in range(3)]
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=10)
        finally:
            service.kill()
    assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert service.returncode == 0
    assert "3 devices every 1 s" in log
    table = json.loads((runtime / "latest.json").read_text())
    assert all(device["up"] for device in table["devices"])
    with Store(config.store.path, max_mb=10, max_age_days=1) as store:
        lines = {line for batch in store.batches() for line in batch.lines()}
    assert {p["time"] for p in table["points"]} <= {int(line.rsplit(" ", 1)[1]) for line in lines}


def test_names_that_are_looked_up_in_vain_do_not_keep_the_process_from_ending(tmp_path, make_config) -> None:
    path = tmp_path / "config.toml"
    make_config(1, interval_s=1)
    path.write_text(path.read_text().replace('"127.0.0.1"', '"sc1.example"'))
    code = (
        "import socket, sys, time; from power_collector.cli import main;"
        "socket.getaddrinfo = lambda *_, **__: time.sleep(30);"
        f"sys.exit(main(['run', '--config', {str(path)!r}]))"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        service = subprocess.Popen([sys.executable, "-c", code], env=environment)
        try:
            assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
            service.send_signal(signal.SIGTERM)
            assert service.wait(timeout=10) == 0
        finally:
            service.kill()
            service.wait()
    with Store(tmp_path / "store.sqlite", max_mb=10, max_age_days=1) as store:
        assert store.points > 0


def test_the_simulator_serves_until_sigterm_and_says_when_it_cannot(config, path, tmp_path, capsys) -> None:
    with socket.create_server(("127.0.0.1", config.devices[0].port)):
        assert main(["simulate", "--config", path]) == 1
    assert "cannot listen" in capsys.readouterr().err
    control = tmp_path / "control.json"
    control.write_text('{"sc9": {}}')
    assert main(["simulate", "--config", path, "--control", str(control)]) == 1
    assert "no device 'sc9'" in capsys.readouterr().err
    served = _start("simulate", "--config", path)
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", config.devices[-1].port), timeout=1).close()
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.02)
        else:
            pytest.fail("the simulator does not listen")
        served.send_signal(signal.SIGTERM)
        served.communicate(timeout=10)
    finally:
        served.kill()
    assert served.returncode == 0


def test_rich_and_the_simulator_are_not_imported_by_the_service() -> None:
    code = (
        "import sys; import power_collector.cli, power_collector.service; "
        "never = {'rich', 'power_collector.simulator', 'sunspec2.modbus'}; "
        "print(sorted(never & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_the_demo_ends_by_itself_with_a_value_of_each_device_and_leaves_nothing(tmp_path) -> None:
    demo_ = subprocess.run(
        [sys.executable, "-m", "power_collector.demo"],
        env={**os.environ, "DEMO_SECONDS": "3", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert demo_.returncode == 0, demo_.stderr
    assert demo_.stderr == ""
    for name in ("mate3s", *(f"sc{n}" for n in range(1, 7))):
        assert any(line.startswith(f"{name} ") and (" V" in line) for line in demo_.stdout.splitlines())
    assert "7 of 7 devices have a value" in demo_.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_fails_where_a_device_has_no_value(monkeypatch, capsys) -> None:
    async def empty_room(config, **_: object) -> None:
        only_hub = config.model_copy(update={"devices": config.devices[:1]})
        async with simulator.SimulatedRoom(only_hub, bind=None, answers=None, control=None, zone=None):
            await asyncio.Event().wait()

    monkeypatch.setattr(demo.simulator, "run", empty_room)
    monkeypatch.setenv("DEMO_SECONDS", "2.5")
    assert demo.main() == 1
    out = capsys.readouterr().out
    assert "sc1     no value" in out
    assert "1 of 7 devices" in out


def test_the_demo_draws_on_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setenv("DEMO_SECONDS", "2.5")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert demo.main() == 0
    assert "7 of 7" in capsys.readouterr().out


def test_the_demo_says_when_its_room_fails(monkeypatch) -> None:
    async def broken_room(config, **_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(demo.simulator, "run", broken_room)
    monkeypatch.setenv("DEMO_SECONDS", "5")
    with pytest.raises(OSError, match="no room"):
        demo.main()
