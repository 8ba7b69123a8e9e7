"""docs/data.md, made from the collector's contract: `python -m tests.data_contract` writes it anew."""

from __future__ import annotations

from pathlib import Path

from power_collector.contract import LEGACY_CHARGER, MEASUREMENTS, Field, Measurement

PAGE = Path(__file__).parents[2] / "docs" / "data.md"

_HEAD = """# What is in the database

Made from `collector/src/power_collector/contract.py`; after a change there: `python -m tests.data_contract`.

A value that a device marks as absent, or that lies outside its range, is left out. A field's type never changes.
"""


def text() -> str:
    """Return the page."""
    named = [*MEASUREMENTS.items(), ("solar_charger_1", LEGACY_CHARGER)]
    return _HEAD + "".join(_section(name, measurement) for name, measurement in sorted(named))


def _section(name: str, measurement: Measurement) -> str:
    tags = f" Tags: {', '.join(f'`{tag}`' for tag in measurement.tags)}." if measurement.tags else ""
    rows = "".join(f"| `{field}` | {_row(contract)} |\n" for field, contract in measurement.fields.items())
    description = measurement.description[0].upper() + measurement.description[1:]
    return (
        f"\n## {name}\n\n{description}.{tags}\n\n"
        f"| field | type | unit | range | what it is |\n| --- | --- | --- | --- | --- |\n{rows}"
    )


def _row(field: Field) -> str:
    span = f"{field.minimum:.10g} .. {field.maximum:.10g}"
    return " | ".join((field.type.__name__, field.unit or "-", span, field.description))
