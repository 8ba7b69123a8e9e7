"""The one error that this tool shows to its user."""

from __future__ import annotations


class VendorError(Exception):
    """What went wrong and what to do about it."""
