"""Reads an off-grid power room over Modbus TCP and keeps every point until InfluxDB has it."""
