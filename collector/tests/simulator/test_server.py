"""The wire: what is answered, what is refused and recorded, and each fault."""

import asyncio
import struct

import pytest

READ = bytes.fromhex("0007 0000 0006 01 03 003a 0001")


@pytest.mark.parametrize("function", [1, 2, 5, 6, 7, 8, 15, 16, 22, 23])
async def test_whatever_does_not_read_is_refused_and_recorded(make_room, ask, function):
    async with make_room() as room:
        frame = struct.pack(">HHHBBHH", 1, 0, 6, 1, function, 2, 0xFF00)
        assert (await ask(room, "sc1", frame))[7:] == bytes((function | 0x80, 1))
        (violation,) = room.violations
    assert violation["device"] == "sc1"
    assert violation["function"] == function


async def test_other_mei_types_are_violations_too(make_room, ask):
    async with make_room() as room:
        assert (await ask(room, "sc1", bytes.fromhex("0001 0000 0004 01 2b 0d 00")))[7:] == b"\xab\x01"
        assert len(room.violations) == 1


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("01 03 004f 0002", 2),
        ("01 03 0058 0001", 2),
        ("01 03 0000 0000", 3),
        ("01 03 0000 007e", 3),
        ("05 03 0000 0001", 11),
    ],
)
async def test_exceptions(make_room, ask, rest, code):
    async with make_room() as room:
        answer = await ask(room, "sc1", bytes.fromhex(f"0001 0000 0006 {rest}"))
        assert answer[7:] == bytes((0x83, code))
        assert room.answers[-1]["exception"] == code


@pytest.mark.parametrize("frame", ["0001 0000 0004 01 03 0000", "0001 0000 0004 01 2b 0e 01"])
async def test_a_request_cut_short_is_an_illegal_value(make_room, ask, frame):
    async with make_room() as room:
        assert (await ask(room, "sc1", bytes.fromhex(frame)))[8:] == b"\x03"


async def test_more_than_100_registers_are_told(make_room, read):
    async with make_room() as room:
        await read(room, "mate3s", 40320, 100)
        assert room.violations == []
        await read(room, "mate3s", 40320, 125)
        assert "125 registers" in room.violations[0]["violation"]


async def test_another_protocol_is_told_and_closed(make_room, ask):
    async with make_room() as room:
        with pytest.raises(asyncio.IncompleteReadError):
            await ask(room, "sc1", b"GET / HTTP/1.1\r\n\r\n")
        assert "no Modbus TCP frame" in room.violations[0]["violation"]


async def test_function_4_reads_the_same(make_room, ask, read):
    async with make_room() as room:
        answer = await ask(room, "sc1", READ.replace(b"\1\3", b"\1\4"))
        assert answer[7:9] == b"\x04\x02"
        assert [int.from_bytes(answer[9:], "big")] == await read(room, "sc1", 58, 1)


async def test_a_tristar_closes_after_each_answer_and_a_mate3s_does_not(make_room, ask):
    async with make_room() as room:
        for name in ("sc1", "small"):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(room, name, READ, READ)
        common = bytes.fromhex("0007 0000 0006 01 03 9c40 0002")
        assert len(await ask(room, "mate3s", common, common)) == 26
        await room.behave("sc1", keep_open=True)
        assert len(await ask(room, "sc1", READ, READ, READ)) == 33
        await room.behave("mate3s", keep_open=False)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(room, "mate3s", common, common)


async def test_slow_and_latency_delay_an_answer(make_room, ask):
    async with make_room() as room:
        loop = asyncio.get_running_loop()
        await room.behave("*", latency_ms=30)
        await room.fault("sc1", "slow", seconds=0.05)
        begin = loop.time()
        await ask(room, "sc2", READ)
        middle = loop.time()
        await ask(room, "sc1", READ)
        assert middle - begin >= 0.03
        assert loop.time() - middle >= 0.08


@pytest.mark.parametrize("fault", ["silent", "truncated"])
async def test_no_whole_answer(make_room, ask, fault):
    async with make_room() as room:
        await room.fault("sc1", fault)
        with pytest.raises(TimeoutError):
            await ask(room, "sc1", READ, wait_s=0.1)
        assert room.answers[-1]["fault"] == fault
        assert "registers" not in room.answers[-1]


async def test_refusing_closes_the_listener_and_comes_back_on_its_port(make_room, ask, read):
    async with make_room() as room:
        await room.fault("mate3s", "refusing")
        with pytest.raises(ConnectionRefusedError):
            await ask(room, "mate3s", READ)
        assert len(await ask(room, "sc1", READ)) == 11  # its neighbours answer
        await room.fault("mate3s")
        assert await read(room, "mate3s", 40000, 1) == [0x5375]


async def test_refusing_closes_open_connections(make_room, port_of):
    async with make_room() as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(room, "mate3s"))
        writer.write(bytes.fromhex("0007 0000 0006 01 03 9c40 0001"))
        await reader.readexactly(11)
        await room.fault("mate3s", "refusing")
        async with asyncio.timeout(2):
            assert await reader.read() == b""
        writer.close()


async def test_reset_and_hang_up(make_room, ask):
    async with make_room() as room:
        await room.fault("sc1", "reset")
        with pytest.raises(ConnectionResetError):
            await ask(room, "sc1", READ)
        await room.fault("sc1", "hang-up")
        with pytest.raises(asyncio.IncompleteReadError, match="0 bytes"):
            await ask(room, "sc1", READ)


@pytest.mark.parametrize(
    ("fault", "settings", "answer"),
    [
        ("exception", {"code": 2}, "0007 0000 0003 01 83 02"),
        ("busy", {}, "0007 0000 0003 01 83 06"),
        ("short", {}, "0007 0000 0003 01 03 00"),
    ],
)
async def test_answers_that_are_wrong(make_room, ask, fault, settings, answer):
    async with make_room() as room:
        await room.fault("sc1", fault, **settings)
        assert await ask(room, "sc1", READ) == bytes.fromhex(answer)
        assert room.answers[-1]["fault"] == fault
        await room.fault("sc1")
        assert (await ask(room, "sc1", READ))[7] == 3


async def test_wrong_transaction_and_garbage(make_room, ask, port_of):
    async with make_room() as room:
        good = await ask(room, "sc1", READ)
        await room.fault("sc1", "wrong-transaction")
        wrong = await ask(room, "sc1", READ)
        assert wrong[2:] == good[2:]
        assert wrong[:2] != good[:2]
        await room.fault("sc1", "garbage")
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(room, "sc1"))
        writer.write(READ)
        garbage = await reader.read()
        writer.close()
        assert len(garbage) == len(good)
        assert garbage[:6] != good[:6]


async def test_a_client_that_left_is_not_recorded_as_answered(make_room, ask):
    async with make_room() as room:
        await room.fault("sc1", "slow", seconds=0.1)
        with pytest.raises(TimeoutError):
            await ask(room, "sc1", READ, wait_s=0.02)
        await room.behave("sc2", latency_ms=150)
        await ask(room, "sc2", READ)
        assert [(entry["device"], entry.get("fault")) for entry in room.answers] == [
            ("sc1", "the client has gone"),
            ("sc2", None),
        ]


async def test_leaving_the_room_ends_what_hangs(make_room, port_of, ask):
    async with make_room() as room:
        await room.fault("*", "silent")
        port = port_of(room, "sc1")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(READ)
        with pytest.raises(TimeoutError):
            await ask(room, "sc2", READ, wait_s=0.1)
        assert {entry["device"] for entry in room.answers} == {"sc1", "sc2"}
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
