"""Records what a run uses while it goes on, in a thread of its own beside the one that follows it.

Nothing waits for it but the run's end, for a moment, and nothing it meets ends a run: an engine that does not answer
is asked again later, and a recording that cannot be stored is a recording less.
"""

import contextlib
import logging
import threading
import time

from activities.run_records import RunRecords
from crewship.engine import Engine
from crewship.errors import Unavailable
from crewship.objects import samples_key
from crewship.recording import Looks, Recording
from crewship.storage import ObjectMissing, ObjectStore, read

logger = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
"""Not before: a run's start has the engine for itself, and what is over by then is told by its ``end`` frame."""
_STORE_SECONDS = (5.0, 30.0)
"""After so long for the first time, and how often then: what a worker that is killed loses."""
_SHARE = 0.004
"""Of a core that looking may take: a look that took long is followed by a longer wait."""
_END_SECONDS = 2.0
"""How long a run's end waits for the last write."""


class Recorder:
    """Of one run's container; ``start``, ``look`` at its last moment, ``stop``, ``join``."""

    def __init__(
        self, engine: Engine, store: ObjectStore, records: RunRecords, run_id: str, container: str, attempt: int = 1
    ) -> None:
        self._engine, self._store, self._records = engine, store, records
        self._run_id, self._container = run_id, container
        self._attempt = attempt
        self._recording: Recording | None = None
        self._looks: Looks | None = None
        self._lock = threading.Lock()
        """Of the recording: the last look is another thread's."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record, name=f"record {run_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Take a sample now, if that takes no time: the container is about to end."""
        if self._looks is not None and self._looks.is_quick:
            self._take(self._looks)

    def stop(self) -> None:
        """No more samples; what there is is being stored when this returns."""
        self._ended.set()

    def join(self) -> None:
        """Wait until it is stored, not for long."""
        if self._thread.ident is not None:
            self._thread.join(_END_SECONDS)

    def _record(self) -> None:
        try:
            if self._ended.wait(_FIRST_SECONDS):
                return
            store_at, next_store = time.monotonic() + _STORE_SECONDS[0], _STORE_SECONDS[1]
            while True:
                wait = self._sample()
                if self._ended.wait(wait):
                    break
                if time.monotonic() >= store_at:
                    self._keep()
                    store_at = time.monotonic() + next_store
            self._keep()
        except Exception:
            logger.exception("%s: its recording broke off", self._run_id)

    def _sample(self) -> float:
        """Take one; seconds until the next."""
        recording = self._recording = self._recording or self._begun()
        self._looks = self._looks or self._engine.meter(self._container)
        if self._looks is None:
            return 5.0  # the engine is away, or it has ended
        began = time.thread_time()
        if not self._take(self._looks):
            self._looks = None  # a container that was restarted has other files
        spent = time.thread_time() - began
        return max(recording.interval_ms / 1000, self._looks.every_seconds if self._looks else 0, spent / _SHARE)

    def _take(self, looks: Looks) -> bool:
        sample = looks.look()
        if sample is None or self._recording is None:
            return False
        with self._lock:
            self._recording.add(sample)
        return True

    def _begun(self) -> Recording:
        """What an earlier worker, or an earlier attempt, has recorded of this run, or nothing."""
        recording = Recording()
        with contextlib.suppress(ObjectMissing, Unavailable, ValueError, KeyError):
            recording = Recording.load(read(self._store, samples_key(self._run_id)))
        recording.begin_attempt(self._attempt)
        return recording

    def _keep(self) -> None:
        if self._recording is None or not self._recording.points:
            return
        with self._lock:
            usage, data = self._recording.usage(), self._recording.dump()
        try:
            self._records.usage(usage)
            self._store.put(samples_key(self._run_id), data)
        except Unavailable as error:
            logger.info("%s: its recording is not stored: %s", self._run_id, error.detail)
