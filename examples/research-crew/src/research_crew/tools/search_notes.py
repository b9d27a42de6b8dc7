"""The crew's one tool: full-text search in the Markdown notes below ``knowledge/``."""

import re
from collections import Counter
from collections.abc import Iterator
from math import log
from pathlib import Path

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

NOTES = Path(__file__).parents[3] / "knowledge"
_WORD = re.compile(r"[a-z0-9]+")
_TOO_COMMON = frozenset(
    "a about an and are as at by do does for from how in is it of on or the to was what when why with".split()
)


class SearchNotesInput(BaseModel):
    query: str = Field(..., description="Words to look for, in any order")


class SearchNotesTool(BaseTool):
    name: str = "search_notes"
    description: str = "Searches the notes. Gives the best matching passages, one a line, each with its note's name."
    args_schema: type[BaseModel] = SearchNotesInput

    def _run(self, query: str) -> str:
        hits = search(query)
        if not hits:
            return f"Nothing in the notes matches {query!r}."
        return "\n".join(f"- {passage} [{note}]" for note, passage in hits)


def search(query: str, limit: int = 6) -> list[tuple[str, str]]:
    """The ``limit`` best passages as (note, passage): more of the query's words, and rarer ones, come first."""
    wanted = {_stem(word) for word in _WORD.findall(query.lower())} - _TOO_COMMON
    passages = [
        (note, passage, {_stem(word) for word in _WORD.findall(passage.lower())}) for note, passage in _passages()
    ]
    occurrences = Counter(word for _, _, words in passages for word in words & wanted)
    scored = [
        (sum(log(1 + len(passages) / occurrences[word]) for word in words & wanted), note, passage)
        for note, passage, words in passages
    ]
    ranked = sorted((hit for hit in scored if hit[0] > 0), key=lambda hit: -hit[0])
    return [(note, passage) for _, note, passage in ranked[:limit]]


def _passages() -> Iterator[tuple[str, str]]:
    """Every paragraph of every note, with the note's name."""
    for path in sorted(NOTES.glob("*.md")):
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            passage = " ".join(paragraph.split())
            if passage and not passage.startswith("#"):
                yield path.stem, passage


def _stem(word: str) -> str:
    """Singular and plural are the same word here."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
