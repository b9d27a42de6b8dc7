"""What the platform says on standard input: lines of JSON, of which each has an ``op``. What is no command is passed over."""

from .wire import Lines, loads

LIMIT_BYTES = 64 << 20


class Commands:
    """Puts the pieces that are read together again."""

    def __init__(self) -> None:
        self._lines = Lines(LIMIT_BYTES)

    def feed(self, data: bytes) -> "list[dict[str, object]]":
        """The commands that are whole with ``data``."""
        commands = []
        for line in self._lines.feed(data):
            try:
                command = loads(line.decode("utf-8", "replace"))
            except ValueError:
                continue
            if isinstance(command, dict):
                commands.append(command)
        return commands


class Boot:
    """The command that everything begins with, and what holds where it says nothing.

    Attributes:
        nonce: What frames carry; the crew never sees it.
        uncut: Texts that a piece of the log never ends within.
        for_crew: What is the crew's process's to know.
    """

    def __init__(self, command: "dict[str, object]", nonce: str, end_timeout_seconds: float) -> None:
        globs, uncut = command.get("artifacts"), command.get("uncut")
        log_limit, disk_limit = command.get("log_limit_bytes"), command.get("disk_limit_bytes")
        timeout = command.get("end_timeout_seconds")
        self.nonce = nonce
        self.globs = [glob for glob in globs if isinstance(glob, str)] if isinstance(globs, list) else []
        self.log_limit_bytes = log_limit if isinstance(log_limit, int) else 0
        self.disk_limit_bytes = disk_limit if isinstance(disk_limit, int) else 0
        self.end_timeout_seconds = float(timeout) if isinstance(timeout, (int, float)) else end_timeout_seconds
        texts = uncut if isinstance(uncut, list) else []
        self.uncut = tuple(text.encode("utf-8", "surrogatepass") for text in texts)
        self.for_crew = {key: command.get(key) for key in ("env", "entrypoint", "framework", "check")}
