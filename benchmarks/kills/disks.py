"""A disk of its own for the stores of a campaign, which fills at any moment and gets room again.

It is a tmpfs. Where this process may not mount one, it goes on in a user namespace of its own, in which it may.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SIZE = "96m"
FULL = ("No space left on device", "File too large")  # what the line of error states, one of them
FILLER, BLOCK = "of-another-program", bytes(2**20)


@dataclass
class Disk:
    """A mounted file system; another program's file fills it."""

    place: Path

    @classmethod
    def mounted(cls, place: Path) -> "Disk":
        """Mount a new file system at a folder that is made."""
        place.mkdir()
        mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
        return cls(place)

    def fill(self) -> None:
        """Write a file until there is no room."""
        descriptor = os.open(self.place / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while os.write(descriptor, BLOCK):
                pass
        except OSError:
            return
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """Remove the file, if there is one."""
        (self.place / FILLER).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give the file system back, with all stores."""
        subprocess.run(["umount", str(self.place)], check=True)


def may_mount() -> bool:
    """Say whether we may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def become_able_to_mount() -> None:
    """Start this command again in a namespace in which it may mount, where it may not yet."""
    if not may_mount():
        again = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "benchmarks.kills"]
        os.execvp("unshare", [*again, *sys.argv[1:]])


def mount(*options: str) -> None:
    """Call mount."""
    subprocess.run(["mount", *options], check=True)
