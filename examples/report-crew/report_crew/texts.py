"""Statistics of English prose."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

WORDS_PER_MINUTE = 238
"""Silent reading of English non-fiction by adults (Brysbaert 2019, a meta-analysis of 190 studies)."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n\s*\n")
_VOWELS = re.compile(r"[aeiouy]+")
_STOP_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers him his how i
    if in into is it its itself just me more most my no nor not now of off on once only or other our out over own same
    she should so some such than that the their them then there these they this those through to too under until up us
    very was we were what when where which while who whom why will with would you your""".split()
)


@dataclass(frozen=True)
class TextMeasures:
    words: int
    unique_words: int
    sentences: int
    paragraphs: int
    words_per_sentence: float
    syllables_per_word: float
    reading_ease: float
    """Flesch 1948: 206.835 - 1.015 words/sentence - 84.6 syllables/word; 100 is very easy, below 30 very hard."""
    reading_level: str
    reading_minutes: float
    longest_sentence: str
    top_words: list[tuple[str, int]]
    top_pairs: list[tuple[str, int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(text: str, top: int = 10) -> TextMeasures:
    """Measure ``text``; ``top`` is how many words and pairs of words are ranked."""
    words = [word.lower() for word in _WORD.findall(text)]
    sentences = [piece.strip() for piece in _SENTENCE_END.split(text) if _WORD.search(piece)]
    per_sentence = len(words) / max(1, len(sentences))
    per_word = sum(map(syllables, words)) / max(1, len(words))
    ease = 206.835 - 1.015 * per_sentence - 84.6 * per_word if words else 0.0
    telling = [word for word in words if word not in _STOP_WORDS and len(word) > 1]
    pairs = Counter(f"{one} {two}" for one, two in pairwise(words) if one not in _STOP_WORDS and two not in _STOP_WORDS)
    return TextMeasures(
        words=len(words),
        unique_words=len(set(words)),
        sentences=len(sentences),
        paragraphs=sum(1 for piece in re.split(r"\n\s*\n", text) if piece.strip()),
        words_per_sentence=round(per_sentence, 1),
        syllables_per_word=round(per_word, 2),
        reading_ease=round(ease, 1),
        reading_level=reading_level(ease) if words else "nothing to read",
        reading_minutes=round(len(words) / WORDS_PER_MINUTE, 1),
        longest_sentence=max(sentences, key=lambda sentence: len(_WORD.findall(sentence)), default=""),
        top_words=_ranked(Counter(telling), top),
        top_pairs=[(pair, count) for pair, count in _ranked(pairs, top) if count > 1],
    )


def syllables(word: str) -> int:
    """Syllables by groups of vowels, without a silent final e or -ed. Off by one now and then, right on average."""
    groups = len(_VOWELS.findall(word))
    silent = word.endswith("e") and not word.endswith(("le", "ee", "ye"))
    if silent or (word.endswith("ed") and not word.endswith(("ted", "ded", "eed"))):
        groups -= 1
    return max(1, groups)


def reading_level(ease: float) -> str:
    """Flesch's own names for the ranges of his scale."""
    levels = ((90, "very easy"), (80, "easy"), (70, "fairly easy"), (60, "standard"), (50, "fairly difficult"))
    for least, name in levels:
        if ease >= least:
            return name
    return "difficult" if ease >= 30 else "very difficult"


def _ranked(counts: Counter[str], top: int) -> list[tuple[str, int]]:
    """By count, then by name: the same text gives the same report."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
