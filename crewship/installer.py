"""What is run in a build container to install a project's dependencies, and what its failures mean.

The reason of a failure is told by which command failed and by its exit code, never by what it printed; its words are
only handed on.
"""

import re
from collections import deque
from urllib.parse import urlsplit

from crewship.build_container import BUILD, CACHE, BuildContainer
from crewship.builds import BuildFailed, BuildLog
from crewship.config import DeploymentConfig
from crewship.dependencies import Dependencies
from crewship.settings import Settings

OPT = "/opt/crewship"
VENV = "/opt/venv"
PYTHON = f"{OPT}/bin/python3"
"""The interpreter under the venv."""
LOCK = f"{OPT}/requirements.lock"
PYTHON_VERSION = f"{OPT}/python-version"
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPILE = ["-I", "-S", "-m", "compileall", "-q", "-q", "-j0", "--invalidation-mode", "unchecked-hash"]
"""Arguments of an interpreter, before the folders; ``-I -S``: none of what is compiled is run."""

_UV = f"{OPT}/bin/uv"
_SOURCE = f"{BUILD}/source"
_DEFAULT_INDEX = "https://pypi.org/simple"
_KEPT_LINES = 60  # of a command's errors, for the failure's message
_MAX_MESSAGE_CHARS = 2000
_MIN_SECRET_CHARS = 6

_NO_SUCH_PYTHON = 9
# Makes the venv; $1 is the Python that is wanted. The supervisor's interpreter is the one under the venv. Images of Python often
# come without compiled bytecode, and a run could not keep what it compiles.
_PREPARE = f"""
test -x {_UV}
mkdir -p {BUILD}/tmp {BUILD}/home
if [ -f {BUILD}/ca.pem ]; then cat /etc/ssl/certs/ca-certificates.crt >> {BUILD}/ca.pem 2>/dev/null || true; fi
{_UV} venv --quiet --python "$1" {VENV} || exit {_NO_SUCH_PYTHON}
ln -sfn "$(readlink -f {VENV}/bin/python)" {PYTHON}
: > {LOCK}
stdlib=$({PYTHON} -I -S -c 'import os; print(os.path.dirname(os.__file__))')
if [ ! -d "$stdlib/__pycache__" ]; then {PYTHON} {" ".join(COMPILE)} "$stdlib" || true; fi
{PYTHON} -I -S -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' | tee {PYTHON_VERSION}
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


class Installer:
    """Installs into one started container."""

    def __init__(self, container: BuildContainer, settings: Settings, log: BuildLog) -> None:
        self._container = container
        self._settings = settings
        self._log = log

    def install(self, wanted: Dependencies, config: DeploymentConfig) -> None:
        """Make ``/opt/venv``, by commands of which each has its own way to fail.

        Raises:
            BuildFailed: one of them did.
        """
        env = self._env()
        python = config.python or wanted.python or "3"
        prepare = ["sh", "-euc", _PREPARE, "sh", wanted.requires_python or python]
        output = _Output(self._log, hidden=self._secrets())
        if code := self._container.run(prepare, env=env, on_line=output):
            if code == _NO_SUCH_PYTHON:
                raise _wrong_python(wanted.requires_python or python)
            raise BuildFailed("infrastructure", f"The base image cannot be built on: {output.explanation()}")
        if config.build.apt:
            self._install_system_packages(config.build.apt, env)
        if wanted.file is None:
            self._log.line("No requirements.txt or pyproject.toml: nothing to install", "info", "stdout")
            return
        install = [_UV, "pip", "install", "--requirements", wanted.file]
        # What cannot be resolved is told from what cannot be built by the command that fails, not by what it prints. The
        # second one finds everything that the first one asked for in the cache.
        output = _Output(self._log, hidden=self._secrets())
        if code := self._container.run([*install, "--dry-run", "--quiet"], env=env, folder=_SOURCE, on_line=output):
            self._raise_if_unreachable(code)
            raise BuildFailed(
                "dependency_resolution",
                output.explanation(),
                hint=f"Change the requirement in {wanted.file}, then deploy again.",
            )
        output = _Output(self._log, hidden=self._secrets())
        if code := self._container.run([*install, "--compile-bytecode"], env=env, folder=_SOURCE, on_line=output):
            self._raise_if_unreachable(code)
            raise BuildFailed(
                "build_failed",
                output.explanation(),
                hint="A package could not be installed; the build log has its output. "
                'System packages that it needs go into crewship.toml: [build] apt = ["..."].',
            )
        self._container.run(["sh", "-euc", f"{_UV} pip freeze --quiet > {LOCK}"], env=env, on_line=output)

    def _install_system_packages(self, packages: list[str], env: dict[str, str]) -> None:
        apt = [
            "apt-get", "--quiet", "-o", f"Dir::State::lists={BUILD}/apt-lists", "-o", f"Dir::Cache={BUILD}/apt-cache",
            "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0",
        ]  # fmt: skip
        env = {**env, "DEBIAN_FRONTEND": "noninteractive"}
        output = _Output(self._log)
        folders = ["mkdir", "-p", f"{BUILD}/apt-lists/partial", f"{BUILD}/apt-cache/archives/partial"]
        install = [*apt, "install", "--yes", "--no-install-recommends", *packages]
        for command in (folders, [*apt, "update"], install):
            if self._container.run(command, env=env, on_line=output):
                raise BuildFailed(
                    "build_failed",
                    f"The system packages could not be installed: {output.explanation()}",
                    hint="Check the names in crewship.toml: [build] apt.",
                )

    def _raise_if_unreachable(self, code: int) -> None:
        """Say so when the index did not answer. ``uv`` ends with 1 for what it has found out, 2 for what went wrong."""
        if code == 1:
            return
        index = urlsplit(self._settings.build_index_url or _DEFAULT_INDEX)
        port = index.port or (443 if index.scheme == "https" else 80)
        reach = [PYTHON, "-I", "-c", _REACH, index.hostname or "", str(port), index.scheme]
        result = self._container.run(reach, on_line=lambda line, stream: None)
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

    def _env(self) -> dict[str, str]:
        env = {
            "HOME": f"{BUILD}/home",
            "TMPDIR": f"{BUILD}/tmp",
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
            "VIRTUAL_ENV": VENV,
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
