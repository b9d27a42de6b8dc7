"""Which runs and deployments are not over yet: what was made for them may not be taken away."""

from collections.abc import Iterable

from sqlalchemy import Engine as Database
from sqlmodel import col, select

from crewship.db import session as transaction
from crewship.models import Deployment, Run


def still_open(database: Database, ids: Iterable[str]) -> set[str]:
    """Those of ``ids``, of runs and of deployments, whose logs are open. What is not there at all is not.

    Raises:
        Unavailable: the database cannot be reached.
    """
    wanted = set(ids)
    with transaction(database) as session:
        return {
            row
            for table, prefix in ((Run, "run_"), (Deployment, "dep_"))
            if (of_it := [found for found in wanted if found.startswith(prefix)])
            for row in session.exec(select(table.id).where(col(table.id).in_(of_it), col(table.last_seq).is_(None)))
        }
