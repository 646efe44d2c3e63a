"""Where jobs run: in this process, in a pool of processes here, or on a Ray cluster. Nothing else knows.

A job is a picklable thing, a function turns it into files of its own and a small result; who was interrupted calls again,
and the jobs whose results are there already are not given to a runner a second time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

from unlabeled.core.errors import UserError
from unlabeled.parallel.cluster import ray_cluster

__all__ = ["Engine", "Runner", "cores", "runner"]

Engine = Literal["local", "ray"]


class Runner(Protocol):
    """Runs a function over jobs and gives each result as soon as it is there, in any order."""

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]: ...


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def runner(engine: Engine, workers: int) -> Iterator[Runner]:
    """A runner that is closed at the end. workers: processes, or with Ray tasks at a time (0: all there are).

    Raises:
        UserError: where Ray is asked for and not installed.
    """
    if engine == "ray":
        with ray_cluster("--engine ray") as ray:
            yield _Cluster(ray, workers)
    elif workers == 1:
        yield _Here()
    else:
        with _pool(workers or cores()) as made:
            yield made


class _Here:
    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        return map(function, jobs)


def _ready() -> None:
    """The first thing that workers do."""


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl-C, which is for the one that was started by hand."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Runner]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # inherited by the workers, whose arrays are small
        os.environ.setdefault(name, "1")
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    with _deaf():
        for _ in range(workers):
            pool.submit(_ready)  # each starts a worker, as none is idle yet

    class Pool:
        def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
            waiting = {pool.submit(function, job) for job in jobs}
            try:
                for done in as_completed(set(waiting)):
                    waiting.discard(done)
                    yield done.result()
            except BrokenProcessPool as error:
                raise UserError(
                    "A worker was killed from outside, most often for want of memory: repeat the command to go on where "
                    "it was, with fewer --workers if it happens again."
                ) from error
            finally:
                for future in waiting:
                    future.cancel()

    try:
        yield Pool()
    except BaseException:
        with _deaf():  # a second Ctrl-C would only leave processes behind
            for process in list((pool._processes or {}).values()):
                process.terminate()  # what they write is put in place whole or not at all
            pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


class _Cluster:
    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self._workers = ray, workers

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        task = self._ray.remote(function)
        most = self._workers or int(self._ray.cluster_resources().get("CPU", 1))
        waiting: list[Any] = []
        for job in jobs:
            if len(waiting) >= 2 * most:
                done, waiting = self._ray.wait(waiting)
                yield self._ray.get(done[0])
            waiting.append(task.remote(job))
        while waiting:
            done, waiting = self._ray.wait(waiting)
            yield self._ray.get(done[0])
