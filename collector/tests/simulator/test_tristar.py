"""The TriStars' registers, decoded here by hand."""

import struct

import pytest


def half(register):
    return struct.unpack(">e", struct.pack(">H", register))[0]


async def test_a_600v_serves_half_floats(make_room, read, noon):
    async with make_room() as room:
        registers = await read(room, "sc2", 0, 80)
        truth = room.at(noon).chargers[1]
    assert registers[4] == 0x21
    assert registers[50] == truth.state
    assert half(registers[58]) == pytest.approx(truth.power_w, rel=0.001)
    assert half(registers[24]) * half(registers[28]) == pytest.approx(half(registers[58]), rel=0.002)
    assert half(registers[27]) == pytest.approx(truth.array_v, rel=0.001)
    assert half(registers[36]) == pytest.approx(20, abs=5)
    assert registers[0x44] == int(truth.today_wh) // 10 * 10
    assert half(registers[0x43]) == pytest.approx(truth.today_ah, rel=0.001)
    assert registers[42] << 16 | registers[43] == truth.hours
    total_ah = struct.unpack(">f", struct.pack(">HH", *registers[0x36:0x38]))[0]
    assert total_ah == pytest.approx(truth.total_wh / 50)


async def test_a_600v_without_sensor_or_with_the_fault_has_nan(make_room, read):
    async with make_room() as room:
        registers = await read(room, "sc3", 0, 80)
        assert [a for a in range(0x18, 0x4B) if half(registers[a]) != half(registers[a])] == [
            0x24, 0x25, 0x47, 0x48,
        ]  # fmt: skip
        await room.fault("sc1", "nan")
        registers = await read(room, "sc1", 0, 80)
        assert half(registers[0x23]) != half(registers[0x23])
        assert half(registers[0x3A]) > 0


async def test_an_old_600v_serves_scaled_integers(make_room, read, noon):
    async with make_room() as room:
        room.change("sc1", firmware=13)
        registers = await read(room, "sc1", 0, 80)
        truth = room.at(noon).chargers[0]
    assert registers[4] == 0x13
    v_pu = registers[0] + registers[1] / 65536
    i_pu = registers[2] + registers[3] / 65536
    assert registers[58] * v_pu * i_pu * 2**-17 == pytest.approx(truth.power_w, abs=0.5)
    assert registers[24] * v_pu * 2**-15 == pytest.approx(truth.battery_v, abs=0.02)


async def test_the_150v_model_serves_scaled_integers(make_room, read, noon):
    async with make_room() as room:
        registers = await read(room, "small", 0, 80)
        truth = room.at(noon).chargers[5]
    assert registers[:4] == [180, 0, 80, 0]
    assert registers[58] * 0.10986328125 == pytest.approx(truth.power_w, abs=0.1)
    assert registers[24] * 180 / 32768 == pytest.approx(truth.battery_v, abs=0.01)
    assert registers[28] * 80 / 32768 == pytest.approx(truth.battery_a, abs=0.01)
    assert registers[27] * 180 / 32768 == pytest.approx(truth.array_v / 4, abs=0.01)
    assert registers[36] == 0x80  # no sensor
    assert registers[0x43] / 10 == pytest.approx(truth.today_ah, abs=0.1)


async def test_traits_show(make_room, read, noon):
    async with make_room() as room:
        room.change("sc1", faults=0x00010002, alarms=0x20, today="half-float-kwh")
        registers = await read(room, "sc1", 0, 80)
        assert registers[0x2C:0x30] == [1, 2, 0, 0x20]
        assert half(registers[0x44]) == pytest.approx(room.at(noon).chargers[0].today_wh / 1000, rel=0.001)
        room.change("small", faults=0x2)
        assert (await read(room, "small", 0x2C, 1)) == [2]


async def test_identity(make_room, read, ask):
    async with make_room() as room:
        serial = await read(room, "sc4", 0xE0C0, 4)
        assert struct.pack("<4H", *serial) == b"24010004"
        assert await read(room, "sc4", 0xE0CC, 1) == [0]
        answer = await ask(room, "sc4", bytes.fromhex("0001 0000 0005 01 2b 0e 01 00"))
        assert b"TS-MPPT-60-600V-48" in answer
        assert answer[7:14] == bytes.fromhex("2b0e01 01 00 00 03")
        assert room.violations == []
