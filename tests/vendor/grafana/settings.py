"""grafana.ini and the $ expansion, as a real 9.3.2 read them."""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path
from typing import Any

_PROVIDED = re.compile(r"\$__(env|file)\{([^}]*)\}")
_VARIABLE = re.compile(r"\$(\{[^}]*\}|[*#$@!?0-9-]|[A-Za-z_]\w*)")


def _provide(found: re.Match[str]) -> str:
    if found[1] == "env":
        return os.environ.get(found[2], "")
    return Path(found[2]).read_text(encoding="utf-8").strip()


def _variable(found: re.Match[str]) -> str:
    return os.environ.get(found[1].strip("{}"), "")


def expand(value: Any) -> Any:
    """Expand a value of a provisioning file: what $__file{} and $__env{} bring is expanded again, $$ is $."""
    if isinstance(value, dict):
        return {key: expand(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return "$".join(_VARIABLE.sub(_variable, _PROVIDED.sub(_provide, part)) for part in value.split("$$"))


class Settings:
    """The values of grafana.ini; GF_SECTION_KEY overrides, unknown keys are ignored."""

    def __init__(self, path: Path) -> None:
        comments = {"comment_prefixes": (";", "#"), "inline_comment_prefixes": (";", "#")}
        self._ini = configparser.RawConfigParser(strict=False, delimiters=("=",), **comments)
        self._ini.read_string(f"[top]\n{path.read_text(encoding='utf-8')}", str(path))

    def get(self, section: str, key: str, default: str = "") -> str:
        """Give a value; $__file{} brings its text literally, ${X} and $__env{X} the environment."""
        name = f"GF_{section}_{key}".upper().replace(".", "_")
        value = os.environ.get(name) or self._ini.get(section, key, fallback=default).strip('"`')
        if found := re.fullmatch(_PROVIDED, value):
            return _provide(found)
        return re.sub(r"\$(?:__env)?(\{\w+\})", _variable, value)

    def flag(self, section: str, key: str, default: str = "false") -> bool:
        """Give a switch; what is no boolean is off."""
        return self.get(section, key, default).lower() in ("1", "t", "true", "yes", "y", "on")
