"""Stand between a client and an S3 server on loopback and spoil a share of the requests, for tests.

    python tests/s3/fault_proxy.py --backend http://127.0.0.1:9100 [--share 0.1 | --of 3] [--seed 0] [--hang 1.5]
        [--delay 0.02]

Prints one JSON line with the endpoint, and with what it did when SIGTERM stops it: the requests of all kinds and of
each method, the faults, and how many requests were under way at once, at most. Kinds of faults: an answer 500,
503 SlowDown or 429 without asking the server; no answer for `--hang` seconds; a connection reset before or, with the
work done, after the server was asked; a body that breaks off; a body that trickles. Requests pass through unchanged,
so signatures hold.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

FAULTS = ("500", "503", "429", "hang", "reset", "lost", "cut", "slow")
CODES = {"500": "InternalError", "503": "SlowDown", "429": "TooManyRequests"}
PIECES, PAUSE = 5, 0.05  # of a body that trickles, seconds between two


@dataclass
class Proxy:
    """What is spoilt, and what has been done so far."""

    backend: tuple[str, int]
    share: float
    of: int
    hang: float
    kinds: tuple[str, ...]
    dice: random.Random
    delay: float = 0.0
    under_way: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    tries: Counter[bytes] = field(default_factory=Counter)  # of each method and address

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle the requests of one connection."""
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            while request := await read_message(reader, writer):
                line = request[0].partition(b"\r\n")[0]
                fault = self.fault(line)
                self.counts["requests"] += 1
                self.counts[line.split(b" ")[0].decode()] += 1
                self.counts[fault] += bool(fault)
                self.under_way += 1
                self.counts["most at once"] = max(self.counts["most at once"], self.under_way)
                try:
                    await asyncio.sleep(self.delay)
                    if not await self.answer(request, fault, writer):
                        break
                finally:
                    self.under_way -= 1
        writer.close()

    def fault(self, line: bytes) -> str:
        """Return how the request with this first line is spoilt; empty where it is not."""
        self.tries[line] += 1
        spoilt = self.tries[line] % self.of > 0 if self.of else self.dice.random() < self.share
        return self.dice.choice(self.kinds) if spoilt else ""

    async def answer(self, request: tuple[bytes, bytes], fault: str, writer: asyncio.StreamWriter) -> bool:
        """Answer a request as `fault` has it; return whether the connection goes on."""
        if fault in CODES:
            body = f"<Error><Code>{CODES[fault]}</Code><Message>injected</Message></Error>".encode()
            start = f"HTTP/1.1 {fault} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(start.encode() + (b"" if request[0].startswith(b"HEAD") else body))
            await writer.drain()
            return True
        if fault == "hang":
            await asyncio.sleep(self.hang)
        if fault in ("hang", "reset"):
            writer.transport.abort()
            return False
        head, body = await self.ask(request)
        if fault == "lost" or (fault == "cut" and not body):
            writer.transport.abort()
            return False
        writer.write(head)
        if fault == "cut":
            writer.write(body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        size = max(1, -(-len(body) // PIECES)) if fault == "slow" else max(1, len(body))
        for low in range(0, len(body), size):
            writer.write(body[low : low + size])
            await writer.drain()
            await asyncio.sleep(PAUSE if fault == "slow" else 0)
        await writer.drain()
        return True

    async def ask(self, request: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Return the server's answer."""
        reader, writer = await asyncio.open_connection(*self.backend)
        try:
            writer.write(b"".join(request))
            await writer.drain()
            found = await read_message(reader, None, bodyless=request[0].startswith(b"HEAD"))
            if found is None:
                raise ConnectionResetError
            return found
        finally:
            writer.close()


async def read_message(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, *, bodyless: bool = False
) -> tuple[bytes, bytes] | None:
    """Return the head and the body of a request or an answer; None where the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.split(b"\r\n")
    fields = {name.lower().strip(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if writer is not None and fields.get(b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))
    empty = bodyless or lines[0].split(b" ")[1] in (b"204", b"304")
    if empty:
        return head, b""
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return head, await read_chunked(reader)
    return head, await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    """Return a chunked body as it was sent."""
    raw = b""
    while True:
        line = await reader.readline()
        size = int(line.split(b";")[0], 16)
        raw += line + await reader.readexactly(size + 2)
        if size == 0:
            return raw


async def run(proxy: Proxy) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"endpoint": f"http://127.0.0.1:{port}"}), flush=True)
    await stop.wait()
    print(json.dumps(dict(proxy.counts)), flush=True)


def main() -> None:
    """Serve until stopped."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("--backend", required=True, help="http://127.0.0.1:PORT")
    cli.add_argument("--share", type=float, default=0.1, help="of the requests that are spoilt, 0 to 1")
    cli.add_argument("--of", type=int, default=0, help="instead: tries of a request of which only the last passes")
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--hang", type=float, default=1.5, help="seconds; more than the client's timeout")
    cli.add_argument("--delay", type=float, default=0.0, help="seconds that every request waits first")
    cli.add_argument("--kinds", default=",".join(FAULTS))
    args = cli.parse_args()
    host, _, port = args.backend.removeprefix("http://").partition(":")
    kinds = tuple(args.kinds.split(","))
    dice = random.Random(args.seed)
    asyncio.run(run(Proxy((host, int(port)), args.share, args.of, args.hang, kinds, dice, args.delay)))


if __name__ == "__main__":
    main()
