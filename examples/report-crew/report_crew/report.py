"""What people read: Markdown sections and an SVG chart."""

from collections.abc import Sequence
from html import escape

from tabulate import tabulate

from report_crew.tables import Column
from report_crew.texts import TextMeasures

_BAR_WIDTH = 32
_ROW_HEIGHT = 26


def text_section(measured: TextMeasures) -> str:
    facts = [
        ("words", f"{measured.words:,} ({measured.unique_words:,} different)"),
        ("sentences", f"{measured.sentences:,} of {measured.words_per_sentence} words"),
        ("paragraphs", f"{measured.paragraphs:,}"),
        ("reading ease", f"{measured.reading_ease} ({measured.reading_level})"),
        ("reading time", f"{measured.reading_minutes} min"),
    ]
    parts = ["## Text\n", _table(facts, ("measure", "value")), "\n### Most frequent words\n", bars(measured.top_words)]
    if measured.top_pairs:
        parts += ["\n### Pairs that return\n", _table(measured.top_pairs, ("pair", "times"))]
    if measured.longest_sentence:
        quoted = " ".join(measured.longest_sentence.split())
        parts += ["\n### Longest sentence\n", f"> {quoted}"]
    return "\n".join(parts) + "\n"


def rows_section(count: int, columns: Sequence[Column]) -> str:
    numeric = [column for column in columns if column.mean is not None]
    others = [column for column in columns if column.mean is None]
    parts = [f"## Rows\n\n{count:,} rows, {len(columns)} columns."]
    if numeric:
        header = ("column", "values", "missing", "min", "median", "mean", "max", "total")
        cells = [(c.name, c.values, c.missing, c.minimum, c.median, c.mean, c.maximum, c.total) for c in numeric]
        parts += ["\n### Numbers\n", _table(cells, header)]
    if others:
        common = [", ".join(f"{value} ({times})" for value, times in column.most_common or []) for column in others]
        counted = [(c.name, c.values, c.missing, c.distinct, text) for c, text in zip(others, common, strict=True)]
        parts += [
            "\n### Text and others\n",
            _table(counted, ("column", "values", "missing", "different", "most common")),
        ]
    return "\n".join(parts) + "\n"


def bars(counts: Sequence[tuple[str, int]]) -> str:
    """A bar chart in characters; the longest bar has a fixed width."""
    if not counts:
        return "(none)"
    label_width = max(len(label) for label, _ in counts)
    most = counts[0][1]
    lines = [f"{label:>{label_width}} {'█' * max(1, round(_BAR_WIDTH * n / most))} {n}" for label, n in counts]
    return "\n".join(["```", *lines, "```"])


def chart(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """The same chart as SVG, readable without any script."""
    height = 60 + _ROW_HEIGHT * len(counts)
    most = counts[0][1] if counts else 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="20" y="32" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for row, (label, n) in enumerate(counts):
        y = 50 + _ROW_HEIGHT * row
        width = 380 * n / most
        lines.append(f'<text x="150" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        lines.append(f'<rect x="160" y="{y}" width="{width:.1f}" height="18" rx="3" fill="#2b6cb0"/>')
        lines.append(f'<text x="{168 + width:.1f}" y="{y + 14}" fill="#4a5568">{n}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    # A bar in a cell would end it.
    cells = [[cell.replace("|", "\\|") if isinstance(cell, str) else cell for cell in row] for row in rows]
    return str(tabulate(cells, headers=header, tablefmt="github", disable_numparse=[0]))
