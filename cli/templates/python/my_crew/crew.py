"""The crew: a function that gets the run's input and returns what the run answers with."""

from collections import Counter
from pathlib import Path
from typing import Any

ARTIFACTS = Path("artifacts")
TEXT = "Write what the crew does here. What it prints is the run's log, what it returns is the run's output."


def kickoff(inputs: dict[str, Any]) -> dict[str, Any]:
    """Count the words of a text and write a summary."""
    text = str(inputs.get("text") or TEXT)
    words = Counter(word.strip(".,;:!?").lower() for word in text.split())
    print(f"{words.total()} words, {len(words)} different ones")
    most = [word for word, _ in words.most_common(3)]
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / "summary.md").write_text(
        f"# Summary\n\n{words.total()} words; the most frequent are {', '.join(most)}.\n", encoding="utf-8"
    )
    return {"words": words.total(), "most_frequent": most}
