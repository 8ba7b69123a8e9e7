from __future__ import annotations

import pytest

from power_collector.contract import Point
from power_collector.line_protocol import has_field, measurement, parse

AWKWARD = Point("a b,c", {"device": "x=y, z"}, {"Inverter Current": 3, "a=b": -1.5e-05}, 1_764_000_000)


def test_a_line_of_ours_comes_back_as_its_point() -> None:
    assert parse(AWKWARD.to_line()) == AWKWARD


@pytest.mark.parametrize("line", ["", "m", "m f=1", "m f=1i yesterday", "m f 1764000000", "m f=x 1764000000"])
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(line)


def test_measurement_and_fields_are_found_without_parsing_all() -> None:
    assert measurement(AWKWARD.to_line()) == "a b,c"
    assert measurement(" rubbish") == " rubbish"
    assert has_field(AWKWARD.to_line(), "Inverter Current")
    assert has_field(AWKWARD.to_line(), "a=b")
    assert not has_field(AWKWARD.to_line(), "Current")
