"""Workers that are forked from a process that has loaded their libraries, in a program with one run."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import json, os, signal, sys
from configs.cluster import Cluster
from tasks.cluster.forking import start_loading
from tasks.cluster.parallel import open_pool
from tasks.cluster.warming import INTERPRETING, LIBRARIES, TRAINING

def facts(_):
    import time, distributed
    time.sleep(0.2)  # the other worker gets a partition too
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    tasks = os.listdir(f"/proc/{os.getppid()}/task")
    loaded, torch = getattr(sys.modules.get("wave"), "__file__", None), sys.modules.get("torch")
    return {
        "hash": hash("layer"), "number": None if torch is None else torch.rand(1).item(),
        "pid": os.getpid(), "parent": os.getppid(), "wave": loaded, "masked": signal.SIGINT in mask,
        "threads": [os.environ.get(name) for name in names], "tasks": len(tasks), "folder": os.getcwd(),
        "safe": os.environ.get("PYTHONSAFEPATH"),
        "found": __import__("of_mine").VALUE,
    }

def main(libraries):
    given = dict(os.environ)
    if libraries:
        start_loading(libraries)
        assert dict(os.environ) == given
    import dask
    before = dask.config.get("distributed.worker.multiprocessing-method", "spawn")
    with open_pool(Cluster(kind="local", workers=2)) as pool:
        found = [result for _, result in pool.map(facts, range(6))]
    assert dask.config.get("distributed.worker.multiprocessing-method", "spawn") == before
    print(json.dumps([os.getpid(), found]))

if __name__ == "__main__":
    sys.path.append("modules")
    real = [*LIBRARIES, *TRAINING, *INTERPRETING]
    main({"begin": ["no_such_library", "faulty", "wave"], "real": real, "no": []}[sys.argv[1]])
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only"),
]
Facts = dict[str, object]
WAVE = find_spec("wave")  # a module that nothing else needs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the program, a module of its own, and a file that has the name of a library."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "of_mine.py").write_text("VALUE = 5\n")
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "faulty.py").write_text("raise ValueError('built for another NumPy')\n")
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "wave.py").write_text("raise SystemExit('not the library')\n")
    (tmp_path / "place" / "modules").symlink_to(tmp_path / "modules")
    return tmp_path


def run(folder: Path, how: str, **variables: str) -> tuple[int, list[Facts]]:
    """Run the program in a folder; return its process number and what its workers answer."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(folder / "program.py"), how],
        cwd=folder / "place",
        env={**kept, "PYTHONPATH": os.pathsep.join([root, str(folder / "libraries")]), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pid, facts = json.loads(done.stdout)
    return pid, facts


def test_workers_are_forked_from_one_process_that_has_loaded_the_libraries(folder: Path) -> None:
    pid, facts = run(folder, "begin")
    assert len({one["pid"] for one in facts}) == 2
    (parent,) = {one["parent"] for one in facts}
    assert parent not in (pid, 1)
    assert {one["wave"] for one in facts} == {WAVE.origin if WAVE else None}
    for one in facts:
        assert one["masked"]  # Ctrl-C is the run's own
        assert one["threads"] == ["1", "1", "1"]
        assert one["tasks"] == 1  # a thread would not be in the forked process
        assert one["folder"] == str(folder / "place")
        assert one["found"] == 5  # the modules of the program
        assert not one["safe"]  # programs that a partition starts
    assert isinstance(parent, int)
    if psutil.pid_exists(parent):
        assert psutil.wait_procs([psutil.Process(parent)], timeout=60)[1] == []  # it ends with the program


def test_workers_are_spawned_otherwise(folder: Path) -> None:
    pid, facts = run(folder, "no")
    assert {one["parent"] for one in facts} == {pid}
    assert {one["wave"] for one in facts} == {None}
    assert {one["hash"] for one in run(folder, "begin")[1]} == {one["hash"] for one in facts}  # in every run


@pytest.mark.slow  # it loads torch
def test_the_real_libraries_start_no_thread_and_share_no_random_numbers(folder: Path) -> None:
    _, facts = run(folder, "real")
    assert {one["tasks"] for one in facts} == {1}
    assert len({one["number"] for one in facts}) == len(facts) > 2


def test_variables_of_the_users_environment_stay(folder: Path) -> None:
    _, facts = run(folder, "begin", OMP_NUM_THREADS="2", PYTHONSAFEPATH="yes")
    assert {tuple(one["threads"]) for one in facts} == {("2", "1", "1")}  # type: ignore[arg-type]  # JSON
    assert {one["safe"] for one in facts} == {"yes"}


@pytest.mark.parametrize(
    "variable",
    [
        "TMPDIR",
        "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD",
        "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OF_MINE",  # perhaps of the loader, or of a library
    ],
)
def test_workers_are_spawned_where_none_can_be_forked_or_dask_is_told_so(variable: str, folder: Path) -> None:
    if variable == "TMPDIR":  # the path of a socket has at most 108 bytes
        value = folder / "a" / ("long" * 25)
        value.mkdir(parents=True)
        pid, facts = run(folder, "begin", TMPDIR=str(value))
    else:
        pid, facts = run(folder, "begin", **{variable: "fork"})
    assert {one["parent"] for one in facts} == {pid}


LOST = """
import _multiprocessing, multiprocessing, os, sys
from tasks.cluster.forking import start_loading

def look():
    open("no such file")

class Unknown:
    def __reduce__(self):
        return look, ()

if __name__ == "__main__":
    start_loading(["json"])
    context = multiprocessing.get_context("forkserver")
    queue = context.SimpleQueue()
    if sys.argv[1] != "unknown":
        _multiprocessing.sem_unlink(queue._rlock._semlock.name)  # as a program that ends does
    process = context.Process(target=print, args=(queue, Unknown()) if sys.argv[1] == "unknown" else (queue,))
    process.start()
    if sys.argv[1] != "ended":
        process.join()
    os._exit(5)
"""


@pytest.mark.parametrize(("case", "frame"), [("ended", ""), ("alive", "in __setstate__"), ("unknown", "in look")])
def test_a_worker_of_a_program_that_has_ended_says_nothing(case: str, frame: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LOST)
    command = [sys.executable, "program.py", case]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert frame in done.stderr
    assert ("forkserver.py" in done.stderr) == bool(frame)
