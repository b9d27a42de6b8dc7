"""How a deployment becomes an image: a function of (base image, dependency files, source, runner).

Two images, each made in a ``BuildContainer`` and committed:

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
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from crewship.build_container import BUILD, CACHE, BuildContainer
from crewship.builds import (
    LABEL_DEPENDENCIES,
    BuildFailed,
    BuildLog,
    BuildStep,
    BuiltImage,
    app_image,
    cache_volume,
    canceled,
)
from crewship.config import DeploymentConfig
from crewship.dependencies import Dependencies, find
from crewship.docker_connection import DockerConnection, translated
from crewship.docker_engine import APP, HOME, UID
from crewship.engine import LABEL_DEPLOYMENT, ContainerMissing, ImageMissing, Limits
from crewship.errors import CrewshipError
from crewship.provision.errors import PythonUnavailable
from crewship.settings import Settings
from crewship.source import Limits as SourceLimits
from crewship.source import unpack

BaseImages = Callable[[str | None], str]
"""The platform base (an image's name or id) for a Python version, or for any; raises ``PythonUnavailable``."""

_LAYOUT = 1
"""Part of what dependency images are named by: changes when they are made in another way."""
_OPT = "/opt/crewship"
_UV = f"{_OPT}/bin/uv"
_PYTHON = f"{_OPT}/bin/python3"
_LOCK = f"{_OPT}/requirements.lock"
_VENV = "/opt/venv"
_SOURCE = f"{BUILD}/source"
_DEFAULT_INDEX = "https://pypi.org/simple"
_PATH = f"{_VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_LINES = 60  # of a command's errors, for the failure's message
_MAX_MESSAGE_CHARS = 2000
_MIN_SECRET_CHARS = 6

_COMPILE = ["-I", "-S", "-m", "compileall", "-q", "-q", "-j0", "--invalidation-mode", "unchecked-hash"]

_NO_SUCH_PYTHON = 9
# Makes the venv; $1 is the Python that is wanted. The supervisor's interpreter is the one under the venv. Images of Python often
# come without compiled bytecode, and a run could not keep what it compiles.
_PREPARE = f"""
test -x {_UV}
mkdir -p {BUILD}/tmp {BUILD}/home
if [ -f {BUILD}/ca.pem ]; then cat /etc/ssl/certs/ca-certificates.crt >> {BUILD}/ca.pem 2>/dev/null || true; fi
{_UV} venv --quiet --python "$1" {_VENV} || exit {_NO_SUCH_PYTHON}
ln -sfn "$(readlink -f {_VENV}/bin/python)" {_PYTHON}
: > {_LOCK}
stdlib=$({_PYTHON} -I -S -c 'import os; print(os.path.dirname(os.__file__))')
if [ ! -d "$stdlib/__pycache__" ]; then {_PYTHON} {" ".join(_COMPILE)} "$stdlib" || true; fi
{_PYTHON} -I -S -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' | tee {_OPT}/python-version
"""

# Whether the index answers at all: 0, or 3 when its certificate is not trusted, 4 when there is no way to it.
_REACH = f"""
import os, socket, ssl, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
        if sys.argv[3] == "https":
            bundle = "{BUILD}/ca.pem"
            context = ssl.create_default_context(cafile=bundle if os.path.exists(bundle) else None)
            context.wrap_socket(connection, server_hostname=sys.argv[1]).close()
except ssl.SSLError:
    sys.exit(3)
except OSError:
    sys.exit(4)
"""
_UNTRUSTED, _UNREACHABLE = 3, 4


class ImageBuilder:
    """Builds on one Docker daemon; may be used by several threads.

    Args:
        connection: The daemon.
        settings: The installation's; what starts with ``build_``, and its instance, network and limits.
        base_image: Finds or makes the platform base.
        limits: What one build may use; None: 4 GiB and all CPUs of this machine, 1,024 processes.
    """

    def __init__(
        self,
        connection: DockerConnection,
        settings: Settings,
        base_image: BaseImages,
        *,
        limits: Limits | None = None,
    ) -> None:
        # Committing a gigabyte takes its time.
        self._connection = connection.patient(settings.build_timeout_seconds)
        self._settings = settings
        self._base_image = base_image
        self._limits = limits or Limits(memory_bytes=4 << 30, cpus=float(os.cpu_count() or 1), pids=1024)
        self._locks: dict[str, threading.Lock] = {}
        """One for each dependency image, so that two deployments that want the same one make it once."""
        self._locks_guard = threading.Lock()

    def close(self) -> None:
        """Let the connections go."""
        self._connection.close()

    def build(
        self,
        deployment_id: str,
        project: str,
        config: DeploymentConfig,
        source: Path,
        log: BuildLog,
        cancel: threading.Event | None = None,
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

        Raises:
            BuildFailed: the project is the reason, or ``cancel``.
            Unavailable: the engine is the reason, or the base image cannot be had.
        """
        work = _Work(deployment_id, project, config, log, cancel or threading.Event())
        with TemporaryDirectory(prefix="crewship-build-") as folder:
            tree = Path(folder)
            with source.open("rb") as stream:
                try:
                    unpack(stream, tree, SourceLimits.of(self._settings.max_source_bytes))
                except CrewshipError as error:
                    raise BuildFailed("build_failed", error.detail, error.hint) from error
            with work.step("dependencies") as step:
                image, step.cached = self._dependencies(work, tree)
            with work.step("image"):
                image_id, python, lock = self._application(work, tree, image)
        return BuiltImage(image_id, python, lock, step.cached, tuple(work.steps))

    # -- dependencies

    def _dependencies(self, work: "_Work", tree: Path) -> tuple[str, bool]:
        """The image with the project's dependencies, and whether it was there."""
        wanted = find(tree)
        try:
            base = self._base_image(work.config.python or wanted.python)
        except PythonUnavailable as error:
            raise BuildFailed("python_version", error.detail, error.hint) from error
        key = self._key(self._image_id(base), wanted, tree, work.config)
        image = f"crewship/deps:{key}"
        with self._exclusively(key, work.cancel):
            try:
                self._image_id(image)
            except ImageMissing:
                self._install(work, tree, wanted, base, key)
                return image, False
        return image, True

    def _key(self, base_id: str, wanted: Dependencies, tree: Path, config: DeploymentConfig) -> str:
        """Hash of all that decides what a dependency image is; ``uv`` is part of the base."""
        parts = [
            _LAYOUT,
            base_id,
            wanted.file,
            wanted.digest(tree),
            wanted.requires_python,
            sorted(config.build.apt),
            self._settings.build_index_url,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _install(self, work: "_Work", tree: Path, wanted: Dependencies, base: str, key: str) -> None:
        settings = self._settings
        container = BuildContainer(
            self._connection.api,
            instance=settings.instance,
            name=f"crewship-build-{_dashed(work.deployment_id)}-deps",
            image=base,
            limits=self._limits,
            timeout_seconds=settings.build_timeout_seconds,
            network=settings.network,
            cache_volume=cache_volume(settings.instance, work.project),
            may_install_system_packages=bool(work.config.build.apt),
        )
        try:
            files: dict[str, Path | bytes | str] = {f"source/{name}": tree / name for name in wanted.names}
            if settings.build_ca_bundle is not None:
                files["ca.pem"] = settings.build_ca_bundle.read_bytes().rstrip() + b"\n"
            container.put(BUILD, files)
            with container.started(work.cancel):
                self._run_install(work, container, wanted)
            container.commit(f"crewship/deps:{key}", {LABEL_DEPENDENCIES: key}, User=f"{UID}:{UID}", WorkingDir=APP)
        finally:
            container.remove()

    def _run_install(self, work: "_Work", container: BuildContainer, wanted: Dependencies) -> None:
        """The commands that make ``/opt/venv``, each with its own way to fail."""
        env = self._install_env()
        python = work.config.python or wanted.python or "3"
        prepare = ["sh", "-euc", _PREPARE, "sh", wanted.requires_python or python]
        output = _Output(work.log, hidden=self._secrets())
        if code := container.run(prepare, env=env, on_line=output):
            if code == _NO_SUCH_PYTHON:
                raise _wrong_python(wanted.requires_python or python)
            raise BuildFailed("infrastructure", f"The base image cannot be built on: {output.explanation()}")
        if work.config.build.apt:
            self._install_system_packages(work, container, env)
        if wanted.file is None:
            work.log.line("No requirements.txt or pyproject.toml: nothing to install", "info", "stdout")
            return
        install = [_UV, "pip", "install", "--requirements", wanted.file]
        # What cannot be resolved is told from what cannot be built by the command that fails, not by what it prints. The
        # second one finds everything that the first one asked for in the cache.
        output = _Output(work.log, hidden=self._secrets())
        if code := container.run([*install, "--dry-run", "--quiet"], env=env, folder=_SOURCE, on_line=output):
            self._raise_if_unreachable(container, code)
            raise BuildFailed(
                "dependency_resolution",
                output.explanation(),
                hint=f"Change the requirement in {wanted.file}, then deploy again.",
            )
        output = _Output(work.log, hidden=self._secrets())
        if code := container.run([*install, "--compile-bytecode"], env=env, folder=_SOURCE, on_line=output):
            self._raise_if_unreachable(container, code)
            raise BuildFailed(
                "build_failed",
                output.explanation(),
                hint="A package could not be installed; the build log has its output. "
                'System packages that it needs go into crewship.toml: [build] apt = ["..."].',
            )
        container.run(["sh", "-euc", f"{_UV} pip freeze --quiet > {_LOCK}"], env=env, on_line=output)

    def _install_system_packages(self, work: "_Work", container: BuildContainer, env: dict[str, str]) -> None:
        apt = [
            "apt-get", "--quiet", "-o", f"Dir::State::lists={BUILD}/apt-lists", "-o", f"Dir::Cache={BUILD}/apt-cache",
            "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0",
        ]  # fmt: skip
        env = {**env, "DEBIAN_FRONTEND": "noninteractive"}
        output = _Output(work.log)
        folders = ["mkdir", "-p", f"{BUILD}/apt-lists/partial", f"{BUILD}/apt-cache/archives/partial"]
        install = [*apt, "install", "--yes", "--no-install-recommends", *work.config.build.apt]
        for command in (folders, [*apt, "update"], install):
            if container.run(command, env=env, on_line=output):
                raise BuildFailed(
                    "build_failed",
                    f"The system packages could not be installed: {output.explanation()}",
                    hint="Check the names in crewship.toml: [build] apt.",
                )

    def _raise_if_unreachable(self, container: BuildContainer, code: int) -> None:
        """Say so when the index did not answer. ``uv`` ends with 1 for what it has found out, 2 for what went wrong."""
        if code == 1:
            return
        index = urlsplit(self._settings.build_index_url or _DEFAULT_INDEX)
        port = index.port or (443 if index.scheme == "https" else 80)
        reach = [_PYTHON, "-I", "-c", _REACH, index.hostname or "", str(port), index.scheme]
        result = container.run(reach, on_line=lambda line, stream: None)
        if result == _UNTRUSTED:
            raise BuildFailed(
                "infrastructure",
                f"The certificate of the package index {index.hostname} is not trusted",
                hint="Behind a TLS-inspecting proxy the operator names its CA bundle: CREWSHIP_BUILD_CA_BUNDLE.",
            )
        if result == _UNREACHABLE:
            raise BuildFailed(
                "infrastructure",
                f"The package index {index.hostname} cannot be reached from a build",
                hint="Check the host's network, or name another index: CREWSHIP_BUILD_INDEX_URL.",
            )

    def _install_env(self) -> dict[str, str]:
        env = {
            "HOME": f"{BUILD}/home",
            "TMPDIR": f"{BUILD}/tmp",
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
            "VIRTUAL_ENV": _VENV,
            "UV_CACHE_DIR": f"{CACHE}/uv",
            "UV_LINK_MODE": "copy",
            "UV_NO_EDITABLE": "1",  # /build is gone when it runs
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        if self._settings.build_index_url:
            env["UV_DEFAULT_INDEX"] = self._settings.build_index_url
        if self._settings.build_ca_bundle is not None:
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
                env[name] = f"{BUILD}/ca.pem"
        return env

    def _secrets(self) -> tuple[str, ...]:
        """Parts of the index's URL that no log may show; a word of a few letters is no secret."""
        url = urlsplit(self._settings.build_index_url)
        return tuple(part for part in (url.password, url.username) if part and len(part) >= _MIN_SECRET_CHARS)

    # -- application

    def _application(self, work: "_Work", tree: Path, image: str) -> tuple[str, str, str]:
        """Id of the deployment's image, version of its Python, and the packages in it."""
        container = BuildContainer(
            self._connection.api,
            instance=self._settings.instance,
            name=f"crewship-build-{_dashed(work.deployment_id)}",
            image=image,
            command=[f"{_VENV}/bin/python", *_COMPILE, f"{_OPT}/runtime", f"{_OPT}/source"],
            limits=self._limits,
            timeout_seconds=self._settings.build_timeout_seconds,
        )
        try:
            files: dict[str, Path | bytes | str] = {f"runtime/{path.name}": path for path in _runtime_files()}
            for path in sorted(tree.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    files[f"source/{path.relative_to(tree).as_posix()}"] = path
            container.put(_OPT, files)
            lock, python = container.read(_LOCK), container.read(f"{_OPT}/python-version")
            with container.started(work.cancel):
                container.wait()
            image_id = container.commit(
                app_image(work.deployment_id),
                {LABEL_DEPLOYMENT: work.deployment_id},
                User=f"{UID}:{UID}",
                WorkingDir=APP,
                Env=[f"PATH={_PATH}", f"HOME={HOME}", "LANG=C.UTF-8"],
                Entrypoint=[_PYTHON, "-I", "-S", f"{_OPT}/runtime/supervisor.py"],
            )
        finally:
            container.remove()
        return image_id, python.decode().strip().removeprefix("Python "), lock.decode()

    # -- parts

    def _image_id(self, image: str) -> str:
        try:
            with translated(image):
                return str(self._connection.api.inspect_image(image)["Id"])
        except ContainerMissing as error:
            raise ImageMissing(image) from error

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


class _Step:
    cached = False


class _Work:
    """One build: what for, and how far it is."""

    def __init__(
        self, deployment_id: str, project: str, config: DeploymentConfig, log: BuildLog, cancel: threading.Event
    ) -> None:
        self.deployment_id = deployment_id
        self.project = project
        self.config = config
        self.log = log
        self.cancel = cancel
        self.steps: list[BuildStep] = []

    @contextmanager
    def step(self, name: str) -> Iterator[_Step]:
        if self.cancel.is_set():
            raise canceled()
        self.log.step(name, "started", None, False)
        started = time.monotonic()
        step = _Step()
        try:
            yield step
        except BaseException:
            self.log.step(name, "failed", _ms_since(started), False)
            raise
        self.steps.append(BuildStep(name, _ms_since(started), step.cached))
        self.log.step(name, "completed", _ms_since(started), step.cached)


class _Output:
    """Hands a command's lines on as they come, and keeps the last of its errors to explain a failure with."""

    def __init__(self, log: BuildLog, hidden: tuple[str, ...] = ()) -> None:
        self._log = log
        self._hidden = hidden
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)

    def __call__(self, line: str, stream: str) -> None:
        for secret in self._hidden:
            line = line.replace(secret, "***")
        if stream == "stderr":
            self._errors.append(line)
        self._log.line(line, "info", stream)

    def explanation(self) -> str:
        """What the command said about its failure, as one paragraph."""
        text = ""
        for line in map(_plain, self._errors):
            if line.startswith("hint:"):
                break  # of the installer's options, which are not the project's to choose
            is_cause = line.startswith("cause: ")
            text += (": " if is_cause and text else " ") + line.removeprefix("cause: ")
        return " ".join(text.split())[:_MAX_MESSAGE_CHARS] or "the command failed without a word"


def _plain(line: str) -> str:
    """A line of ``uv``'s report without the tree that it draws."""
    line = line.strip(" ×╰─▶├│\t").removeprefix("error: ")
    return "" if line.startswith("Using Python ") else line


def _wrong_python(wanted: str) -> BuildFailed:
    minor = re.search(r"3\.\d+", wanted)
    return BuildFailed(
        "python_version",
        f"The project needs Python {wanted}, which its base image does not have",
        hint=f'Set python = "{minor[0] if minor else "3.12"}" in crewship.toml, or widen requires-python in pyproject.toml.',
    )


def _runtime_files() -> list[Path]:
    """The runner's files, as they are installed here."""
    folder = Path(str(resources.files("runtime")))
    return sorted(path for path in folder.iterdir() if path.suffix == ".py")


def _dashed(deployment_id: str) -> str:
    return deployment_id.replace("_", "-")


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
