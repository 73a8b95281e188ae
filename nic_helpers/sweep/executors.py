"""What does a sweep's units: this process, processes of this machine, Dask's workers, or any executor that is lent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch

from nic_helpers.sweep.dataset import SweepError

PATIENCE = 20  # seconds, for a cluster to answer
GRACE = 10  # seconds, for a worker to end by itself, or to clean up where it has lost its driver


class Pool(Protocol):
    """``submit(function, argument)`` gives a future; ``width()``: how many are done at a time, now; ``renew()``: begin
    again after a process of it was killed (SweepError where that cannot be)."""

    def submit(self, function: Callable, argument) -> Future: ...

    def width(self) -> int: ...

    def renew(self) -> None: ...


class Here:
    """Does the work at once, in this process."""

    def submit(self, function: Callable, argument) -> Future:
        """Done when it returns."""
        future = Future()
        try:
            future.set_result(function(argument))
        except Exception as error:
            future.set_exception(error)
        return future

    def width(self) -> int:
        """One unit, which is done when it has been handed out."""
        return 0

    def renew(self) -> None:
        """Nothing breaks."""


class Processes:
    """Processes of this machine, each with its share of the cores."""

    def __init__(self, jobs: int, threads: int | None = None):
        self._jobs, self._threads = jobs, threads or max(1, cores() // jobs)
        self._pool: ProcessPoolExecutor | None = None
        self._begun = multiprocessing.get_context("spawn").Event()  # set by the first process that could start
        self._unfinished: set[Future] = set()

    def submit(self, function: Callable, argument) -> Future:
        """Starts the processes when they are needed first. SweepError for what cannot be sent to them."""
        try:
            task = pickle.dumps((function, argument))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise SweepError(
                f"{argument} cannot be sent to another process ({error}): make what the grid names of a module's "
                "functions and frozen dataclasses, or use jobs=1"
            ) from error
        main = sys.modules["__main__"]
        if b"__main__" in task and not main.__spec__ and not Path(getattr(main, "__file__", "")).is_file():
            raise NotFoundThere("it is defined in __main__, which is no file")  # known without starting them
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._jobs, spawn, _begin_worker, (self._threads, self._begun))
        future = self._pool.submit(_do, task)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def width(self) -> int:
        """As many as there are processes."""
        return self._jobs

    def renew(self) -> None:
        """Forget the processes; the next unit starts new ones. SweepError where not one could start: nor will the next."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        if not self._begun.is_set():
            raise SweepError(
                "the worker processes ended before they could begin. Each of them runs the main script again, up to "
                'where it says `if __name__ == "__main__":`, so a script must have what it does under that line '
                "(and be a file); or use jobs=1. What else may be wrong stands above"
            ) from None

    def close(self) -> None:
        """End the processes: at once those with a unit in hand, which is not kept unfinished; the others may go by themselves."""
        if self._pool is None:
            return
        running = list((self._pool._processes or {}).values())
        busy = any(not future.cancel() for future in list(self._unfinished))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        until = time.monotonic() + GRACE * (not busy)
        for process in running:
            process.join(max(0, until - time.monotonic()))
            if process.is_alive():
                process.terminate()
        for process in running:
            process.join()


class NotFoundThere(SweepError):
    """What a unit is made of is not to be found in a worker process, with what Python says of it."""

    def __str__(self) -> str:
        return (
            f"the worker processes cannot find what the grid names ({self.args[0]}): put it in a module (a .py file) that "
            "they can import, not in a notebook or at a prompt; or use jobs=1"
        )


_ending = threading.Event()  # of this worker


def _do(task: bytes):
    if _ending.is_set():  # what it had been handed beforehand
        sys.exit(1)
    try:
        function, argument = pickle.loads(task)
    except (AttributeError, ImportError) as error:
        raise NotFoundThere(str(error)) from error
    return function(argument)


def leave_if_started_by_a_sweep() -> None:
    """End a worker process that is still at its start, and has come to a sweep of its own by running a script that does not
    ask whether it is ``__main__``: quietly, as the driver says it (:meth:`Processes.renew`)."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(1)


def _begin_worker(threads: int, begun) -> None:
    begun.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business

    def end(*_) -> None:  # with its clean-up: temporary folders, programs it started; once, not in the middle of that
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _ending.set()
        sys.exit(1)

    signal.signal(signal.SIGTERM, end)
    torch.set_num_threads(threads)

    def follow() -> None:  # a driver that is killed outright tells nobody
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)  # with the clean-up, as above
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Lent:
    """An executor of the caller's: used, and not shut down."""

    def __init__(self, executor: Executor):
        self._executor, self._client = executor, getattr(executor, "_client", None)  # Dask's has a client

    def submit(self, function: Callable, argument) -> Future:
        """To Dask as impure, so that a second try is really made."""
        options = {} if self._client is None else {"pure": False}
        return self._executor.submit(function, argument, **options)

    def width(self) -> int:
        """Dask's threads at this moment: workers come and go."""
        if self._client is not None:
            return max(1, sum(self._client.nthreads().values()))
        return getattr(self._executor, "_max_workers", None) or 4

    def renew(self) -> None:
        """It is not ours to renew."""
        raise SweepError(
            "the executor broke: a process of it was killed, or its connection was lost. What is done is kept; run again"
        )


BROKEN = BrokenExecutor


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool_of(executor: Executor | None, jobs: int, stack: ExitStack) -> Pool:
    """The executor lent; else Dask's where ``DASK_SCHEDULER_ADDRESS`` is set; else ``jobs`` processes, or this one."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if executor is not None:
        return Lent(executor)
    if address:
        from distributed import Client

        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
        except (OSError, TimeoutError) as error:
            raise SweepError(f"no Dask scheduler at DASK_SCHEDULER_ADDRESS={address}: {error}. Start one, or unset it") from error
        print(f"Dask's scheduler at {address}: {sum(client.nthreads().values())} worker threads so far", file=sys.stderr)
        return Lent(client.get_executor())
    if jobs > 1:
        pool = Processes(jobs)
        stack.callback(pool.close)
        return pool
    return Here()
