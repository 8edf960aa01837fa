"""Who a process is, so that another one can tell later whether it still lives.

Temporary names and journals carry a process' identity: host, number and the moment it started. On the same host the
system is asked for it; of a process on another host nothing is known but when it last touched its files.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_TEXT = re.compile(r"([0-9a-f]{8})-([0-9]+)-([0-9]+)")


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes
    ----------
    host
        Eight hex digits of the host's name.
    pid
        Its number there.
    started
        When it started, in the system's ticks since its boot; 0 where the system does not tell.
    """

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        """Return its identity as part of a file name: ``1a2b3c4d-4711-99``."""
        return f"{self.host}-{self.pid}-{self.started}"

    def lives(self) -> bool | None:
        """Whether it still lives; None where this host cannot tell."""
        if self.host != host_digest() or os.name == "nt":  # where asking for a process by a signal would end it
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # another user's
            pass
        return _started(self.pid) in (self.started, 0)


def this_process() -> Process:
    """Return the identity of the process that asks."""
    return _of(os.getpid())


def find_process(text: str) -> Process | None:
    """Return the process whose identity a text starts with, None where it starts with none."""
    match = _TEXT.match(text)
    return None if match is None else Process(match[1], int(match[2]), int(match[3]))


@lru_cache
def host_digest() -> str:
    """Return eight hex digits of the host's name: names may hold what file names may not."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@lru_cache(maxsize=4)
def _of(pid: int) -> Process:
    return Process(host_digest(), pid, _started(pid))


def _started(pid: int) -> int:
    """Return field 22 of ``/proc/PID/stat`` (proc(5)); 0 where there is none. A zombie has ended: -1."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return -1 if fields[0] in ("Z", "X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
