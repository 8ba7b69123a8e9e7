"""Counting lines of code: neither blank, nor comment, nor docstring."""

from __future__ import annotations

import ast
from pathlib import Path


def lines_of_code(path: Path) -> int:
    """Count the lines of code of a Python file."""
    text = path.read_text(encoding="utf-8")
    said: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            said |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = [line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in said]
    return sum(1 for line in lines if line and not line.startswith("#"))
