"""What is run in a build container to install a project's dependencies, and what its failures mean.

The reason of a failure is told by which command failed and by its exit code, never by what it printed; its words are
only handed on.
"""

import json
import re
from collections import deque
from urllib.parse import urlsplit

from crewship import bytecode
from crewship.build_container import BUILD, CACHE, BuildContainer
from crewship.build_secrets import NONE, BuildSecrets
from crewship.builds import BuildFailed, BuildLog
from crewship.config import DeploymentConfig
from crewship.contents import packages
from crewship.dependencies import POETRY_LOCK, PYLOCK, PYPROJECT, UV_LOCK, Dependencies
from crewship.redaction import Redactor
from crewship.settings import Settings

OPT = "/opt/crewship"
VENV = "/opt/venv"
PYTHON = f"{OPT}/bin/python3"
"""The interpreter under the venv."""
LOCK = f"{OPT}/requirements.lock"
PYTHON_VERSION = f"{OPT}/python-version"
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPILE = ["-I", "-S", "-m", "compileall", "-q", "-q", "--invalidation-mode", "unchecked-hash"]
"""Arguments of an interpreter, before the folders; ``-I -S``: none of what is compiled is run."""
ALL_CORES = "-j0"
"""One more: it costs 30 ms to begin with, as much as a hundred kilobytes of source."""

_UV = f"{OPT}/bin/uv"
_SOURCE = f"{BUILD}/source"
_DEFAULT_INDEX = "https://pypi.org/simple"
_KEPT_LINES = 60  # of a command's errors, for the failure's message
_MAX_MESSAGE_CHARS = 2000
_MIN_SECRET_CHARS = 6

_EXPORTED = {True: "requirements.crewship.txt", False: "pylock.crewship.toml"}
"""What ``uv.lock`` becomes, beside it, where relative paths in it hold: with another index than the lock names, the addresses of
files in it are of no use."""

_POETRYS = "requirements.crewship-poetry.txt"

_NO_SUCH_PYTHON = 9
# Makes the venv; $1 is the Python that is wanted. The supervisor's interpreter is the one under the venv. Images of Python often
# come without compiled bytecode, and a run could not keep what it compiles.
_PREPARE = f"""
test -x {_UV}
mkdir -p {BUILD}/tmp {BUILD}/home
touch {BUILD}/begun
if [ -f {BUILD}/ca.pem ]; then cat /etc/ssl/certs/ca-certificates.crt >> {BUILD}/ca.pem 2>/dev/null || true; fi
{_UV} venv --quiet --python "$1" {VENV} || exit {_NO_SUCH_PYTHON}
ln -sfn "$(readlink -f {VENV}/bin/python)" {PYTHON}
: > {LOCK}
stdlib=$({PYTHON} -I -S -c 'import os; print(os.path.dirname(os.__file__))')
if [ ! -d "$stdlib/__pycache__" ]; then {PYTHON} {" ".join([*COMPILE, ALL_CORES])} "$stdlib" || true; fi
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

# Whether the index that is asked first lets the build in: 0, or 3 when it wants other credentials. It comes by the environment,
# for it may have some in it.
_LET_IN = f"""
import base64, os, ssl, sys, urllib.error, urllib.parse, urllib.request
url = urllib.parse.urlsplit(os.environ.get("UV_DEFAULT_INDEX") or os.environ["UV_INDEX_URL"])
request = urllib.request.Request(url._replace(netloc=url.netloc.rpartition("@")[2]).geturl())
if url.username:
    given = f"{{urllib.parse.unquote(url.username)}}:{{urllib.parse.unquote(url.password or '')}}"
    request.add_header("Authorization", "Basic " + base64.b64encode(given.encode()).decode())
bundle = "{BUILD}/ca.pem"
try:
    context = ssl.create_default_context(cafile=bundle if os.path.exists(bundle) else None)
    urllib.request.urlopen(request, timeout=10, context=context).close()
except urllib.error.HTTPError as error:
    sys.exit(3 if error.code in (401, 403) else 0)
except OSError:
    sys.exit(0)
"""

# Poetry's own reader of its own notation, from $1; the extras that are wanted are the other arguments.
_READ_POETRY = f"""
import pathlib, sys
sys.path.insert(0, "{BUILD}/poetry-core")
from poetry.core.factory import Factory
package = Factory().create_poetry(pathlib.Path.cwd(), with_groups=False).package
wanted = set(sys.argv[1:])
unknown = wanted - {{str(name) for name in package.extras}}
if unknown:
    sys.exit("error: pyproject.toml has no extra " + ", ".join(sorted(unknown)))
chosen = {{each.name for name in package.extras if str(name) in wanted for each in package.extras[name]}}
lines = [each.to_pep_508(with_extras=False) for each in package.requires if not each.is_optional() or each.name in chosen]
pathlib.Path("{_POETRYS}").write_text("".join(line + "\\n" for line in lines))
"""

# Installers note where a package came from (PEP 610); credentials have no place there.
_FORGET = f"""
import glob, re
for path in glob.glob("{VENV}/lib/python3.*/site-packages/*.dist-info/direct_url.json"):
    with open(path) as file:
        text = file.read()
    plain = re.sub(r"://[^/@\\x22]*@", "://", text)
    if plain != text:
        with open(path, "w") as file:
            file.write(plain)
"""

# $1: _FORGET, before which nothing may note where packages came from; $2: what compiles them, and takes longest.
_FINISH = f"""
( {PYTHON} -I -S -c "$1"; {_UV} pip freeze --quiet > {LOCK} ) &
{PYTHON} -I -S -c "$2" {VENV}/lib {CACHE}/bytecode
wait
"""

# Whether anything that was written since the beginning, and would be in the image, has one of the strings in forms.json in it:
# 0, or 5 with the files' names on stdout.
_SEARCH = f"""
import json, os, sys
with open("{BUILD}/forms.json") as file:
    forms = [bytes.fromhex(form) for form in json.load(file)]
longest = max(map(len, forms))
begun, device = os.stat("{BUILD}/begun").st_ctime, os.stat("/").st_dev
found = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
    for name in names:
        path = os.path.join(folder, name)
        try:
            facts = os.lstat(path)
            if os.path.islink(path):
                data = [os.fsencode(os.readlink(path))]
            elif not os.path.isfile(path) or facts.st_ctime < begun:
                continue
            else:
                file, rest, data = open(path, "rb"), b"", []
                with file:
                    while piece := file.read(1 << 20):
                        text = rest + piece
                        if any(form in text for form in forms):
                            data = [text]
                            break
                        rest = text[-longest:]
        except OSError:
            continue
        if any(form in text for text in [os.fsencode(path), *data] for form in forms):
            found.append(path)
for path in found[:10]:
    print(path)
sys.exit(5 if found else 0)
"""


class Installer:
    """Installs into one started container."""

    def __init__(
        self, container: BuildContainer, settings: Settings, log: BuildLog, secrets: BuildSecrets = NONE
    ) -> None:
        self._container = container
        self._settings = settings
        self._log = log
        self._secrets = secrets
        self._redactor = Redactor(secrets.values)

    def install(self, wanted: Dependencies, config: DeploymentConfig, python: str | None, *, before: str = "") -> None:
        """Make ``/opt/venv``, by commands of which each has its own way to fail.

        Args:
            python: Major and minor version that was chosen; None: what the base image has.
            before: Lock of an earlier install of the same; its versions are installed again, if they can still be had.

        Raises:
            BuildFailed: one of them did.
        """
        env = self._env()
        interpreter = wanted.requires_python or python or "3"
        prepare = ["sh", "-euc", _PREPARE, "sh", interpreter]
        output = self._output()
        if code := self._container.run(prepare, env=env, on_line=output):
            if code == _NO_SUCH_PYTHON:
                raise _wrong_python(interpreter)
            raise BuildFailed("infrastructure", f"The base image cannot be built on: {output.explanation()}")
        if config.build.apt:
            self._install_system_packages(config.build.apt, env)
        if wanted.file is None:
            self._log.line("No requirements.txt or pyproject.toml: nothing to install", "info", "stdout")
            return
        self._log.line(f"Dependencies by {wanted.path}", "info", "stdout")
        # From here on strangers' code may run, and what it needs is there: not before, and not after.
        env |= self._secrets.environment
        install = [_UV, "pip", "install", *self._arguments(wanted, config, env)]
        if not self._install_as_before(install, wanted, before, env):
            self._install_packages(install, wanted, config, env)
        env, output = self._env(), self._output()
        self._container.run(["sh", "-uc", _FINISH, "sh", _FORGET, bytecode.SCRIPT], env=env, on_line=output)
        self._refuse_written_secrets()

    def _install_packages(
        self, install: list[str], wanted: Dependencies, config: DeploymentConfig, env: dict[str, str]
    ) -> None:
        unresolved = self._unresolved(install, wanted, env)
        if unresolved is not None:
            self._raise_if_kept_out(env)
            raise BuildFailed("dependency_resolution", unresolved, hint=_unresolved_hint(wanted, config))

    def _install_as_before(self, install: list[str], wanted: Dependencies, before: str, env: dict[str, str]) -> bool:
        """Install the versions of an earlier time; False, with nothing done, when there are none or not all can be had now."""
        if wanted.file in (UV_LOCK, PYLOCK):  # which say it themselves
            return False
        pins = [f"{package.name}=={package.version}\n" for package in packages(before).values() if not package.url]
        if not pins:
            return False
        self._container.put(BUILD, {"before.txt": "".join(pins).encode()})
        self._log.line("Versions as they were installed before", "info", "stdout")
        if self._unresolved([*install, "--constraints", f"{BUILD}/before.txt"], wanted, env) is None:
            return True
        self._log.line("What was installed before cannot be had any more: resolved anew", "warning", "stderr")
        return False

    def _unresolved(self, install: list[str], wanted: Dependencies, env: dict[str, str]) -> str | None:
        """Install; None when that is done, or why there is nothing that could be.

        Raises:
            BuildFailed: what was found could not be installed, or the index does not answer.
        """
        output, folder = self._output(), _folder_of(wanted)
        code = self._container.run(install, env=env, folder=folder, on_line=output)
        if code == 0:
            return None
        self._raise_if_unreachable(code)
        # What cannot be resolved is told from what cannot be built by asking for the first alone, not by what was printed.
        resolving = _Output(None, output.hidden, self._redactor)
        if self._container.run([*install, "--dry-run", "--quiet"], env=env, folder=folder, on_line=resolving):
            return resolving.explanation()
        raise BuildFailed(
            "build_failed",
            output.explanation(),
            hint="A package could not be installed; the build log has its output. "
            'System packages that it needs go into crewship.toml: [build] apt = ["..."].',
        )

    def _arguments(self, wanted: Dependencies, config: DeploymentConfig, env: dict[str, str]) -> list[str]:
        """What ``uv pip install`` is given for the file that is followed."""
        extras = [argument for name in config.build.extras for argument in ("--extra", name)]
        match wanted.file:
            case name if name == UV_LOCK:
                return ["--requirements", self._export(env, extras, _folder_of(wanted))]
            case name if name == POETRY_LOCK or (name == PYPROJECT and wanted.is_poetrys):
                pins = ["--constraints", f"{BUILD}/constraints.txt"] if wanted.constraints else []
                if not wanted.is_poetrys:
                    return ["--requirements", PYPROJECT, *pins, *extras]
                return ["--requirements", self._read_poetry(config.build.extras, env, _folder_of(wanted)), *pins]
            case name if name == PYPROJECT:
                return ["--requirements", PYPROJECT, *extras]
            case name:
                if extras:
                    raise BuildFailed(
                        "dependency_resolution",
                        f"crewship.toml asks for extras ({', '.join(config.build.extras)}), and {name} has none",
                        hint="Extras are optional dependencies of pyproject.toml; leave [build] extras out, or "
                        f"leave {name} out of the upload with [build] exclude.",
                    )
                return ["--requirements", name or ""]

    def _read_poetry(self, extras: list[str], env: dict[str, str], folder: str) -> str:
        """Write what Poetry's ``pyproject.toml`` asks for as requirements; the file's name."""
        output = self._output()
        reader = [_UV, "pip", "install", "--quiet", "--target", f"{BUILD}/poetry-core", "poetry-core>=2,<3"]
        if code := self._container.run(reader, env=env, on_line=output):
            self._raise_if_unreachable(code)
            raise BuildFailed(
                "dependency_resolution",
                f"poetry-core, which reads this pyproject.toml, cannot be had: {output.explanation()}",
                hint="Have it in the package index that builds use, or move the dependencies to [project] (PEP 621).",
            )
        output = self._output()
        command = [f"{VENV}/bin/python", "-I", "-c", _READ_POETRY, *extras]
        if self._container.run(command, env=self._env(), folder=folder, on_line=output):
            raise BuildFailed(
                "dependency_resolution",
                f"pyproject.toml cannot be read as Poetry's: {output.last}",
                hint="`poetry check` says more; dependencies may also be in [project] (PEP 621).",
            )
        return _POETRYS

    def _export(self, env: dict[str, str], extras: list[str], folder: str) -> str:
        """Write ``uv.lock`` in a form that can be installed, without the project itself and its groups; the file's name."""
        is_elsewhere = bool(self._settings.build_index_url) or self._secrets.names_an_index
        name = _EXPORTED[is_elsewhere]
        command = [_UV, "export", "--quiet", "--no-default-groups", "--no-emit-project", "--no-header", *extras]
        command += ["--python", f"{VENV}/bin/python", "--output-file", name]
        # The index is part of what a lock is checked by.
        command += ["--frozen", "--format", "requirements.txt"] if is_elsewhere else ["--locked", "--format", PYLOCK]
        output = self._output()
        if code := self._container.run(command, env=env, folder=folder, on_line=output):
            self._raise_if_unreachable(code)
            raise BuildFailed(
                "dependency_resolution",
                output.explanation(),
                hint="uv.lock has to be what pyproject.toml asks for: run `uv lock`, then deploy again.",
            )
        return name

    def _refuse_written_secrets(self) -> None:
        """See that no build secret was written where an image would keep it.

        Raises:
            BuildFailed: one was; names the files.
        """
        forms = Redactor(self._secrets.environment).forms
        if not forms:
            return
        text = json.dumps([form.encode("utf-8", "surrogatepass").hex() for form in forms]).encode()
        self._container.put(BUILD, {"forms.json": text})
        found: list[str] = []

        def keep(line: str, stream: str) -> None:
            if stream == "stdout":
                found.append(self._redactor.redact(line))

        if self._container.run([PYTHON, "-I", "-S", "-c", _SEARCH], on_line=keep):
            raise BuildFailed(
                "build_failed",
                "A package has written a build secret down, and an image must not have one: "
                f"{', '.join(found) or 'the search for it failed'}",
                hint="Unset the secret, or leave out the package that writes its environment down.",
            )

    def _install_system_packages(self, packages: list[str], env: dict[str, str]) -> None:
        apt = [
            "apt-get", "--quiet", "-o", f"Dir::State::lists={BUILD}/apt-lists", "-o", f"Dir::Cache={BUILD}/apt-cache",
            "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0",
        ]  # fmt: skip
        env = {**env, "DEBIAN_FRONTEND": "noninteractive"}
        output = self._output()
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
        index = urlsplit(self._index_url())
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

    def _raise_if_kept_out(self, env: dict[str, str]) -> None:
        """Say so when the index wants other credentials than it was given: to ``uv`` its packages are not there then."""
        if not env.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
            return
        if self._container.run([PYTHON, "-I", "-c", _LET_IN], env=env, on_line=lambda line, stream: None) == 3:
            host = urlsplit(self._index_url()).hostname
            raise BuildFailed(
                "dependency_resolution",
                f"The package index {host} does not let the build in: it wants other credentials",
                hint=f"Give them as secrets of builds: crewship env set --build UV_INDEX_URL=https://user:token@{host}/simple",
            )

    def _index_url(self) -> str:
        """The index that a build asks first."""
        secrets = self._secrets.values
        own = secrets.get("UV_DEFAULT_INDEX") or secrets.get("UV_INDEX_URL")
        return own or self._settings.build_index_url or _DEFAULT_INDEX

    def _env(self) -> dict[str, str]:
        env = {
            "HOME": f"{BUILD}/home",
            "TMPDIR": f"{BUILD}/tmp",
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "VIRTUAL_ENV": VENV,
            "UV_CACHE_DIR": f"{CACHE}/uv",
            "UV_LINK_MODE": "copy",
            "UV_NO_EDITABLE": "1",  # /build is gone when it runs
            "UV_NO_PROGRESS": "1",
            "UV_PREVIEW_FEATURES": "pylock",  # says so in a warning otherwise
            "UV_PYTHON_DOWNLOADS": "never",
        }
        if self._settings.build_index_url:
            env["UV_DEFAULT_INDEX"] = self._settings.build_index_url
        if self._settings.build_ca_bundle is not None or self._secrets.ca_bundle:
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
                env[name] = f"{BUILD}/ca.pem"
        return env

    def _output(self) -> "_Output":
        """Shows a command's lines without secrets: the project's, and those in the platform's own index URL."""
        url = urlsplit(self._settings.build_index_url)
        parts = [part for part in (url.password, url.username) if part and len(part) >= _MIN_SECRET_CHARS]
        return _Output(self._log, tuple(parts), self._redactor)


class _Output:
    """Hands a command's lines on as they come, if to anybody, and keeps the last of its errors to explain a failure with."""

    def __init__(self, log: BuildLog | None, hidden: tuple[str, ...], redactor: Redactor) -> None:
        self._log = log
        self.hidden = hidden
        self._redactor = redactor
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)

    def __call__(self, line: str, stream: str) -> None:
        if line.startswith("Using Python "):  # of the image; tells the project's author nothing
            return
        line = self._redactor.redact(line)
        for secret in self.hidden:
            line = line.replace(secret, "***")
        if stream == "stderr":
            self._errors.append(line)
        if self._log is not None:
            self._log.line(line, "info", stream)

    @property
    def last(self) -> str:
        """The last line of the errors: what a traceback ends with."""
        said = [line for line in self._errors if line.strip()]
        return said[-1].removeprefix("error: ")[:_MAX_MESSAGE_CHARS] if said else "the command failed without a word"

    def explanation(self) -> str:
        """What the command said about its failure, as one paragraph."""
        lines = list(self._errors)
        # What was done before the failure is in the log.
        begins = next((index for index, line in enumerate(lines) if line.lstrip().startswith(("error:", "×"))), 0)
        text = ""
        for line in map(_plain, lines[begins:]):
            if line.startswith("hint:"):
                break  # of the installer's options, which are not the project's to choose
            is_cause = line.startswith("cause: ")
            text += (": " if is_cause and text else " ") + line.removeprefix("cause: ")
        return " ".join(text.split())[:_MAX_MESSAGE_CHARS] or "the command failed without a word"


def _folder_of(wanted: Dependencies) -> str:
    """Where the file that is followed is in the container; paths in it are relative to that."""
    return f"{_SOURCE}/{wanted.place}".rstrip("/")


def _plain(line: str) -> str:
    """A line of ``uv``'s report without the tree that it draws."""
    return line.strip(" ×╰─▶├│\t").removeprefix("error: ")


def _unresolved_hint(wanted: Dependencies, config: DeploymentConfig) -> str:
    if wanted.file == POETRY_LOCK:
        return "poetry.lock has to be what pyproject.toml asks for: run `poetry lock`, then deploy again."
    if wanted.uses_git and "git" not in config.build.apt:
        return (
            'A requirement is a repository, which the build fetches with git: add [build] apt = ["git"] to crewship.toml. '
            "The repository's host must be reachable from a build; a release from the package index needs neither."
        )
    return f"Change the requirement in {wanted.path}, then deploy again."


def _wrong_python(wanted: str) -> BuildFailed:
    minor = re.search(r"3\.\d+", wanted)
    return BuildFailed(
        "python_version",
        f"The project needs Python {wanted}, which its base image does not have",
        hint=f'Set python = "{minor[0] if minor else "3.12"}" in crewship.toml, or widen requires-python in pyproject.toml.',
    )
