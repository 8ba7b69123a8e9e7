"""The room: its addresses, its log, its control file."""

import asyncio
import contextlib
import json
import logging
import socket
from pathlib import Path

import pytest

from power_collector import simulator
from power_collector.config import Config, DeviceConfig
from power_collector.simulator import ControlError, SimulatedRoom, room

READ = bytes.fromhex("0007 0000 0006 01 03 003a 0001")


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (a log line, a file: nobody sets an event)
            await asyncio.sleep(0.02)


def replace(path, content):
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    new.replace(path)


def test_nothing_of_the_drivers_is_used():
    files = list(Path(simulator.__path__[0]).glob("*.py"))
    imports = [line for file in files for line in file.read_text().splitlines() if "import " in line]
    assert len(imports) > 20
    assert not [line for line in imports if "devices" in line or "sunspec" in line or "pymodbus" in line]


async def test_config_has_the_ports_that_are_served(make_room, config):
    async with make_room() as served:
        devices = served.config.devices
        assert [device.name for device in devices] == [device.name for device in config.devices]
        assert {device.host for device in devices} == {"127.0.0.1"}
        assert len({device.port for device in devices}) == len(devices)


async def test_hosts_and_ports_of_the_configuration_are_used():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports = {"free": free.getsockname()[1], "taken": taken.getsockname()[1]}
        config = Config(
            devices=[
                DeviceConfig(name=name, driver="tristar-mppt", host="127.0.0.1", port=port)
                for name, port in ports.items()
            ]
        )
        with pytest.raises(OSError, match=r"taken cannot listen on 127\.0\.0\.1:.*a port of its own"):
            async with SimulatedRoom(config):
                pass
    async with SimulatedRoom(config) as served:
        assert served.config == config


async def test_the_log_is_what_was_answered(make_room, ask, read, tmp_path, noon):
    log = tmp_path / "answers.jsonl"
    async with make_room(answers=log) as served:
        registers = await read(served, "sc1", 24, 3)
        await served.fault("sc1", "busy")
        await ask(served, "sc1", READ)
        # Whole lines at once, while it runs.
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    common = {"time": noon, "device": "sc1", "function": 3, "open": 1}
    assert lines == [
        common | {"address": 24, "count": 3, "registers": registers, "connection": 1},
        common | {"address": 58, "count": 1, "fault": "busy", "connection": 2},
    ]
    assert lines == list(served.answers)


async def test_the_log_is_bounded(make_room, ask, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LOG_BYTES", 1000)
    log = tmp_path / "answers.jsonl"
    async with make_room(answers=log) as served:
        await served.behave("sc1", keep_open=True)
        await ask(served, "sc1", *[READ] * 50)
    assert log.stat().st_size <= 1200
    assert (tmp_path / "answers.jsonl.1").stat().st_size <= 1200


async def test_the_control_file_switches_faults_while_running(make_room, ask, read, tmp_path, caplog):
    control = tmp_path / "control.json"
    replace(control, {"*": {"keep_open": True}, "sc1": {"fault": "busy"}, "sc2": {"fault": "refusing"}})
    async with make_room(control=control) as served:
        assert (await ask(served, "sc1", READ, READ))[7:9] == b"\x83\x06"
        with pytest.raises(ConnectionRefusedError):
            await ask(served, "sc2", READ)
        caplog.set_level(logging.INFO)
        caplog.clear()  # the beginning is told, too, where another test has set the level
        replace(control, {"sc2": {"latency_ms": 1}, "mate3s": {"traits": {"inverters": 2, "ports": [4, 6]}}})
        await until(lambda: "sc2 now" in caplog.text)
        assert (await ask(served, "sc1", READ))[7] == 3
        assert (await ask(served, "sc2", READ))[7] == 3
        assert await read(served, "mate3s", 40069 + 422 + 27 + 52 + 58 + 2, 1) == [4]
        control.unlink()
        await until(lambda: caplog.text.count("sc2 now") == 2)
        assert await read(served, "mate3s", 40069 + 422 + 27 + 52 + 58 + 2, 1) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[]", "an object of objects"),
        ('{"sc9": {}}', "no device 'sc9'"),
        ('{"sc1": {"fault": "fire"}}', "sc1: fault: "),
        ('{"sc1": {"seconds": -1}}', "sc1: seconds: "),
        ('{"sc1": {"speed": 1}}', "sc1: speed: "),
        ('{"sc1": {"traits": {"inverters": 1}}}', "sc1: traits: inverters: "),
        ('{"sc1": {"traits": 5}}', "sc1: traits: "),
    ],
)
async def test_a_control_file_that_cannot_be_used_changes_nothing(
    make_room, ask, tmp_path, caplog, content, message
):
    control = tmp_path / "control.json"
    replace(control, content)
    with pytest.raises(ControlError, match=message):
        async with make_room(control=control):
            pass
    replace(control, {"sc2": {"fault": "busy"}})
    async with make_room(control=control) as served:
        replace(control, content)
        await until(lambda: "control not applied" in caplog.text)
        assert message in caplog.text
        assert (await ask(served, "sc2", READ))[7:9] == b"\x83\x06"


async def test_unknown_names_are_refused(make_room):
    async with make_room() as served:
        with pytest.raises(ControlError, match="there are mate3s, sc1"):
            await served.fault("sc9", "busy")
        with pytest.raises(ControlError, match="sc1: traits: wings: "):
            served.change("sc1", wings=2)


async def test_run_serves_until_it_is_cancelled(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    device = DeviceConfig(name="sc1", driver="tristar-mppt-600v", host="192.0.2.1", port=port)
    log = tmp_path / "answers.jsonl"
    serving = asyncio.create_task(simulator.run(Config(devices=[device]), bind="127.0.0.1", answers=log))

    async def answered():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(READ)
        answer = await reader.read()
        writer.close()
        return answer

    async def listening():
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await answered()
            await asyncio.sleep(0.02)

    assert len(await asyncio.wait_for(listening(), 5)) == 11
    assert len(log.read_text().splitlines()) == 1
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(ConnectionRefusedError):
        await answered()
