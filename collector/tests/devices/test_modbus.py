"""The client factory: only reads leave it, and only DeviceErrors."""

from __future__ import annotations

import ast
import asyncio
import logging
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

import power_collector
from power_collector.devices import modbus
from power_collector.devices.base import (
    DeviceError,
    NoAnswerError,
    RefusedError,
    UnexpectedAnswerError,
    UnreachableError,
)

PACKAGE = Path(power_collector.__file__).parent


def session(device, timeout_s=2.0):
    return modbus.session("sc1", "127.0.0.1", device.port, timeout_s)


async def read(device, timeout_s=2.0, count=3, times=1):
    async with session(device, timeout_s) as opened:
        for _ in range(times):
            registers = await opened.read_holding_registers(0, count)
    return registers


@pytest.fixture
async def three(serve):
    """A device with the registers 7, 8, 9."""
    return await serve(registers={0: 7, 1: 8, 2: 9})


async def test_reads_registers_and_counts_requests(three):
    async with session(three) as opened:
        assert await opened.read_holding_registers(0, 3) == [7, 8, 9]
        assert await opened.read_holding_registers(2, 1) == [9]
        assert opened.requests == 2
    assert three.requests == [(3, 0, 3), (3, 2, 1)]


async def test_closes_the_connection(three, eventually):
    await read(three)
    await eventually(lambda: not three.open)
    assert three.connections == 1


async def test_closes_the_connection_when_the_body_fails(three, eventually):
    async def fail():
        async with session(three) as opened:
            await opened.read_holding_registers(0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await eventually(lambda: not three.open)


async def test_a_device_that_closes_after_its_answer(three, eventually):
    three.closes_after_answer = True
    assert await read(three) == [7, 8, 9]
    async with session(three) as opened:
        await opened.read_holding_registers(0, 3)
        await eventually(lambda: not opened._client.connected)
        with pytest.raises(UnreachableError, match="closed the connection"):
            await opened.read_holding_registers(0, 3)


async def test_refused_connection_names_device_cause_and_remedy(unused_port):
    with pytest.raises(
        UnreachableError, match=r"sc1 \(127\.0\.0\.1:\d+\): no connection: .*refused.*; check"
    ):
        async with modbus.session("sc1", "127.0.0.1", unused_port, 2.0):
            pytest.fail("not reached")


async def test_name_that_does_not_resolve():
    with pytest.raises(UnreachableError, match="no connection"):
        async with modbus.session("sc1", "device.invalid", 502, 10.0):
            pytest.fail("not reached")


async def test_connection_that_never_comes(monkeypatch):
    async def never(*_args, **_options):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(UnreachableError, match=r"no connection within 0\.05 s; check"):
        async with modbus.session("sc1", "127.0.0.1", 502, 0.05):
            pytest.fail("not reached")


async def test_silent_device(three):
    three.silent_after = 1
    async with asyncio.timeout(10):
        with pytest.raises(NoAnswerError, match=r"sc1 .* did not come within 0\.1 s"):
            await read(three, timeout_s=0.1, times=2)


async def test_the_time_covers_all_requests_together(three):
    three.latency_s = 0.04
    with pytest.raises(NoAnswerError):
        await read(three, timeout_s=0.1, times=5)
    assert len(three.requests) < 5


async def test_exception_answer(serve):
    device = await serve(registers={0: 1}, exceptions={0: 6})
    with pytest.raises(RefusedError, match=r"registers 0 to 0 with Modbus exception 6 \(busy\)") as refused:
        await read(device, count=1)
    assert refused.value.exception_code == 6


async def test_the_session_goes_on_after_a_refusal(three):
    async with session(three) as opened:
        with pytest.raises(RefusedError) as refused:
            await opened.read_holding_registers(100, 1)
        assert refused.value.exception_code == modbus.ILLEGAL_ADDRESS
        assert await opened.read_holding_registers(0, 3) == [7, 8, 9]


def other_transaction(answer):
    return struct.pack(">H", struct.unpack(">H", answer[:2])[0] + 1) + answer[2:]


WRONG = {
    "garbage": lambda answer: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "one byte of garbage": lambda answer: b"\xff",
    "other transaction": other_transaction,
    "other unit": lambda answer: answer[:6] + b"\x02" + answer[7:],
    "other function": lambda answer: answer[:7] + b"\x04" + answer[8:],
    "write answer": lambda answer: answer[:7] + b"\x10" + answer[8:],
    "fewer registers": lambda answer: answer[:5] + b"\x07\x01\x03\x04" + answer[9:13],
    "more registers": lambda answer: answer[:5] + b"\x0b\x01\x03\x08" + answer[9:] + b"\0\0",
    "wrong length": lambda answer: answer[:4] + b"\x00\x05" + answer[6:],
    "no length": lambda answer: answer[:4] + b"\x00\x00" + answer[6:],
    "long exception": lambda answer: answer[:4] + b"\x00\x04\x01\x83\x02\x02",
    "unknown function": lambda answer: answer[:7] + b"\x63" + answer[8:],
}


@pytest.mark.parametrize("mangle", WRONG.values(), ids=WRONG.keys())
async def test_something_else_than_the_answer_is_told_at_once(three, mangle, caplog):
    three.mangle = mangle
    async with asyncio.timeout(10):
        with pytest.raises(UnexpectedAnswerError, match=r"sc1 .* does not answer the request"):
            await read(three, timeout_s=30)
    assert caplog.records == []


async def test_answer_in_pieces(serve):
    async def in_pieces(reader, writer):
        request = await reader.read(100)
        answer = request[:4] + b"\x00\x05\x01\x03\x02\x12\x34"
        for byte in answer:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    device = await serve(script=in_pieces)
    async with session(device) as opened:
        assert await opened.read_holding_registers(0, 1) == [0x1234]


@pytest.mark.parametrize("kept", [0, 1, 8, 12])
async def test_hanging_up_before_the_end_of_the_answer_is_told_at_once(three, kept):
    three.mangle = lambda answer: answer[:kept] or None
    three.closes_after_answer = True
    async with asyncio.timeout(10):
        with pytest.raises(UnreachableError, match="closed the connection without an answer"):
            await read(three, timeout_s=30)


async def test_reset(serve):
    async def reset(reader, writer):
        await reader.read(100)
        writer.transport.abort()

    device = await serve(script=reset)
    async with asyncio.timeout(10):
        with pytest.raises(UnreachableError):
            await read(device, timeout_s=30)


async def test_half_close(serve):
    async def half_close(reader, writer):
        await reader.read(100)
        writer.write_eof()
        await reader.read()

    device = await serve(script=half_close)
    async with asyncio.timeout(10):
        with pytest.raises(UnreachableError):
            await read(device, timeout_s=30)


async def test_what_comes_unasked_is_dropped(serve):
    async def talkative(reader, writer):
        writer.write(b"welcome!")
        await writer.drain()
        request = await reader.read(100)
        writer.write(request[:4] + b"\x00\x05\x01\x03\x02\x12\x34")
        await reader.read()

    device = await serve(script=talkative)
    async with session(device) as opened:
        await asyncio.sleep(0.05)
        assert await opened.read_holding_registers(0, 1) == [0x1234]


async def test_cancellation_passes_and_closes(three, eventually):
    three.silent_after = 0
    task = asyncio.create_task(read(three, timeout_s=30))
    await eventually(lambda: three.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not three.open)


@pytest.mark.parametrize("count", [0, 101, -1])
async def test_too_many_registers_are_our_own_fault(three, count):
    async with session(three) as opened:
        with pytest.raises(ValueError, match="1 to 100"):
            await opened.read_holding_registers(0, count)
    assert three.requests == []


async def test_pymodbus_writes_no_log_lines(three, caplog):
    caplog.set_level(logging.DEBUG)
    three.silent_after = 0
    with pytest.raises(NoAnswerError):
        await read(three, timeout_s=0.05)
    assert [record for record in caplog.records if record.name.startswith("pymodbus")] == []


WRITES = {
    "write coil": lambda client: client.write_coil(0, True),
    "write register": lambda client: client.write_register(0, 1),
    "write coils": lambda client: client.write_coils(0, [True]),
    "write registers": lambda client: client.write_registers(0, [1]),
    "mask write": lambda client: client.mask_write_register(address=0),
    "read and write": lambda client: client.readwrite_registers(read_count=1, values=[1]),
    "write file": lambda client: client.write_file_record([]),
    "restart": lambda client: client.diag_restart_communication(False),
    "without answer": lambda client: client.write_register(0, 1, no_response_expected=True),
    "read coils": lambda client: client.read_coils(0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_nothing_but_reads_reaches_the_socket(three, write):
    async with session(three) as opened:
        with pytest.raises(modbus.ForbiddenFunctionError, match="is not a read"):
            await write(opened._client)
        # The peer saw nothing before this, and the session is still good.
        assert await opened.read_holding_registers(0, 1) == [7]
    assert len(three.received) == 12
    assert three.received[7] == 3


def identification(*objects: tuple[int, bytes]) -> bytes:
    body = b"".join(bytes((number, len(text))) + text for number, text in objects)
    return bytes((0x2B, 0x0E, 1, 1, 0, 0, len(objects))) + body


def answering(pdu: bytes):
    """Answer with this, whatever is asked."""
    return lambda request: request[:4] + struct.pack(">HB", len(pdu) + 1, 1) + pdu


async def identify(device, timeout_s=2.0):
    async with session(device, timeout_s) as opened:
        return await opened.read_identification()


async def test_device_identification(serve):
    device = await serve()
    device.answer = answering(identification((0, b"Morningstar Corp."), (1, b"TS-MPPT-60"), (2, b"")))
    assert await identify(device) == {0: b"Morningstar Corp.", 1: b"TS-MPPT-60", 2: b""}
    assert device.received[6:] == bytes((1, 0x2B, 0x0E, 1, 0))


async def test_device_identification_in_pieces(serve):
    async def in_pieces(reader, writer):
        request = await reader.read(100)
        for byte in answering(identification((0, b"maker"), (1, b"product")))(request):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    assert await identify(await serve(script=in_pieces)) == {0: b"maker", 1: b"product"}


async def test_a_device_that_does_not_identify_itself(serve):
    device = await serve()
    device.answer = answering(b"\xab\x01")
    with pytest.raises(RefusedError, match="its identification with Modbus exception 1"):
        await identify(device)


NO_IDENTIFICATION = {
    "registers": b"\x03\x02\x00\x00",
    "another MEI type": b"\x2b\x0d\x01\x01\x00\x00\x00",
    "too short": b"\x2b\x0e\x01\x01\x00\x00",
    "half an object": identification((0, b"maker")) + b"\x01",
    "an object that is too long": identification((0, b"maker"))[:-1],
}


@pytest.mark.parametrize("pdu", NO_IDENTIFICATION.values(), ids=NO_IDENTIFICATION.keys())
async def test_something_else_than_an_identification_is_told_at_once(serve, pdu, caplog):
    device = await serve()
    device.answer = answering(pdu)
    async with asyncio.timeout(10):
        with pytest.raises(UnexpectedAnswerError, match="does not answer the request"):
            await identify(device, timeout_s=30)
    assert caplog.records == []


async def test_an_answer_that_does_not_come_is_no_hanging_up(three):
    three.silent_after = 0
    async with modbus.session("sc1", "127.0.0.1", three.port, 30, answer_s=0.05) as opened:
        with pytest.raises(NoAnswerError, match=r"did not come within 0\.05 s"):
            await opened.read_holding_registers(0, 1)
        three.silent_after = 1000
        assert await opened.read_holding_registers(0, 1) == [7]


async def test_a_connection_may_have_less_time_than_the_whole(monkeypatch):
    async def never(*_args, **_options):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(UnreachableError, match=r"no connection within 0\.05 s"):
        async with modbus.session("sc1", "127.0.0.1", 502, 30, connect_s=0.05):
            pytest.fail("not reached")


def calls_and_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


SOURCES = sorted(PACKAGE.rglob("*.py"))
NOT_READING = {
    name
    for name in vars(ModbusClientMixin)
    if not name.startswith(("_", "read_", "convert_")) and name not in ("execute", "DATATYPE")
}


def faults(source: str, *, is_factory: bool) -> set[str]:
    names = set(calls_and_imports(ast.parse(source)))
    bad = {name for name in names if name.startswith("sunspec2.modbus")} | (names & NOT_READING)
    if not is_factory:
        bad |= {name for name in names if name.startswith("pymodbus.client")}
        bad |= {name for name in names if "Modbus" in name and name.endswith("Client")}
    return bad


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_the_package_reads_only(path):
    source = path.read_text(encoding="utf-8")
    assert faults(source, is_factory=path == PACKAGE / "devices" / "modbus.py") == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pymodbus.client",
        "from pymodbus.client import AsyncModbusUdpClient",
        "from pymodbus import client; client.AsyncModbusTcpClient('h')",
        "import sunspec2.modbus.client",
        "from sunspec2 import modbus",
        "client.write_register(1, 2)",
        "getattr(client, name) or client.readwrite_registers",
    ],
)
def test_the_check_of_the_package_sees(source):
    assert faults(source, is_factory=False)


def test_the_check_knows_the_writing_methods():
    assert {
        "write_register",
        "write_registers",
        "write_coil",
        "write_coils",
        "mask_write_register",
    } <= NOT_READING


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.integers(0, 15),
    noise=st.binary(max_size=300),
    closes=st.booleans(),
)
async def test_whatever_a_device_sends(three, prefix, noise, closes):
    three.mangle = lambda answer: (answer[:prefix] + noise) or None
    three.closes_after_answer = closes
    async with asyncio.timeout(10):
        try:
            registers = await read(three, timeout_s=0.05)
        except DeviceError:
            return
    assert len(registers) == 3
    assert all(0 <= register <= 0xFFFF for register in registers)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.integers(0, 22),
    noise=st.binary(max_size=300),
    closes=st.booleans(),
)
async def test_whatever_a_device_sends_as_its_identification(serve, prefix, noise, closes):
    device = await serve(closes_after_answer=closes)
    device.answer = lambda request: (
        (answering(identification((0, b"maker"), (1, b"product")))(request)[:prefix] + noise) or b"\0"
    )
    async with asyncio.timeout(10):
        try:
            told = await identify(device, timeout_s=0.05)
        except DeviceError:
            return
    assert all(isinstance(text, bytes) for text in told.values())
