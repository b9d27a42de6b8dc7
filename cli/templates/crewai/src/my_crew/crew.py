"""The crew: agents and tasks are in ``config/``, the model in ``llm.py``."""

from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task

from .llm import chosen


@CrewBase
class MyCrew:
    """A researcher takes notes, a writer writes them up."""

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @agent
    def researcher(self) -> Agent:
        return Agent(config=self.agents_config["researcher"], llm=chosen())

    @agent
    def writer(self) -> Agent:
        return Agent(config=self.agents_config["writer"], llm=chosen())

    @task
    def research_task(self) -> Task:
        return Task(config=self.tasks_config["research_task"])

    @task
    def writing_task(self) -> Task:
        return Task(config=self.tasks_config["writing_task"], output_file="report.md")

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)
