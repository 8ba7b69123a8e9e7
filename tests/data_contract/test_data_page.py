"""docs/data.md says what the contract says."""

from __future__ import annotations

from tests.data_contract import PAGE, text


def test_the_page_is_the_contracts() -> None:
    assert PAGE.read_text(encoding="utf-8") == text(), "run python -m tests.data_contract"
