"""The runner's bytecode as it is put into images."""

import importlib.util
import marshal
import sys

from crewship import runner_files

_UNCHECKED_HASH = 1
_HEADER_BYTES = 16


def test_bytecode_is_what_the_same_python_would_make() -> None:
    version = ".".join(str(part) for part in sys.version_info[:3])
    compiled = runner_files.bytecode(version, "/opt/runner")
    assert set(compiled) == {importlib.util.cache_from_source(path.name) for path in runner_files.runner_files()}
    pyc = compiled[importlib.util.cache_from_source("supervisor.py")]
    assert pyc[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(pyc[4:8], "little") == _UNCHECKED_HASH
    assert marshal.loads(pyc[_HEADER_BYTES:]).co_filename == "/opt/runner/supervisor.py"


def test_there_is_none_for_another_python() -> None:
    assert runner_files.bytecode("3.9.1", "/opt/runner") == {}
    assert runner_files.bytecode("", "/opt/runner") == {}
