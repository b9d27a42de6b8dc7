"""Statistics of rows: a list of objects, or CSV text with a header."""

import csv
import io
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column; the numeric fields are None for text, ``most_common`` is empty for numbers."""

    name: str
    values: int
    missing: int
    distinct: int
    minimum: float | None = None
    median: float | None = None
    mean: float | None = None
    maximum: float | None = None
    deviation: float | None = None
    total: float | None = None
    most_common: list[tuple[str, int]] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def read(rows: object) -> list[Row]:
    """The rows of an input value.

    Raises:
        ValueError: it is neither CSV text nor a list of objects.
    """
    if isinstance(rows, str):
        return [dict(row) for row in csv.DictReader(io.StringIO(rows))]
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise ValueError("input 'rows' must be CSV text with a header, or a list of objects")


def measure(rows: list[Row]) -> list[Column]:
    """Every column that occurs in any row, in the order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row if name is not None)
    return [_column(name, [row.get(name) for row in rows]) for name in names]


def _column(name: str, cells: list[Any]) -> Column:
    present = [cell for cell in cells if cell is not None and cell != ""]
    missing = len(cells) - len(present)
    numbers = [number for number in map(_number, present) if number is not None]
    distinct = len({str(cell) for cell in present})
    if not numbers or len(numbers) < len(present):
        counts = Counter(str(cell) for cell in present)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
        return Column(name, len(present), missing, distinct, most_common=ranked)
    return Column(
        name,
        len(present),
        missing,
        distinct,
        minimum=min(numbers),
        median=statistics.median(numbers),
        mean=round(statistics.fmean(numbers), 4),
        maximum=max(numbers),
        deviation=round(statistics.stdev(numbers), 4) if len(numbers) > 1 else 0.0,
        total=math.fsum(numbers),
    )


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool):
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
