"""Keep a process from reaching the network: a replay needs nobody.

What is stopped: every connection and name lookup that goes through Python's socket module, in this process, from then
on. Not stopped: C code that opens sockets itself, and other processes.
"""

from __future__ import annotations

import sys
from typing import Any, Final

_WITH_SOCKET: Final = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOKUPS: Final = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_STOPPED: Final = (*_WITH_SOCKET, *_LOOKUPS)
_is_blocked = False


def block_network() -> None:
    """Refuse every connection but those within the machine by file (Unix sockets); it cannot be taken back."""
    global _is_blocked  # noqa: PLW0603 - an audit hook stays for the life of the process, so it is added once
    if not _is_blocked:
        _is_blocked = True
        sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _STOPPED:
        return
    address = arguments[1] if event in _WITH_SOCKET else arguments[0]
    if event in _WITH_SOCKET and (address is None or isinstance(address, (str, bytes))):
        return  # the path of a Unix socket, or one that is connected already
    raise PermissionError(f"trimtab replay keeps the network closed: {event} {address!r}; allow it with --allow-network")
