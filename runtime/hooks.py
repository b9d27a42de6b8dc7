"""Calls a function with a module as soon as something imports it.

A framework is patched when, and only if, the crew imports it: no cost when it is unused, no list of frameworks to ask
for, and it works for a plain function that uses a framework inside as well. A tap that breaks (a changed framework) never
fails a run: it is noted once, and the run goes on without those events.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Hook = Callable[[ModuleType], None]


class _Loader:
    """Stands in for a module's loader during its import; afterwards the module shows the real one."""

    def __init__(self, inner: "Any", hook: "Callable[[ModuleType], None]") -> None:
        self._inner = inner
        self._hook = hook

    def create_module(self, spec: "Any") -> "Any":
        return self._inner.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__spec__.loader = module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._hook(module)

    def __getattr__(self, name: str) -> "Any":  # is_package, get_data, ... while the import is going on
        return getattr(self._inner, name)


class HookFinder:
    """The entry in ``sys.meta_path``; ``hooks`` maps a module's name to what is called with it."""

    def __init__(self, hooks: "dict[str, Hook]", failed: "Callable[[str, Exception], None]") -> None:
        self._hooks = hooks
        self._failed = failed

    def install(self) -> None:
        """Serve modules that are imported from now on, and those that are there already."""
        sys.meta_path.insert(0, self)
        for name in [name for name in self._hooks if name in sys.modules]:
            self._guarded(name, self._hooks.pop(name))(sys.modules[name])

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        hook = self._hooks.pop(name, None)
        if hook is None:
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader, self._guarded(name, hook))  # type: ignore[assignment]
                    return spec
        self._hooks[name] = hook  # not there now; maybe after a change of sys.path
        return None

    def _guarded(self, name: str, hook: "Hook") -> "Hook":
        def run(module: "ModuleType") -> None:
            try:
                hook(module)
            except Exception as error:
                self._failed(name, error)

        return run
