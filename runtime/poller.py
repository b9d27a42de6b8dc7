"""epoll, told of each file descriptor what is wanted of it; what it was told already is not told again."""

import select

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Poller:
    """Waits for whatever is wanted."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._masks: dict[int, int] = {}

    def watch(self, fd: int, mask: int) -> bool:
        """Report ``mask``; 0 takes the fd out, since an ended pipe would be reported whatever is asked.

        False: it is a file, or /dev/null, which is always ready, and nothing that epoll takes.
        """
        before = self._masks.get(fd, 0)
        if mask == before:
            return True
        self._masks[fd] = mask
        try:
            if not mask:
                self._poll.unregister(fd)
            elif before:
                self._poll.modify(fd, mask)
            else:
                self._poll.register(fd, mask)
        except PermissionError:
            self._masks[fd] = 0
            return False
        return True

    def ready(self, seconds: float | None) -> "dict[int, int]":
        """What came within ``seconds``, fd → events; None waits for ever."""
        return dict(self._poll.poll(seconds))
