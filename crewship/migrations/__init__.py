"""The schema's history, applied by ``crewship.db.migrate``; a test holds it equal to ``crewship.models``."""
