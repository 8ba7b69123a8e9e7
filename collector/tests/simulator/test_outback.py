"""The MATE3s's SunSpec chain, walked here by hand."""

from datetime import datetime, timedelta, timezone

import pytest

MARK = b"NOBODY-READS-ME"
USUAL = [(1, 65), (64110, 420), (64120, 25), (102, 50), (64255, 56)] + [(64115, 59), (64116, 89)] * 3


@pytest.fixture
def walk(read):
    """Return address by position and (ID, length) of each block, up to an end or `most` blocks."""

    async def walk(room, most=40):
        assert await read(room, "mate3s", 40000, 2) == [0x5375, 0x6E53]
        address, blocks = 40002, []
        while len(blocks) < most:
            model, length = await read(room, "mate3s", address, 2)
            if model in (0, 0xFFFF):
                return blocks, (address, model, length)
            blocks.append((address, model, length))
            address += 2 + length
        return blocks, None

    return walk


def shapes(blocks):
    return [(model, length) for _, model, length in blocks]


async def test_the_chain_ends_with_a_marker_and_exception_2_behind_it(make_room, walk, ask):
    async with make_room() as room:
        blocks, (address, *end) = await walk(room)
        behind = await ask(room, "mate3s", b"\0\1\0\0\0\6\1\3" + (address + 2).to_bytes(2, "big") + b"\0\1")
    assert shapes(blocks) == USUAL
    assert end == [0xFFFF, 0]
    assert behind[7:] == b"\x83\x02"
    assert room.violations == []


async def test_firmware_variants(make_room, walk):
    async with make_room() as room:
        room.change("mate3s", short_blocks=True, inverters=2, end="zeros", unknown_model=True)
        blocks, (_, *end) = await walk(room)
        assert shapes(blocks) == [*USUAL[:4], (64901, 13), USUAL[4]] + [(64115, 58), (64116, 86)] * 2
        assert end == [0, 0]
        room.change("mate3s", single_phase=True, inverter_model=101, short_blocks=False, inverters=1)
        blocks, _ = await walk(room)
        assert [shape[0] for shape in shapes(blocks)] == [1, 64110, 64120, 101, 64901, 64255, 64117, 64116]
        assert shapes(blocks)[-2] == (64117, 47)


async def test_zeros_end_at_43007(make_room, read, ask):
    async with make_room() as room:
        room.change("mate3s", end="zeros")
        assert await read(room, "mate3s", 43000, 8) == [0] * 8
        answer = await ask(room, "mate3s", b"\0\1\0\0\0\6\1\3" + (43008).to_bytes(2, "big") + b"\0\1")
    assert answer[7:] == b"\x83\x02"


async def test_a_chain_without_an_end(make_room, walk, read):
    async with make_room() as room:
        room.change("mate3s", end="never")
        blocks, end = await walk(room, most=30)
        assert len(blocks) == 30
        assert end is None
        assert blocks[-1][1:] == (64902, 8)
        assert len(await read(room, "mate3s", 65400, 100)) == 100


async def test_inverters_share_what_the_room_takes(make_room, walk, read, noon):
    async with make_room() as room:
        blocks, _ = await walk(room)
        inverters = [
            await read(room, "mate3s", a, length + 2) for a, model, length in blocks if model == 64115
        ]
        sums = await read(room, "mate3s", blocks[3][0], 52)
        truth = room.at(noon)
    assert [block[2] for block in inverters] == [1, 2, 3]
    assert [block[21] for block in inverters] == [2, 2, 2]
    for block, inverter in zip(inverters, truth.inverters, strict=True):
        assert block[3:7] == [0xFFFF, 0, 0, 0xFFFF]
        assert block[42] == 0xFFFF
        assert block[54] / 10 == pytest.approx(inverter.output_w / 1000, abs=0.051)
        assert (block[7] + block[14]) * 120 == pytest.approx(inverter.output_w, abs=121)
        assert (block[47] + block[52]) / 10 == pytest.approx(inverter.output_today_wh / 1000, abs=0.11)
        assert block[24] % 4 == 0
        assert block[24] / 10 == pytest.approx(truth.battery_v, abs=0.2)
        assert block[59] == 0xFFFF
    assert inverters[1][34] == 0x8000  # the battery's sensor hangs on the first one
    output_w = sum(inverter.output_w for inverter in truth.inverters)
    assert sums[14] == pytest.approx(output_w / 100, abs=0.5)
    assert sums[15] == 0xFFFF
    assert sums[2] * 120 == pytest.approx(output_w, abs=121)
    assert sums[29] / 10 == pytest.approx(truth.battery_v, abs=0.051)


async def test_ports_modes_and_missing_temperatures(make_room, walk, read):
    async with make_room() as room:
        room.change("mate3s", ports=(2, 5, 7), slave_mode=True)
        await room.fault("mate3s", "nan")
        blocks, _ = await walk(room)
        inverters = [await read(room, "mate3s", a, 61) for a, model, _ in blocks if model == 64115]
        assert [(block[2], block[21]) for block in inverters] == [(2, 2), (5, 11), (7, 11)]
        assert inverters[0][28:35] == [0x8000] * 7
        assert await read(room, "mate3s", 40069 + 398, 2) == [0x8000, 0x8000]


async def test_a_hub_with_more_inverters_than_the_room(make_room, walk):
    async with make_room() as room:
        room.change("mate3s", inverters=5)
        blocks, _ = await walk(room)
    assert shapes(blocks).count((64115, 59)) == 5


@pytest.mark.parametrize("offset_s", [0, -86400 * 30, 7.0])
async def test_its_clock_with_its_zone(make_room, read, noon, offset_s):
    async with make_room() as room:
        room.change("mate3s", clock_offset_s=offset_s)
        clock = await read(room, "mate3s", 40069 + 392, 28)
        (zone,) = await read(room, "mate3s", 40069 + 271, 1)
    assert clock[27] == 0xFFFE
    assert zone == 0x10000 - 800
    box = datetime(*clock[:6], tzinfo=timezone(timedelta(hours=-8)))
    assert box.timestamp() == noon + offset_s


async def test_reading_a_password_is_a_violation(make_room, read):
    async with make_room() as room:
        for first, last in ((0, 12), (247, 274), (275, 279), (388, 421)):
            registers = await read(room, "mate3s", 40069 + first, last - first + 1)
            assert b"NOBODY" not in b"".join(r.to_bytes(2, "big") for r in registers)
        assert room.violations == []
        for offset in (13, 70, 166, 196, 231, 246):
            await read(room, "mate3s", 40069 + offset, 1)
        assert len(room.violations) == 6
        registers = await read(room, "mate3s", 40069, 100)
        assert MARK in b"".join(r.to_bytes(2, "big") for r in registers)
        assert len(room.violations) == 7


async def test_it_does_not_identify_itself(make_room, ask):
    async with make_room() as room:
        assert (await ask(room, "mate3s", bytes.fromhex("0001 0000 0005 01 2b 0e 01 00")))[7:] == b"\xab\x01"
        assert room.violations == []
