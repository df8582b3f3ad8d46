"""What gibench's own plugins are set to by default, from a file, so that stored specs are shortened without torch.

`make defaults` writes `defaults.json` anew from the plugins, and a test holds the two against each other. A plugin that
is not in it, or whose module has been imported already, is asked itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

_FILE = "defaults.json"

Defaults = Mapping[str, Mapping[str, Mapping[str, str]]]  # kind of plugin, its name, setting to the text of its value


@cache
def kept() -> Defaults:
    """The defaults as the file has them."""
    found: Defaults = json.loads(resources.files("gibench").joinpath(_FILE).read_text(encoding="utf-8"))
    return found


def asked() -> Defaults:
    """The same, asked of the plugins themselves; one that has a setting without a default is left out."""
    from gibench.registry import GROUPS, create, entries, load

    ours = {kind: [entry.name for entry in entries(kind) if entry.distribution == "gibench"] for kind in GROUPS}
    return {
        kind: {name: create(kind, name).settings() for name in names if not _needs(load(kind, name).model_fields)}
        for kind, names in ours.items()
    }


def _needs(fields: Mapping[str, Any]) -> bool:
    return any(field.is_required() for field in fields.values())


if __name__ == "__main__":
    text = json.dumps(asked(), indent=1, sort_keys=True) + "\n"
    Path(__file__).with_name(_FILE).write_text(text, encoding="utf-8")
