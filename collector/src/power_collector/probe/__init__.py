"""What hangs on the network: finds SunSpec devices and TriStars, and reads what only the site can tell."""

from __future__ import annotations

from power_collector.probe.finding import Finding, Kind
from power_collector.probe.scan import scan
from power_collector.probe.targets import Target, TargetError, parse

__all__ = ["Finding", "Kind", "Target", "TargetError", "parse", "scan"]
