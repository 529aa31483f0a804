"""Run a single-node OpenStack Swift with its S3 interface on loopback, for tests: a real server that checks secrets.

    .venv-swift/bin/python tests/s3/swift_server.py DATA_DIR [--port 0]

Needs `make swift`, Linux, and a file system with user attributes.
Prints one JSON line with the endpoint once all servers answer. Objects survive a restart. The access key is two
words joined by a colon. SIGTERM or Ctrl-C stops all four processes.
"""

import argparse
import ctypes
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ACCESS, SECRET = "test:tester", "hush-5f3b9c17"
START, STOP = 180.0, 20.0  # seconds that all four may take
FILTERS = [
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "proxy-logging",
    "listing_formats",
    "bulk",
    "s3api",
    "tempauth",
    "copy",
    "slo",
    "dlo",
]
STORES = {"account": "account", "container": "container", "object": "obj"}


def free_port() -> int:
    """Return a port that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_settings(root: Path, port: int) -> tuple[dict[str, Path], list[int]]:
    """Write rings and settings; return the file of each server's module, and all ports."""
    from swift.common.ring import RingBuilder  # type: ignore[import-not-found]  # in an environment of its own

    conf = root / "conf"
    for folder in (conf, root / "cache", root / "devices" / "d1"):
        folder.mkdir(parents=True, exist_ok=True)
    shared = (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nworkers = 0\nuser = {getpass.getuser()}\nswift_dir = {conf}\n"
        f"devices = {root / 'devices'}\nmount_check = false\nfallocate_reserve = 0\nlog_level = WARNING\n"
    )
    (conf / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = local\nswift_hash_path_suffix = store\n"
        "[storage-policy:0]\nname = single\ndefault = yes\n"
    )
    files, ports = {}, [port]
    for name, module in STORES.items():
        ports.append(free_port())
        builder = RingBuilder(8, 1, 0)
        address = {"ip": "127.0.0.1", "port": ports[-1]}
        replication = {"replication_ip": "127.0.0.1", "replication_port": ports[-1]}
        device = {"region": 1, "zone": 1, "device": "d1", "weight": 1.0, "meta": ""}
        builder.add_dev({**device, **address, **replication})
        builder.rebalance()
        builder.get_ring().save(str(conf / f"{name}.ring.gz"))
        files[module] = conf / f"{name}.conf"
        files[module].write_text(
            f"{shared}bind_port = {ports[-1]}\n[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\nrecon_cache_path = {root / 'cache'}\n"
        )
    files["proxy"] = conf / "proxy.conf"
    files["proxy"].write_text(proxy_settings(shared, port))
    return files, ports


def proxy_settings(shared: str, port: int) -> str:
    """Return the settings of the server that speaks S3."""
    text = f"{shared}bind_port = {port}\n[pipeline:main]\npipeline = {' '.join(FILTERS)} proxy-logging proxy-server\n"
    text += "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    for name in FILTERS:
        text += f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n"
        text += {"tempauth": f"user_{ACCESS.replace(':', '_')} = {SECRET} .admin\n"}.get(name, "")
    return text


def serve(files: dict[str, Path], ports: list[int], root: Path) -> int:
    """Start the four servers and stay until one stops or we are stopped."""
    prctl, children = ctypes.CDLL(None).prctl, []
    said, deadline = False, time.monotonic() + START
    try:
        for module, path in files.items():
            code = f"import sys; from swift.{module}.server import main; sys.exit(main())"
            command = [sys.executable, "-c", code, str(path), "--verbose"]
            with (root / f"{module}.log").open("ab") as log:  # prctl 1: the child dies with this process
                children.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=lambda: prctl(1, 15)))
        while all(child.poll() is None for child in children) and (said or time.monotonic() < deadline):
            if not said and all(answers(port) for port in ports):
                print(json.dumps({"endpoint": f"http://127.0.0.1:{ports[0]}"}), flush=True)
                said = True
            time.sleep(0.1)
        print(f"a server stopped or never answered; logs are in {root}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        stop(children)


def stop(children: list["subprocess.Popen[bytes]"]) -> None:
    """End all servers at once; kill those that do not go."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + STOP
    for child in children:
        try:
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def main() -> int:
    """Serve until stopped."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("data_dir", type=Path)
    cli.add_argument("--port", type=int, default=0, help="0 picks a free one")
    args = cli.parse_args()
    root = args.data_dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    os.setxattr(root, "user.probe", b"1")  # OSError here: this file system cannot hold Swift's metadata
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    files, ports = write_settings(root, args.port or free_port())
    return serve(files, ports, root)


if __name__ == "__main__":
    sys.exit(main())
