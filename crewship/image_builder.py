"""How a deployment becomes an image: a function of (base image, dependency files, source, runner).

Two images, each made in a container and committed:

* ``crewship/deps:<hash>`` — the base with ``/opt/venv``. The hash is over everything that it is made from, so a change of
  the source alone finds it there, as does another deployment that wants the same.
* ``crewship/app:<deployment>`` — on top of it the runner at ``/opt/crewship/runtime`` and the source at ``/opt/crewship/source``,
  compiled. It runs the runner's supervisor, by the interpreter that the venv was made of but outside the venv, so that
  no code of the project's dependencies is in it.

Bytecode is compiled in both with unchecked hashes: the root is read-only when it runs, and files get new times.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from crewship import runner_files
from crewship.build_container import BUILD, BuildContainer
from crewship.build_secrets import NONE, BuildSecrets
from crewship.build_work import LoggedProgress, Work
from crewship.builds import (
    LABEL_DEPENDENCIES,
    BuildBase,
    BuildFailed,
    BuildLog,
    BuiltImage,
    Locks,
    app_image,
    cache_volume,
    canceled,
    no_locks,
)
from crewship.config import DeploymentConfig
from crewship.dependencies import Dependencies, find
from crewship.docker_connection import translated
from crewship.docker_engine import APP, HOME, UID, DockerEngine
from crewship.engine import LABEL_DEPLOYMENT, ContainerMissing, ImageMissing, Limits
from crewship.errors import Conflict, CrewshipError, Unavailable
from crewship.image_facts import ImageFacts, KnownImages, read_facts
from crewship.installer import PATH, PYTHON, Installer
from crewship.provision.base_image import ensure_base_image, find_base_image
from crewship.provision.errors import ProvisionError, PythonUnavailable
from crewship.python_version import choose_python
from crewship.settings import Settings
from crewship.smoke import SmokeFacts
from crewship.smoke import smoke as boot
from crewship.source import Limits as SourceLimits
from crewship.source import unpack
from crewship.workbench import RUNNER, Workbench, Workbenches, command

__all__ = ["BuildFailed", "ImageBuilder"]

BaseImages = Callable[[str | None, BuildLog], str]
"""The platform base (an image's name or id) for a Python version or for any, found or made; raises ``ProvisionError``."""

_LAYOUT = 2
"""Part of what dependency images are named by: changes when they are made in another way."""


class ImageBuilder:
    """Builds on one Docker daemon; may be used by several threads.

    Args:
        engine: The daemon, and where images are tried.
        settings: The installation's; what starts with ``build_``, and its instance, network and base image.
        base_image: Where the platform base comes from; None: ``crewship.provision``.
        limits: What one build may use; None: 4 GiB and all CPUs of this machine, 1,024 processes.
        admit: Called with an image before something of it is started on the network; raises ``Unavailable`` when the
            network's rules do not hold.
        remove: Called with a container that has served; it need not wait until the engine has taken it down.
        remove_large: As ``remove``, with one that the engine takes seconds for; None: the same.
        ahead_seconds: How long a container is kept that was started ahead for a next build; 0: none is.
        is_busy: Whether the host has no room for such.
    """

    def __init__(
        self,
        engine: DockerEngine,
        settings: Settings,
        *,
        base_image: BaseImages | None = None,
        limits: Limits | None = None,
        admit: Callable[[str], None] = lambda image: None,
        remove: Callable[[str], None] | None = None,
        remove_large: Callable[[str], None] | None = None,
        ahead_seconds: float = 0.0,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self.benches = Workbenches(self._bench, ahead_seconds, is_busy)
        self._admit = admit
        self._remove = remove or engine.remove
        self._remove_large = remove_large or self._remove
        # Committing a gigabyte takes its time.
        self._connection = engine.connection.patient(settings.build_timeout_seconds)
        self._settings = settings
        self._base_image = base_image or self._provisioned
        self._limits = limits or Limits(memory_bytes=4 << 30, cpus=float(os.cpu_count() or 1), pids=1024)
        self._locks: dict[str, threading.Lock] = {}
        """One for each dependency image, so that two deployments that want the same one make it once."""
        self._locks_guard = threading.Lock()
        self._facts = KnownImages()
        self._runner_sha256 = runner_files.digest()

    def close(self) -> None:
        """Remove what was made ahead, and let the connections go."""
        self.benches.close()
        self._connection.close()

    def build(
        self,
        deployment_id: str,
        project: str,
        config: DeploymentConfig,
        source: Path,
        log: BuildLog,
        cancel: threading.Event | None = None,
        *,
        secrets: BuildSecrets = NONE,
        locks: Locks = no_locks,
        is_tried: bool = False,
    ) -> BuiltImage:
        """Make the image of a deployment and tag it ``builds.app_image(deployment_id)``.

        Idempotent: what an earlier attempt has left is replaced.

        Args:
            deployment_id: Names image and containers.
            project: Whose cache of downloads is used.
            config: The deployment's ``crewship.toml``.
            source: The upload, a .tar.gz that was checked.
            log: Told what happens, line by line.
            cancel: Set by another thread to stop.
            secrets: What installing may use and nothing else: in no layer, log or image's history.
            locks: What was installed when the same dependencies were built before; it is installed again, so that what they
                are does not depend on when.
            is_tried: Whether :meth:`smoke` comes next: it begins sooner beside the container that the image was made in, which is
                left to it.

        Raises:
            BuildFailed: the project is the reason, or ``cancel``.
            Unavailable: the engine is the reason, or the base image cannot be had.
        """
        work = Work(deployment_id, project, config, log, cancel or threading.Event(), secrets)
        try:
            with TemporaryDirectory(prefix="crewship-build-") as folder:
                tree = Path(folder)
                self._unpack(source, tree)
                with work.step("dependencies") as step:
                    image, step.cached = self._dependencies(work, tree, locks)
                with work.step("image"):
                    image_id, facts = self._application(work, tree, image, is_left=is_tried)
        except ImageMissing as error:
            raise BuildFailed(
                "infrastructure", f"The image {error} that it is built on is gone", "Deploy again."
            ) from error
        except ContainerMissing as error:
            raise Unavailable("The build's container was removed from outside") from error
        assert work.base is not None
        return BuiltImage(
            image_id=image_id,
            python=facts.python,
            lock=facts.lock,
            dependencies_cached=step.cached,
            steps=tuple(work.steps),
            base=work.base,
            system=facts.system,
            recipe=self.recipe,
            dependency_key=work.dependency_key,
        )

    @property
    def recipe(self) -> str:
        """Digest of what decides an image besides source, config and base: this platform's code and its settings."""
        parts = [_LAYOUT, version("crewship"), self._runner_sha256, self._settings.build_index_url]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def base_now(self, python: str | None) -> str | None:
        """Id of the image that a build would begin with now, asked for that Python; None: it would have to be made first.

        Raises:
            Unavailable: the engine is the reason.
        """
        with translated():
            found = find_base_image(self._connection.api, python=python, configured=self._settings.base_image)
        return found.image_id if found is not None else None

    def smoke(
        self,
        deployment_id: str,
        image: str,
        config: DeploymentConfig,
        limits: Limits,
        env: Mapping[str, str],
        log: BuildLog,
        cancel: threading.Event | None = None,
    ) -> SmokeFacts:
        """Boot an image once: ``crewship.smoke`` as a step of the build. The container that the image was made in goes with it.

        Raises:
            BuildFailed: the entrypoint cannot be had, or ``cancel``.
            Unavailable: the engine is the reason.
        """
        work = Work(deployment_id, "", config, log, cancel or threading.Event())
        bench = _bench_of(deployment_id)
        try:
            with work.step("smoke boot"):
                return boot(
                    self._engine,
                    deployment_id,
                    image,
                    config,
                    env,
                    limits,
                    log,
                    timeout_seconds=self._settings.import_timeout_seconds,
                    cancel=work.cancel,
                    remove=self._remove,
                    beside=bench,
                )
        except ImageMissing as error:
            raise BuildFailed("infrastructure", "The image that was built is gone", "Deploy again.") from error
        except ContainerMissing as error:
            raise Unavailable("The smoke boot's container was removed from outside") from error
        finally:
            self._remove(bench)

    def prepare(self, dependency_key: str) -> None:
        """Have a container started for the next build with these dependencies.

        Raises:
            Unavailable: the engine is the reason.
        """
        image = self._find_image(_dependencies_image(dependency_key))
        if image is not None:
            self.benches.prepare(image)

    def _unpack(self, source: Path, tree: Path) -> None:
        with source.open("rb") as stream:
            try:
                unpack(stream, tree, SourceLimits.of(self._settings.max_source_bytes))
            except CrewshipError as error:
                raise BuildFailed("build_failed", error.detail, error.hint) from error

    def _provisioned(self, python: str | None, log: BuildLog) -> str:
        with translated():
            base = ensure_base_image(
                self._connection.api,
                self._settings.cache_dir,
                LoggedProgress(log),
                python=python,
                configured=self._settings.base_image,
            )
        return base.reference

    # -- dependencies

    def _dependencies(self, work: Work, tree: Path, locks: Locks) -> tuple[str, bool]:
        """Id of the image with the project's dependencies, and whether it was there."""
        wanted = find(tree, work.config.build.requirements)
        python = choose_python(work.config.python, wanted.requires_python, wanted.python)
        for note in (*wanted.notes, *([python.note] if python.note else [])):
            work.log.line(note, "warning", "stderr")
        try:
            base = self._base_image(python.version, work.log)
        except PythonUnavailable as error:
            asked = f"{python.source}, but " if python.source else ""
            raise BuildFailed("python_version", f"{asked}{error.detail}", error.hint) from error
        except ProvisionError as error:
            raise BuildFailed("infrastructure", error.detail, error.hint) from error
        base_id = self._find_image(base)
        if base_id is None:
            raise ImageMissing(base)
        work.base = BuildBase(base, base_id, python.version)
        key = work.dependency_key = self._key(base_id, wanted, tree, work)
        image = _dependencies_image(key)
        with self._exclusively(key, work.cancel):
            if (found := self._find_image(image)) is not None:
                return found, True
            return self._install(work, tree, wanted, python.version, base_id, locks), False

    def _key(self, base_id: str, wanted: Dependencies, tree: Path, work: Work) -> str:
        """Hash of all that decides what a dependency image is; ``uv`` is part of the base."""
        parts = [
            _LAYOUT,
            base_id,
            wanted.path,
            wanted.digest(tree),
            wanted.requires_python,
            sorted(work.config.build.apt),
            self._settings.build_index_url,
            sorted(work.config.build.extras),
            work.secrets.revision,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _install(
        self, work: Work, tree: Path, wanted: Dependencies, python: str | None, base: str, locks: Locks
    ) -> str:
        key = work.dependency_key
        settings = self._settings
        self._admit(base)
        container = BuildContainer(
            self._connection.api,
            instance=settings.instance,
            name=f"crewship-build-{_dashed(work.deployment_id)}-deps",
            image=base,
            limits=self._limits,
            timeout_seconds=settings.build_timeout_seconds,
            network=settings.network,
            cache_volume=cache_volume(settings.instance, work.project),
            dns=[str(server) for server in settings.guard_options.dns],
            may_install_system_packages=bool(work.config.build.apt),
        )
        try:
            files: dict[str, Path | bytes | str] = {f"source/{name}": tree / name for name in wanted.names}
            bundles = [settings.build_ca_bundle.read_bytes()] if settings.build_ca_bundle is not None else []
            if work.secrets.ca_bundle:
                bundles.append(work.secrets.ca_bundle)
            if bundles:
                files["ca.pem"] = b"".join(bundle.rstrip() + b"\n" for bundle in bundles)
            if wanted.constraints:
                files["constraints.txt"] = wanted.constraints.encode()
            container.put(BUILD, files)
            container.start()
            with container.watched(work.cancel):
                installer = Installer(container, settings, work.log, work.secrets)
                installer.install(wanted, work.config, python, before=locks(key) or "")
            return self._committed(container, key)
        finally:
            self._remove_large(container.id)

    def _committed(self, container: BuildContainer, key: str) -> str:
        """Id of the image that it becomes. What is in it is read meanwhile, which takes a quarter of a second."""
        with ThreadPoolExecutor(1) as beside:
            facts = beside.submit(read_facts, container)
            image = container.commit(
                _dependencies_image(key),
                {LABEL_DEPENDENCIES: key},
                is_idle=False,
                User=f"{UID}:{UID}",
                WorkingDir=APP,
            )
        if facts.exception() is None:  # or it is read from the image
            self._facts.remember(image, facts.result())
        return image

    # -- application

    def _application(self, work: Work, tree: Path, image: str, *, is_left: bool) -> tuple[str, ImageFacts]:
        """Id of the deployment's image, and what is in that of its dependencies."""
        name = _bench_of(work.deployment_id)
        bench = self.benches.take(image, name) or self._bench(name, image)
        is_done = False
        try:
            bench.assemble({f"source/{name}": path for name, path in _sources(tree).items()}, work.cancel)
            facts = self._facts.of(image, bench.container)
            image = app_image(work.deployment_id)
            earlier = self._find_image(image)
            image_id = bench.container.commit(
                image,
                {LABEL_DEPLOYMENT: work.deployment_id},
                is_idle=True,
                User=f"{UID}:{UID}",
                WorkingDir=APP,
                Env=[f"PATH={PATH}", f"HOME={HOME}", "LANG=C.UTF-8"],
                Entrypoint=[PYTHON, "-I", "-S", f"{RUNNER}/supervisor.py"],
            )
            is_done = True
        finally:
            if not (is_done and is_left):
                self._remove(bench.container.id)
        if earlier is not None:
            with suppress(Conflict):
                self._engine.remove_image(earlier)
        return image_id, facts

    def _bench(self, name: str, image: str, keep_seconds: float = 0.0) -> Workbench:
        """Start one, with the runner in it."""
        timeout_seconds = self._settings.build_timeout_seconds
        container = BuildContainer(
            self._connection.api,
            instance=self._settings.instance,
            name=name,
            image=image,
            command=command(keep_seconds + timeout_seconds + 60),
            limits=self._limits,
            timeout_seconds=timeout_seconds,
            scratch=False,
            stdin=True,
        )
        bench = Workbench(name, container)
        try:
            python = self._facts.of(image, container).python
            runner: dict[str, Path | bytes | str] = {path.name: path for path in runner_files.runner_files()}
            runner |= runner_files.bytecode(python, RUNNER)
            bench.put({f"runtime/{name}": content for name, content in runner.items()})
        except BaseException:
            bench.remove()
            raise
        return bench

    # -- parts

    def _find_image(self, image: str) -> str | None:
        """Its id, or None when it is not there."""
        with suppress(ContainerMissing), translated(image):
            return str(self._connection.api.inspect_image(image)["Id"])
        return None

    @contextmanager
    def _exclusively(self, key: str, cancel: threading.Event) -> Iterator[None]:
        with self._locks_guard:
            lock = self._locks.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=0.25):
            if cancel.is_set():
                raise canceled()
        try:
            yield
        finally:
            lock.release()


def _sources(tree: Path) -> dict[str, Path]:
    """The files of an unpacked source, by their names in it."""
    paths = (path for path in sorted(tree.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(tree).as_posix(): path for path in paths}


def _dashed(deployment_id: str) -> str:
    return deployment_id.replace("_", "-")


def _bench_of(deployment_id: str) -> str:
    """The container that a deployment's image is made in."""
    return f"crewship-build-{_dashed(deployment_id)}"


def _dependencies_image(key: str) -> str:
    return f"crewship/deps:{key}"
