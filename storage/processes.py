"""Identities of processes, by which a claim's holder is known."""

import os
from functools import lru_cache
from pathlib import Path


def process_identity(pid: int) -> str:
    """Return an identity that no other process on any machine has; "" where the kernel does not give one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{_machine()}/{pid}/{'ended' if fields[0] in 'ZX' else fields[19]}"
    except (OSError, IndexError):
        return ""


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return the identities of this boot of this machine and of the visible table of processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"


def is_dead(identity: str) -> bool:
    """Say whether a process of this machine has ended; False where this process cannot see that."""
    machine, _, pid = identity.rpartition("/")[0].rpartition("/")
    try:
        if machine != _machine():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # another user's process, which lives
        return False
    return process_identity(int(pid)) not in ("", identity)
