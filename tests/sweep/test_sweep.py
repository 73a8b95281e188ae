import atexit
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nic_helpers import attacks, sweep
from nic_helpers.sweep import __main__ as command
from nic_helpers.sweep import executors, unit
from nic_helpers.sweep.dataset import Dataset, SweepError
from nic_helpers.sweep.grid import Grid

EPS = 8 / 255
VARYING = ["seconds", "rss_mib"]  # the only columns that may differ between two runs
GRID = {
    "codecs": {"bmshj2018-hyperprior": (1, 6)},
    "crop": 48,
    "limit": 3,
    "shard": 1,
    "attacks": {"noise": attacks.RandomNoise(EPS), "FGSM": attacks.FGSM(EPS), "PGD": attacks.PGD(EPS, steps=6)},
}
SCRIPT = f"""
import sys
from nic_helpers import attacks, sweep
from nic_helpers.sweep import __main__ as command
from nic_helpers.sweep import executors, unit
from nic_helpers.attacks import *
from nic_helpers.sweep.grid import Grid
sweep.run(Grid(**{GRID!r}, seeds=range(int(sys.argv[3]))), sys.argv[1], jobs=int(sys.argv[2]))
"""


def grid(**changes):
    return Grid(**(GRID | changes))


def same(a, b):
    a, b = (t.drop(columns=VARYING).sort_values(["unit", "image"], ignore_index=True) for t in (a, b))
    return a.equals(b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return sweep.run(grid(), tmp_path_factory.mktemp("undisturbed"), progress=False)


def start(folder, jobs=1, seeds=1):
    # a session of its own, so that it can be killed with its workers, as the system would; and with Ctrl-C not ignored,
    # as it is in what a shell has put in the background, these tests maybe
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), str(jobs), str(seeds)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(folder, count, process=None, limit=120):
    """Until so many units are stored."""
    began = time.monotonic()
    while len(list(Path(folder).glob("rows/*.parquet"))) < count:
        assert time.monotonic() - began < limit and (process is None or process.poll() is None)
        time.sleep(0.02)


def test_a_sweep_has_all_rows_in_order_and_does_nothing_twice(undisturbed, tmp_path, monkeypatch):
    units = grid().units()
    assert list(undisturbed["unit"]) == [u.key for u in units for _ in range(u.rows)]
    Dataset(tmp_path).add(undisturbed)
    monkeypatch.setattr(unit, "run_unit", lambda unit: pytest.fail("it was done already"))
    assert sweep.run(grid(), tmp_path, progress=False).equals(undisturbed)


def test_killed_at_any_instant_it_ends_with_the_rows_of_an_undisturbed_run(undisturbed, tmp_path):
    total, kept = len(grid().units()), 0
    for jobs, more, later in ((1, 1, 0.0), (1, 4, random.random() / 10), (2, 4, random.random() / 10)):
        process = start(tmp_path, jobs)
        wait_for(tmp_path, kept + more, process)
        time.sleep(later)  # in the middle of a unit, or of writing one
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, later
        before, kept = kept, len(Dataset(tmp_path).done())
        assert before + more <= kept < total, later
    damaged = next(tmp_path.glob("rows/*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"):
        table = sweep.run(grid(), tmp_path, progress=False)
    assert same(table, undisturbed)


def test_ctrl_c_leaves_a_clean_state_and_says_how_to_go_on(undisturbed, tmp_path):
    process = start(tmp_path, jobs=2, seeds=20)  # so many that it cannot end by itself in the meantime
    wait_for(tmp_path, 1, process)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode and "units are done and kept" in said and "the same command goes on" in said
    assert not list(tmp_path.rglob("*.part"))
    kept = Dataset(tmp_path).read()
    kept = kept[kept["seed"] == 0]
    assert same(kept, undisturbed[undisturbed["unit"].isin(kept["unit"])])
    assert same(sweep.run(grid(), tmp_path, progress=False), undisturbed)


def test_sigterm_is_ctrl_c_and_leaves_no_program_running(tmp_path):
    # as a cluster ends a job; in the middle of an external encoder
    (tmp_path / "slow_codec.py").write_text("""
import sys
from nic_helpers.codecs.files import CommandCodec
def slow(quality):
    code = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(300)"
    return CommandCodec("slow", [sys.executable, "-c", code, sys.path[0] + "/began", "{stream}"], ["x", "{picture}"])
""")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from nic_helpers import attacks
from nic_helpers.course import studies
from nic_helpers.sweep import __main__ as command
from nic_helpers.sweep.grid import Grid
noise = {"noise": attacks.RandomNoise(8 / 255)}
studies.grids_of = lambda *a: (Grid(codecs={"slow_codec:slow": (1,)}, attacks=noise, crop=32, limit=1),)
sys.exit(command.main(["robustness", "--profile", "quick", "--out", sys.argv[1] + "/rows"]))
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True, env=environment
    )
    began = time.monotonic()
    while not (tmp_path / "began").exists():
        assert time.monotonic() - began < 120 and process.poll() is None
        time.sleep(0.05)
    assert list(tmp_path.glob("codec_*"))
    process.terminate()
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "the same command goes on" in said
    assert not list(tmp_path.glob("codec_*"))
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path / "began").encode() in _read(p)]
    assert not running


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def broken(codec):
    """A defence that fails."""
    raise ArithmeticError("this defence cannot be")


def deadly(codec):
    """A defence that has its process killed, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_unit_that_fails_is_tried_twice_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    tried, run_unit = [], unit.run_unit
    monkeypatch.setattr(unit, "run_unit", lambda unit: tried.append(unit.key) or run_unit(unit))
    one = grid(defences={"broken": broken, "none": None}, limit=1, attacks={"noise": attacks.RandomNoise(EPS)})
    with pytest.warns(UserWarning, match="2 of 4 units failed.*ArithmeticError: this defence cannot be.*tries them again"):
        table = sweep.run(one, tmp_path, progress=False)
    assert len(tried) == 6 and set(table["defence"]) == {"none"} and len(table) == 2
    assert all("ArithmeticError" in f["error"] and "noise at 8/255" in f["unit"] for f in Dataset(tmp_path).failures().values())


def test_a_process_that_is_killed_costs_only_the_unit_that_kills_it(tmp_path):
    some = grid(
        defences={"none": None, "deadly": deadly},
        codecs={"jpeg": (30,)},
        limit=1,
        attacks={"noise": attacks.RandomNoise(EPS)},
    )
    with pytest.warns(UserWarning, match="1 of 2 units failed"):
        table = sweep.run(some, tmp_path, jobs=2, progress=False)
    assert len(table) == 1 and set(table["defence"]) == {"none"}


OWN = """
import sys
from dataclasses import dataclass
from nic_helpers import attacks, sweep
from nic_helpers.sweep.grid import Grid
@dataclass(frozen=True)
class Mine(attacks.RandomNoise):
    pass
grid = Grid(codecs={"bmshj2018-hyperprior": (1,)}, attacks={"mine": Mine(8 / 255)}, crop=48, limit=1)
"""


def test_a_script_without_a_main_guard_is_told_so_at_once(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(OWN + "sweep.run(grid, sys.argv[1], jobs=2, progress=False)")
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "rows")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert "SweepError: the worker processes ended before they could begin" in done.stderr and "if __name__ ==" in done.stderr


def test_what_no_worker_can_find_is_named_at_once(tmp_path, monkeypatch):
    # as in a cell of a notebook, whose __main__ is no file
    code = OWN + "sweep.run(grid, sys.argv[1], jobs=2, progress=False)"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "it is defined in __main__, which is no file): put it in a module" in done.stderr
    here = types.ModuleType("only_here")
    exec("def nowhere_else(codec): return codec", here.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", here)
    one = grid(defences={"mine": here.nowhere_else}, limit=1)
    with pytest.raises(SweepError, match=r"No module named 'only_here'.*put it in a module"):
        sweep.run(one, tmp_path, jobs=2, progress=False)


def slow_to_end(seconds):
    """Have this process take its time when it ends."""
    atexit.register(time.sleep, seconds)


def test_workers_end_by_themselves_when_all_is_done_and_at_once_when_not(capfd):
    pool = executors.Processes(1)
    pool.submit(slow_to_end, 1).result()
    (process,) = pool._pool._processes.values()
    pool.close()
    until = time.monotonic() + 10
    while process.exitcode is None and time.monotonic() < until:
        time.sleep(0.05)  # the pool's own thread may be the one that was told it, and is about to write it down
    assert process.exitcode == 0
    futures = [pool.submit(time.sleep, 300) for _ in range(3)]  # some of them are with the worker already
    while not futures[0].running():
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 60
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("how", [{"jobs": 0}, {"jobs": 1.5}, {"jobs": True}, {"seconds": float("nan")}])
def test_impossible_ways_to_run_are_refused(tmp_path, how):
    with pytest.raises(ValueError, match=next(iter(how))):
        sweep.run(grid(), tmp_path, **how)


def test_any_executor_of_concurrent_futures_does(undisturbed, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        assert same(sweep.run(grid(), tmp_path, executor=pool, progress=False), undisturbed)
        assert pool.submit(int, "1").result() == 1  # it was lent, and is not shut down


def test_a_time_limit_ends_it_early_with_what_is_done(undisturbed, tmp_path):
    assert len(sweep.run(grid(), tmp_path, seconds=0, progress=False)) == 0
    first = sweep.run(grid(), tmp_path, seconds=0.2, progress=False)
    assert 0 < len(first) < len(undisturbed)
    assert same(sweep.run(grid(), tmp_path, progress=False), undisturbed)


def test_a_full_disk_stops_it(tmp_path, monkeypatch):
    def full(self, key, table):
        raise SweepError("cannot write …: free some space, then run again")

    monkeypatch.setattr(Dataset, "write", full)
    with pytest.raises(SweepError, match="free some space"):
        sweep.run(grid(limit=1), tmp_path, progress=False)


def test_the_dry_run_tells_units_cost_and_what_is_done_and_does_nothing(undisturbed, tmp_path):
    Dataset(tmp_path).add(undisturbed[undisturbed["quality"] == 1])
    table = sweep.costs(grid(), tmp_path)
    assert len(table) == 18 and table["done"].sum() == 9 and (table["seconds"] > 0).all()
    assert table.loc[table["done"], "seconds_left"].eq(0).all()
    assert table.groupby("attack")["gradients"].sum().to_dict() == {"noise": 0, "FGSM": 6, "PGD": 36}
    text = sweep.plan(grid(), tmp_path, jobs=2)
    assert "18 units, 9 of them done; 42 gradient evaluations" in text and "with 2 processes" in text
    assert "18 units, 18 of them done" in sweep.plan(grid(), tmp_path, jobs=1, elsewhere=undisturbed["unit"])
    assert len(Dataset(tmp_path).done()) == 9


def test_what_another_program_did_is_named_and_done_again_when_asked_to(undisturbed, tmp_path):
    old = undisturbed["versions"].where(undisturbed["quality"] == 6, "nic_helpers 0.0.9")
    Dataset(tmp_path).add(undisturbed.assign(versions=old))
    text = sweep.plan(grid(), tmp_path, jobs=1)
    assert "18 units, 18 of them done" in text and "9 units were done by another version" in text
    assert "18 units, 9 of them done" in sweep.plan(grid(), tmp_path, jobs=1, same_program=True)
    kept = sweep.run(grid(), tmp_path, progress=False)
    assert (kept["versions"] == "nic_helpers 0.0.9").sum() == 9  # not of its own accord
    with pytest.warns(UserWarning, match="rows of 9 of 18 units are still those of another program"):
        sweep.run(grid(), tmp_path, progress=False, same_program=True, seconds=0)
    again = sweep.run(grid(), tmp_path, progress=False, same_program=True)
    assert same(again, undisturbed) and again["versions"].nunique() == 1
    assert "another version" not in sweep.plan(grid(), tmp_path, jobs=1)


def test_the_progress_bar_counts_units_from_what_is_done_and_tells_the_time_left(undisturbed, tmp_path, capsys):
    Dataset(tmp_path).add(undisturbed[undisturbed["quality"] == 1])
    sweep.run(grid(), tmp_path)
    shown = capsys.readouterr().err.split("\r")
    assert "9 of 18 units" in shown[2] and " 50%|" in shown[2]
    assert "18 of 18 units" in shown[-1] and "100%|" in shown[-1] and "00:00 left" in shown[-1]
    sweep.run(grid(), tmp_path, progress=False)
    assert not capsys.readouterr().err


def test_codecs_whose_weights_are_not_at_hand_are_timed_with_random_ones(tmp_path, monkeypatch, closed_port):
    monkeypatch.setattr(unit, "weights_sha256_of", lambda *a: "0" * 64)
    monkeypatch.setenv("NIC_ZOO_URL", closed_port)
    text = sweep.plan(grid(weights="zoo", codecs={"bmshj2018-factorized": (1,)}), tmp_path, jobs=1)
    assert "random weights of the published size" in text and "bmshj2018-factorized 1" in text


def test_the_command_line(tmp_path, capsys):
    assert command.main(["robustness", "--profile", "quick", "--out", str(tmp_path / "missing" / "x"), "--dry-run"]) == 0
    assert "hours of this device" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command.main(["nonsense"])
    for impossible in (["--jobs", "0"], ["--save", str(tmp_path / "missing" / "rows.parquet")]):
        with pytest.raises(SystemExit, match="2"):
            command.main(["transfer", *impossible])
    with Dataset(tmp_path).writing():
        assert command.main(["transfer", "--profile", "quick", "--out", str(tmp_path)]) == 2
    assert "another run is writing" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- Dask
@pytest.fixture
def cluster(tmp_path):
    """A real scheduler and two worker processes on the loopback interface: its address, and the workers."""
    where = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-W", "ignore", "-m", "distributed.cli"]
    scheduler = subprocess.Popen(
        [
            *dask[:-1],
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(where),
        ],
        cwd=tmp_path,
        **quiet,
    )
    began = time.monotonic()
    while not where.is_file() or not where.read_text():
        assert scheduler.poll() is None and time.monotonic() - began < 60
        time.sleep(0.1)
    address = json.loads(where.read_text())["address"]
    worker = [
        *dask[:-1],
        "distributed.cli.dask_worker",
        address,
        "--host",
        "127.0.0.1",
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--local-directory",
        str(tmp_path),
    ]
    workers = [subprocess.Popen(worker, cwd=tmp_path, **quiet) for _ in range(2)]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_dask_s_workers_do_it_and_one_may_be_killed(undisturbed, tmp_path, cluster, monkeypatch):
    from distributed import Client

    address, workers = cluster
    with Client(address, timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
        folder = tmp_path / "rows"

        def kill():
            wait_for(folder, 4)
            workers[0].kill()

        assassin = threading.Thread(target=kill)
        assassin.start()
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        table = sweep.run(grid(), folder, progress=False)
        assassin.join()
        assert same(table, undisturbed) and workers[0].poll() is not None
        loads = client.run(lambda: sys.modules["nic_helpers.sweep.unit"].codec_at.cache_info())
        assert len(loads) == 1 and all(info.misses <= 2 < info.hits for info in loads.values())


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch, closed_port):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", closed_port.replace("http", "tcp"))
    monkeypatch.setattr(executors, "PATIENCE", 1)
    with warnings.catch_warnings(), pytest.raises(SweepError, match="no Dask scheduler at DASK_SCHEDULER_ADDRESS"):
        warnings.simplefilter("ignore")
        sweep.run(grid(), tmp_path, progress=False)
