"""Where two sets of settings differ, in words."""

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 80        # characters of a value in a sentence


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any], holder: str = "") -> str | None:
    """The first dotted key of another value, with both; a `kind` before what else differs with it. None if there is none. Plain
    values; a key that is missing is one of None. holder: what the key begins with."""
    for key in {"kind": None, **before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if found := first_difference(old, new, f"{holder}{key}."):
                return found
        elif old != new:
            return f"{holder}{key}: {_short(old)}, and now {_short(new)}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
