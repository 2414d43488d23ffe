"""Reading tables.json of `featinv evaluate`."""

from __future__ import annotations


def row_of(tables: dict, kind: str, model: int = 0) -> dict:
    [row] = [r for r in tables["rows"] if r["kind"] == kind and r["model"] == model]
    return row


def value(row: dict, key: str) -> float:
    return row[key]["value"]
