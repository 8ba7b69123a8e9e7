"""Reads an off-grid power room over Modbus TCP and keeps every point until InfluxDB has it."""

from datetime import date

RELEASED = date(2026, 11, 24)
"""When this version was released, written with the changelog's entry: no clock that says less is right."""
