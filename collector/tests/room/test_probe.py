"""The probe on a simulated network: what it finds, how gently it asks, and that nothing can make it fail."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_collector import probe
from power_collector.config import Config, DeviceConfig
from power_collector.probe import Kind, show
from power_collector.simulator import SimulatedRoom
from power_collector.simulator.server import ModbusError

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
NOON = 1_764_014_400.0
NETWORK = "127.0.1.0/24"
SUNSPEC, IDENTIFICATION, LIVE, SERIAL = (3, 40000, 2), (43, None, None), (3, 0, 80), (3, 0xE0C0, 4)


@pytest.fixture
def port() -> int:
    """A port that is free on the network's hosts."""
    with socket.socket() as sock:
        sock.bind(("127.0.1.100", 0))
        return sock.getsockname()[1]


@pytest.fixture
def seven(port) -> list[DeviceConfig]:
    """The ranch: a MATE3s at .100, chargers at .101 to .106."""
    devices = [DeviceConfig(name="mate3s", driver="outback", host="127.0.1.100", port=port, inverters=3)]
    for number in range(1, 7):
        driver = "tristar-mppt" if number == 6 else "tristar-mppt-600v"
        devices.append(DeviceConfig(name=f"sc{number}", driver=driver, host=f"127.0.1.10{number}", port=port))
    return devices


@pytest.fixture
def open_room(seven):
    """Serve devices in the loop's time; they may have seen nothing but reads of allowed registers."""

    @asynccontextmanager
    async def opened(devices=seven):
        loop = asyncio.get_running_loop()
        async with SimulatedRoom(Config(devices=devices), now=lambda: NOON + loop.time()) as room:
            yield room
        assert room.violations == []
        assert {entry["open"] for entry in room.answers if "open" in entry} <= {1}
        for device in devices:
            check_gentle([e for e in room.answers if e["device"] == device.name and "connection" in e])

    return opened


def check_gentle(entries) -> None:
    """At most five connections, each at least 200 ms after what was answered in the one before."""
    for before, after in itertools.pairwise(entries):
        if before["connection"] != after["connection"]:
            assert after["connection"] == before["connection"] + 1
            assert after["time"] - before["time"] >= 0.2 - 1e-6
    assert len({entry["connection"] for entry in entries}) <= 5


def questions(room, device) -> list[tuple[int, int | None, int | None]]:
    return [
        (entry["function"], entry.get("address"), entry.get("count"))
        for entry in room.answers
        if entry["device"] == device
    ]


async def ask(port, *hosts, **options) -> list[probe.Finding]:
    return await probe.scan(probe.parse(hosts, str(port)), **options)


async def ask_one(port, host="127.0.1.100", **options) -> probe.Finding:
    (finding,) = await ask(port, host, **options)
    return finding


async def test_a_network_of_seven_devices(open_room, port):
    async with open_room() as room:
        found = await ask(port, NETWORK)
        assert [one.address for one in found] == [f"127.0.1.10{n}:{port}" for n in range(7)]
        assert [one.kind for one in found] == [
            Kind.OUTBACK, *[Kind.TRISTAR_600V] * 5, Kind.TRISTAR_150V,
        ]  # fmt: skip
        for one, device in zip(found, room.config.devices, strict=True):
            entries = [entry for entry in room.answers if entry["device"] == device.name]
            assert one.requests == len(entries)
            assert one.connections == entries[-1]["connection"]


async def test_a_network_of_dead_hosts_takes_less_than_ten_seconds(open_room, port, monkeypatch):
    """Hosts that are not there answer nothing; both ports are tried, one after the other."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection
    trying: list[str] = []
    most = 0

    async def connect_or_wait(factory, host, port_, **options):
        nonlocal most
        assert host not in trying, "one connection at a time to a host"
        trying.append(host)
        most = max(most, len(trying))
        try:
            if 100 <= int(host.split(".")[3]) <= 106 and port_ == port:
                return await connect(factory, host, port_, **options)
            await asyncio.Event().wait()
        finally:
            trying.remove(host)

    monkeypatch.setattr(loop, "create_connection", connect_or_wait)
    async with open_room():
        begin = loop.time()
        found = await ask(f"1,{port}", NETWORK)
        assert loop.time() - begin < 10
    assert len(found) == 7
    assert most == 64


async def test_a_single_host_has_time_for_a_second_packet(port, monkeypatch):
    """It is sent after a second; the first one may be lost, by Wi-Fi or while the address is resolved."""
    loop = asyncio.get_running_loop()

    async def never(*_args, **_options):
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "create_connection", never)
    begin = loop.time()
    assert await ask(port, "127.0.1.100") == []
    assert 2 <= loop.time() - begin < 5


async def test_the_mate3s_is_asked_for_sunspec_alone_in_one_connection(open_room, port):
    async with open_room() as room:
        found = await ask_one(port)
        asked = questions(room, "mate3s")
    assert asked[0] == SUNSPEC
    assert found.connections == 1
    assert found.requests == len(asked) <= 25
    assert {function for function, _, _ in asked} == {3}
    assert show.what(found) == "OutBack MATE3s (MATE3S)"
    assert show.behind(found) == "3 x split-phase inverter (ports 1, 2, 3)"
    assert (found.firmware, found.serial) == ("001.004.317", "SIM-0001")
    assert found.notes == []
    assert found.facts["end of the chain"] == "65535, 0 at 41084"
    assert found.facts["lengths of 64115"] == "59, 59, 59"
    assert found.facts["firmware in 64110"] == "1.4.317"
    assert found.facts["power in 102"].endswith("with scale factor -1")
    assert found.facts["output of the inverters together"].endswith(" kW")


async def test_the_settings_and_passwords_of_the_mate3s_are_left_alone(open_room, port):
    async with open_room() as room:
        await ask_one(port)
        begin, settings_ = 40069, {64116, 64120}
        blocks = {e["address"]: e["registers"][0] for e in room.answers if e["count"] == 2}
        for entry in room.answers:
            registers = set(range(entry["address"], entry["address"] + entry["count"]))
            assert not registers & set(range(begin + 5, begin + 422))
            if blocks.get(entry["address"]) in settings_:
                assert entry["count"] == 2


async def test_a_tristar_is_asked_for_sunspec_first_and_each_in_a_connection_of_its_own(open_room, port):
    async with open_room() as room:
        found = await ask_one(port, "127.0.1.101")
        assert questions(room, "sc1") == [SUNSPEC, IDENTIFICATION, LIVE, SERIAL]
        assert [entry["connection"] for entry in room.answers] == [1, 2, 3, 4]
    assert show.what(found) == "TriStar MPPT 600V (TS-MPPT-60-600V-48)"
    assert (found.firmware, found.serial) == ("21", "24010001")
    assert found.facts["register 0x44, energy today"].startswith("Wh as an integer (0x")


MATE3S, TRISTAR = "OutBack MATE3s (MATE3S)", "TriStar MPPT 600V (TS-MPPT-60-600V-48)"
END, TODAY = "end of the chain", "register 0x44, energy today"
TRAITS = {
    "older firmware": ("mate3s", {"short_blocks": True}, MATE3S, {"lengths of 64115": "58, 58, 58"}),
    "single phase": ("mate3s", {"single_phase": True}, MATE3S, {"lengths of 64117": "47, 47, 47"}),
    "model 103": ("mate3s", {"inverter_model": 103}, MATE3S, {"power in 103": ""}),
    "no end": ("mate3s", {"end": "never"}, MATE3S, {END: "none within 100 blocks"}),
    "AXS Port": ("mate3s", {"end": "zeros"}, "OutBack AXS Port (AXS_PORT)", {END: "0, 0 at 41084"}),
    "another maker's inverter": (
        "mate3s",
        {"other_maker": True, "inverter_model": 103},
        "another SunSpec inverter (model 103): Sunny Works SW-5000",
        {END: "65535, 0 at 40121"},
    ),
    "150 V": ("sc6", {}, "TriStar MPPT 150 V (TS-MPPT-60)", {}),
    "Wh": ("sc1", {}, TRISTAR, {TODAY: "Wh as an integer (0x"}),
    "half float kWh": ("sc1", {"today": "half-float-kwh"}, TRISTAR, {TODAY: "kWh as a half float (0x"}),
    "nameless 600V": ("sc1", {"identifies": False}, "TriStar MPPT 600V", {TODAY: "Wh as an integer (0x"}),
    "nameless 150 V": ("sc6", {"identifies": False}, "TriStar MPPT 150 V", {}),
    "meter": ("sc1", {"other_maker": True}, "another Modbus device: Metering Works M-16", {}),
    "nameless meter": (
        "sc1",
        {"other_maker": True, "identifies": False},
        "another Modbus device: it does not tell what",
        {},
    ),
}


@pytest.mark.parametrize(("device", "traits", "what", "facts"), TRAITS.values(), ids=TRAITS)
async def test_what_it_tells_apart(open_room, port, seven, device, traits, what, facts):
    async with open_room() as room:
        room.change(device, **traits)
        host = next(one.host for one in seven if one.name == device)
        found = await ask_one(port, host)
    assert show.what(found) == what
    for name, value in facts.items():
        assert found.facts[name].startswith(value)


class Dump:
    """The registers of a real device, from a file."""

    traits = None

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").split()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        self._registers = {int(address.rstrip(",")): int(value) for address, value in pairs}

    def identity(self):
        return None

    def read(self, _time, address, count, *, nan):
        try:
            return [self._registers[register] for register in range(address, address + count)]
        except KeyError:
            raise ModbusError(2) from None


async def test_a_real_axs_port(open_room, port):
    dump = REFERENCE / "axs_port_dump.csv"
    if not dump.exists():
        pytest.skip("no dump of a real AXS Port here")
    async with open_room() as room:
        room._servers["mate3s"].image = Dump(dump)
        found = await ask_one(port)
    assert show.what(found) == "OutBack AXS Port (AXS_PORT)"
    assert found.firmware == "003.019.000.2049"
    assert found.facts["firmware in 64110"] == "3.19.0"
    assert found.facts["end of the chain"] == "0, 0 at 40491"
    assert found.hub == []
    assert found.requests <= 10


@pytest.mark.parametrize(("firmware", "agree"), [(15, "do not agree"), (17, "agree with")])
async def test_an_old_firmware_of_the_600v_is_told(open_room, port, firmware, agree):
    async with open_room() as room:
        room.change("sc1", firmware=firmware)
        found = await ask_one(port, "127.0.1.101")
    assert found.kind is Kind.TRISTAR_600V
    (note,) = found.notes
    assert "certain from firmware 19 on" in note
    assert agree in note


async def test_hub_ports_are_told_as_they_are(open_room, port):
    async with open_room() as room:
        room.change("mate3s", inverters=2, ports=(4, 7))
        assert show.behind(await ask_one(port)) == "2 x split-phase inverter (ports 4, 7)"


# Devices that do not answer as they should


FAULTS = {
    "silent": (Kind.MUTE, "did not come within 1.5 s"),
    "refusing": (None, ""),
    "reset": (Kind.MUTE, "closed the connection without an answer"),
    "hang-up": (Kind.MUTE, "closed the connection without an answer"),
    "busy": (Kind.MODBUS, "exception 6 (busy)"),
    "exception": (Kind.MODBUS, "exception 4 (device failure)"),
    "garbage": (Kind.NOT_MODBUS, "does not answer the request"),
    "wrong-transaction": (Kind.NOT_MODBUS, "does not answer the request"),
    "truncated": (Kind.MUTE, "did not come within 1.5 s"),
    "short": (Kind.NOT_MODBUS, "does not answer the request"),
}


@pytest.mark.parametrize("host", ["127.0.1.100", "127.0.1.101"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_device_is_told_as_such(open_room, port, fault, host):
    kind, cause = FAULTS[fault]
    async with open_room() as room:
        await room.fault("*", fault)
        found = await ask(port, host)
    assert [one.kind for one in found] == ([] if kind is None else [kind])
    for one in found:
        assert cause in one.notes[-1]
        assert "device (" not in one.notes[-1]


async def test_a_slow_device_is_found(open_room, port):
    async with open_room() as room:
        await room.behave("*", latency_ms=150)
        found = await ask(port, "127.0.1.100", "127.0.1.101")
    assert [one.kind for one in found] == [Kind.OUTBACK, Kind.TRISTAR_600V]
    assert found[0].hub != []


@pytest.mark.parametrize("fault", ["silent", "hang-up", "reset", "busy"])
@pytest.mark.parametrize("host", ["127.0.1.100", "127.0.1.101"])
async def test_a_device_that_another_program_holds_is_asked_once_more(open_room, port, fault, host):
    async with open_room() as room:

        async def sleep_and_heal(seconds):
            await asyncio.sleep(seconds)
            if seconds == 1:
                await room.fault("*", None)

        await room.fault("*", fault)
        found = await ask_one(port, host, sleep=sleep_and_heal)
    assert found.kind.driver is not None
    assert found.serial != ""
    (note,) = found.notes
    assert note.startswith("asked again, since at first: ")


async def test_a_device_that_serves_one_client_at_a_time(open_room, port):
    """The other client goes away in time; the probe itself never has two connections open."""
    async with open_room() as room:
        await room.behave("*", one_client=True)
        assert (await ask_one(port, "127.0.1.101")).serial == "24010001"
        _, other = await asyncio.open_connection("127.0.1.100", port)

        async def sleep_while_it_goes(seconds):
            other.close()
            await asyncio.sleep(seconds)

        found = await ask_one(port, sleep=sleep_while_it_goes)
    assert found.kind is Kind.OUTBACK
    assert "closed the connection" in found.notes[0]


async def test_a_walk_that_is_interrupted_goes_on_at_the_second_time(open_room, port):
    async with open_room() as room:
        asked = 0
        answer = room._servers["mate3s"]._answer

        def hang_up_after_ten(unit, pdu):
            nonlocal asked
            asked += 1
            if asked == 10:
                raise ConnectionError
            return answer(unit, pdu)

        room._servers["mate3s"]._answer = hang_up_after_ten
        found = await ask_one(port)
        assert questions(room, "mate3s").count(SUNSPEC) == 1
    assert found.connections == 2
    assert len(found.blocks) == 11
    assert show.behind(found).startswith("3 x")


async def test_a_port_that_refuses_is_nobody_unless_a_collector_reads_it(open_room, port):
    address = f"127.0.1.101:{port}"
    async with open_room() as room:
        await room.fault("sc1", "refusing")
        assert await ask(port, "127.0.1.101") == []
        (found,) = await ask(port, "127.0.1.101", held={address})
        assert found.kind is Kind.MUTE
        assert "Connection refused" in found.notes[-1]

        async def sleep_and_heal(seconds):
            await asyncio.sleep(seconds)
            await room.fault("sc1", None)

        (found,) = await ask(port, "127.0.1.101", held={address}, sleep=sleep_and_heal)
    assert found.kind is Kind.TRISTAR_600V


async def test_the_second_port_is_tried_where_the_first_has_no_device(open_room, port):
    async with open_room():
        found = await ask(f"1,{port}", "127.0.1.100", "127.0.1.101")
    assert [one.port for one in found] == [port, port]


@asynccontextmanager
async def mute_listener(host):
    """Accepts connections at a port of its own, counts them, says nothing."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    yield server.sockets[0].getsockname()[1], connections
    server.close()


async def test_a_host_is_connected_to_five_times_at_most_at_all_its_ports(open_room, port):
    async with open_room() as room, mute_listener("127.0.1.101") as (mute, connections):
        nobody, charger = await ask(f"{mute},{port}", "127.0.1.101")
        assert len(connections) + room.answers[-1]["connection"] == 5
    assert (nobody.kind, nobody.connections) == (Kind.MUTE, 2)
    assert (charger.kind, charger.connections, charger.serial) == (Kind.TRISTAR_600V, 3, "")
    assert charger.facts != {}
    assert charger.notes == ["connected 5 times: left alone"]


async def test_ports_that_were_not_tried_are_told(open_room, port):
    async with (
        open_room(),
        mute_listener("127.0.1.101") as (one, _),
        mute_listener("127.0.1.101") as (two, _),
        mute_listener("127.0.1.101") as (three, _),
    ):
        found = await ask(f"{one},{two},{three},{port}", "127.0.1.101")
    assert [finding.connections for finding in found] == [2, 2, 1]
    assert found[-1].notes[-1].startswith(f"port {port} was not tried")


async def test_no_other_port_of_a_device_that_was_found_is_tried(open_room, port):
    async with open_room(), mute_listener("127.0.1.100") as (mute, connections):
        (found,) = await ask(f"{port},{mute}", "127.0.1.100")
    assert found.port == port
    assert connections == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.lists(
        st.tuples(st.sampled_from(["raw", "registers", "identification"]), st.binary(max_size=260)),
        max_size=12,
    ),
    closes=st.booleans(),
)
async def test_whatever_a_host_sends(answers, closes):
    """No exception leaves the probe, and it comes to an end."""
    connections, tasks = 0, set()

    async def serve(reader, writer):
        nonlocal connections
        tasks.add(asyncio.current_task())
        connections += 1
        try:
            while answers and (request := await reader.read(260)):
                kind, noise = answers.pop(0)
                if kind == "registers":
                    size = 2 * int.from_bytes(request[10:12], "big")
                    noise = request[:4] + bytes((0, size + 3, 1, 3, size)) + noise.ljust(size, b"S")[:size]
                elif kind == "identification":
                    noise = request[:4] + bytes((0, len(noise) + 4 & 255, 1, 43, 14, 1)) + noise
                writer.write(noise)
                if closes:
                    break
            if not closes:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    begin, complaints = loop.time(), []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    found = await ask(server.sockets[0].getsockname()[1], "127.0.0.1")
    server.close()
    await asyncio.gather(*tasks)
    assert len(found) == 1
    assert all(char.isprintable() for char in f"{show.what(found[0])}{found[0].serial}{found[0].firmware}")
    assert show.as_table(found)
    assert show.as_json(found)
    assert show.as_yaml(found, "")
    assert connections <= 5
    assert loop.time() - begin < 60
    assert complaints == []
