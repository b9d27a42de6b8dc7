"""What the crew writes to a stream, as ``log`` frames.

Lines end at ``\\n`` alone. A frame takes as many complete lines as one read gave, so that a flood costs a frame for every
64 KiB and a single line none of its latency. Only what needs it goes line by line: marked log levels (``levels.py``) and
bytes that are not UTF-8.
"""

from .outbox import Outbox
from .wire import quote

PIECE_BYTES = 64 << 10
"""A longer line comes in pieces."""
SHOW_UNFINISHED_SECONDS = 1.0

_MARK = b"\x1b]7747;"
_LEVELS = {b"debug": "debug", b"info": "info", b"warning": "warning", b"error": "error", b"critical": "critical"}


class LogStream:
    """One of the crew's streams.

    Attributes:
        due: When the unfinished line is to be shown (monotonic seconds), or None.
    """

    __slots__ = ("_begun", "_carry", "_level", "_name", "_outbox", "_uncut", "due")

    def __init__(self, name: str, outbox: Outbox, uncut: "tuple[bytes, ...]" = ()) -> None:
        self._name = name
        self._outbox = outbox
        self._uncut = uncut  # what no piece may end within: the platform looks for it in each piece
        self._carry = b""
        self._begun = False  # a piece of the line at hand has been shown
        self._level = "info"  # that of the line at hand
        self.due: float | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Take what was read; ``now`` is monotonic seconds."""
        end = data.rfind(b"\n")
        if end < 0:
            if not self._carry:
                self.due = now + SHOW_UNFINISHED_SECONDS
            self._carry += data
            self._show_pieces()
            return
        block = self._carry + data[:end]
        self._carry = data[end + 1 :]
        self.due = now + SHOW_UNFINISHED_SECONDS if self._carry else None
        if self._begun or len(block) > PIECE_BYTES:  # only the first line can be long: a read is a piece at most
            first, newline, block = block.partition(b"\n")
            self._finish(first)
            if not newline:
                return
        self._show_block(block)

    def show_unfinished(self, now: float) -> None:
        """Show what there is of the line at hand; a character that is cut in two waits for its rest."""
        end = _whole_characters(self._carry) or len(self._carry)
        end = _outside(self._carry, end, self._uncut)
        piece, self._carry = self._carry[:end], self._carry[end:]
        self.due = now + SHOW_UNFINISHED_SECONDS if self._carry else None
        if piece:
            self._show_piece(piece, partial=True)

    def close(self) -> None:
        """The stream has ended: a line without a newline is a line."""
        self.due = None
        if self._carry:
            rest, self._carry = self._carry, b""
            self._finish(rest)

    def _show_pieces(self) -> None:
        while len(self._carry) > PIECE_BYTES:
            end = _whole_characters(self._carry[:PIECE_BYTES]) or PIECE_BYTES
            end = _outside(self._carry, end, self._uncut) or end
            piece, self._carry = self._carry[:end], self._carry[end:]
            self._show_piece(piece, partial=True)

    def _finish(self, rest: bytes) -> None:
        """Show the last pieces of the line at hand."""
        carry, self._carry = self._carry, rest
        self._show_pieces()
        rest, self._carry = self._carry, carry
        self._show_piece(rest, partial=False)
        self._begun = False

    def _show_piece(self, piece: bytes, partial: bool) -> None:
        if not self._begun:
            self._level, piece = _level_of(piece)
        self._begun = True
        self._frame(piece, self._level, partial)

    def _show_block(self, block: bytes) -> None:
        """Frames of complete lines."""
        if _MARK not in block and _is_utf8(block):
            self._frame(block, "info")
            return
        group: list[bytes] = []
        group_level = "info"
        for line in block.split(b"\n"):
            level, line = _level_of(line)
            if not _is_utf8(line):
                if group:
                    self._frame(b"\n".join(group), group_level)
                    group = []
                self._frame(line, level)
                continue
            if group and level != group_level:
                self._frame(b"\n".join(group), group_level)
                group = []
            group_level = level
            group.append(line)
        if group:
            self._frame(b"\n".join(group), group_level)

    def _frame(self, data: bytes, level: str, partial: bool = False) -> None:
        tail = ',"partial":true}' if partial else "}"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            from binascii import b2a_base64

            text = data.decode("utf-8", "replace")
            tail = f',"raw":"{b2a_base64(data, newline=False).decode()}"' + tail
        self._outbox.add_body("log", f',"s":"{self._name}","l":"{level}","text":{quote(text)}{tail}')


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_characters(data: bytes) -> int:
    """The length of ``data`` without a character that is cut off at its end."""
    try:
        data[-4:].decode()
    except UnicodeDecodeError:
        for back in range(1, min(4, len(data) + 1)):
            byte = data[-back]
            if byte >= 0xC0:  # a lead byte: does it announce more than there is?
                needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                return len(data) - back if needed > back else len(data)
            if byte < 0x80:
                break
    return len(data)


def _outside(data: bytes, end: int, uncut: "tuple[bytes, ...]") -> int:
    """``end``, or the last place before it at which a cut is within none of ``uncut``, as far as ``data`` tells."""
    moved = bool(uncut)
    while moved:
        moved = False
        for whole in uncut:
            start = data.find(whole[:1], max(0, end - len(whole) + 1), end)
            while start >= 0 and not whole.startswith(data[start : start + len(whole)]):
                start = data.find(whole[:1], start + 1, end)
            if start >= 0:
                end, moved = start, True
    return end


def _level_of(line: bytes) -> tuple[str, bytes]:
    """The level that a line is marked with, and the line without the mark."""
    if line.startswith(_MARK):
        name, bell, rest = line[len(_MARK) :].partition(b"\x07")
        level = _LEVELS.get(name)
        if bell and level:
            return level, rest
    return "info", line
