"""A promise, what was measured, and whether it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """`value` None: could not be measured here, and `note` says why. `limit` None: said, not promised."""

    name: str
    value: float | None
    limit: float | None
    unit: str = ""
    note: str = ""

    @property
    def kept(self) -> bool | None:
        """Whether the value is within the limit; None where one of them is missing."""
        return None if self.value is None or self.limit is None else self.value <= self.limit

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {**asdict(self), "kept": self.kept}


def table(promises: Sequence[Promise]) -> str:
    """Return the promises as a Markdown table."""
    verdicts = {True: "yes", False: "**NO**", None: ""}
    rows: list[tuple[str, ...]] = [("promise", "measured", "limit", "kept", "")]
    for promise in promises:
        unit = f" {promise.unit}" if promise.unit else ""
        value = "left out" if promise.value is None else f"{promise.value:.4g}{unit}"
        limit = "" if promise.limit is None else f"{promise.limit:.4g}{unit}"
        rows.append((promise.name, value, limit, verdicts[promise.kept], promise.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
