"""Runs the crew without a platform: ``uv run run_crew [TOPIC]``."""

import sys

from .crew import ResearchCrew


def run() -> None:
    topic = " ".join(sys.argv[1:]) or "durable execution"
    print(ResearchCrew().crew().kickoff(inputs={"topic": topic}).raw)


if __name__ == "__main__":
    run()
