"""The page of the rows' columns: what each says, as it is declared in the code."""

from __future__ import annotations

from dataclasses import fields

from gibench.result import StoredRow, columns_of

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def columns_table(kind: type[StoredRow]) -> str:
    """Every column of a kind of row in the order of every export, as Markdown; what was asked for is named so."""
    lines = ["", "| column | type | what it says |", "| --- | --- | --- |"]
    for name, column in columns_of(kind).items():
        what = f"asked for: {column.help}" if column.axis else column.help
        lines.append(f"| `{name}` | {_TYPES[column.type]} | {what} |")
    noted = {each.name: each.metadata["help"] for each in fields(kind) if "help" in each.metadata}
    lines += [f"| `{name}` | text | {noted[name]} |" for name in ("run_id", "started")]
    return "\n".join([*lines, ""])
