"""What a host knows about its deployments."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.deployments import DeploymentActivities
from crewship.contracts import RecognizeInput
from crewship.db import session as transaction
from crewship.errors import Unavailable
from crewship.models import Deployment


@dataclass
class Builder:
    """Says what a build would begin with."""

    recipe: str = "recipe"
    bases: dict[str | None, str] = field(default_factory=lambda: {"3.12": "sha256:base"})

    def base_now(self, python: str | None) -> str | None:
        return self.bases.get(python)


class Images:
    """An engine that has images."""

    def __init__(self) -> None:
        self.there = {"sha256:image"}
        self.is_away = False

    def image_exists(self, image: str) -> bool:
        if self.is_away:
            raise Unavailable("The container engine (Docker) cannot be reached")
        return image in self.there


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def activities(database: Engine, builder: Any, images: Any) -> DeploymentActivities:
    with transaction(database) as session:
        session.add(
            Deployment(
                id="dep_2", project="crew", status="ready", host="h", source_key="s", source_sha256="0", recipe="recipe",
                image="sha256:image", base_image="sha256:base", base_python="3.12",
            )
        )  # fmt: skip
    rest: Any = None
    return DeploymentActivities(
        engine=images, builder=builder, database=database, store=rest, tail=rest, bridge=rest, sealer=rest, spares=rest,
        closed=rest,
        settings=rest,
    )  # fmt: skip


def recognized(activities: DeploymentActivities, deployment_id: str = "dep_2") -> bool:
    asked = RecognizeInput(deployment_id=deployment_id, project="crew")
    return ActivityEnvironment().run(activities.recognize, asked).same


def test_a_deployment_is_recognized_by_recipe_base_and_image(
    activities: DeploymentActivities, builder: Builder, images: Images
) -> None:
    assert recognized(activities)
    builder.recipe = "of a newer platform"
    assert not recognized(activities)
    builder.recipe = "recipe"
    builder.bases["3.12"] = "sha256:rebuilt"
    assert not recognized(activities)
    del builder.bases["3.12"]  # it would have to be made first
    assert not recognized(activities)
    builder.bases["3.12"] = "sha256:base"
    images.there.clear()
    assert not recognized(activities)
    assert not recognized(activities, "dep_gone")


def test_nothing_can_be_told_without_the_engine(activities: DeploymentActivities, images: Images) -> None:
    images.is_away = True
    with pytest.raises(ApplicationError) as caught:
        recognized(activities)
    assert caught.value.type == "Unavailable"
