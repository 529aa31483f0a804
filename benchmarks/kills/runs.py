"""Commands of layerlore as processes that can be watched and killed."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

PATIENCE = 600.0  # seconds after which a run counts as hanging
LOOK = 0.01  # seconds between two looks at a run


class Process(Protocol):
    """A process that was started."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...


@dataclass
class Forked:
    """A child of the starter."""

    log: Path
    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        place = Path(f"{self.log}.code")
        if self.code is None and place.exists():
            self.code = int(place.read_text())
        return self.code


@dataclass
class Commands:
    """Starts `layerlore`, each command as leader of a process group, as a new process or from the starter (`warm`).

    `bare` ones do without Prefect, and with `packing` each pack of partition records takes so many seconds; they come
    from the starter.
    """

    folder: Path
    environment: dict[str, str]
    warm: bool = True
    bare: bool = False
    packing: float = 0.0
    starter: "subprocess.Popen[bytes] | None" = None
    count: int = 0

    def start(self, *arguments: str) -> "Run":
        """Start a command."""
        self.count += 1
        log = self.folder / f"command-{self.count}"
        if not self.warm:
            with log.open("wb") as stream:
                program = str(Path(sys.executable).with_name("layerlore"))
                opened = subprocess.Popen(
                    [program, *arguments], env=self.environment, stdout=stream, stderr=stream, start_new_session=True
                )
            return Run(opened, log)
        if self.starter is None:
            starting = [sys.executable, "-m", "benchmarks.kills.starter", *(["--bare"] if self.bare else [])]
            starting += ["--packing", str(self.packing)] if self.packing else []
            self.starter = subprocess.Popen(starting, env=self.environment, stdin=subprocess.PIPE)
        assert self.starter.stdin is not None
        self.starter.stdin.write(json.dumps({"arguments": arguments, "log": str(log)}).encode() + b"\n")
        self.starter.stdin.flush()
        place = Path(f"{log}.pid")
        while not place.exists():
            assert self.starter.poll() is None, "the starter has ended"
            time.sleep(LOOK)
        return Run(Forked(log, int(place.read_text())), log)

    def close(self) -> None:
        """End the starter."""
        if self.starter is not None:
            assert self.starter.stdin is not None
            self.starter.stdin.close()
            self.starter.wait(60)


@dataclass
class Run:
    """A command that runs, and the lines that it has said, each with the moment at which it was seen."""

    process: Process
    log: Path
    began: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def look(self) -> int | None:
        """Read what is new and return the exit code, or None while it runs."""
        code = self.process.poll()
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        self.lines += [(time.monotonic(), line) for line in said[len(self.lines) :]]
        return code

    def wait(self, until: float | None = None) -> int | None:
        """Watch until the run has ended, or until a moment; a run that hangs is killed and has no code."""
        last = until if until is not None else self.began + PATIENCE
        while (code := self.look()) is None and time.monotonic() < last:
            time.sleep(LOOK)
        if code is None and until is None:
            self.kill()
        return code

    def kill(self) -> None:
        """Kill the whole process group, and see it end; nothing happens to one that has ended."""
        assert self.process.pid > 1, "group 1 means every process of the machine, group 0 our own"
        self._signal(signal.SIGKILL)
        while self.process.poll() is None:
            time.sleep(LOOK)
        self.look()

    def pause(self) -> bool:
        """Stop the whole process group; say whether there was one."""
        return self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped process group go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> bool:
        """Send a signal to the process group; say whether the run had not ended."""
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                return True
        return False

    def kill_below(self, text: str) -> None:
        """Kill what the run has started that has `text` in its command line."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if text in " ".join(process.cmdline()):
                        process.kill()

    def packs(self) -> bool:
        """Say whether the run has begun to pack partition records; only slow packing is seen."""
        return Path(f"{self.log}.packing").exists()

    def text(self) -> str:
        """Return what the run has said."""
        return "\n".join(line for _, line in self.lines)

    def longest_wait(self) -> float:
        """Return the seconds for which the run waited for another's claim, the longest time."""
        waits = [
            later - moment
            for (moment, line), (later, _) in itertools.pairwise([*self.lines, (time.monotonic(), "")])
            if " is held by " in line
        ]
        return max(waits, default=0.0)
