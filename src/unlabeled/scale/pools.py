"""Where the runs of a sweep are trained: here one after another, in processes, as jobs of Slurm (submitit) or as tasks of Ray.

A job is a function with one argument, both picklable; whoever submits keeps no more jobs going than there are workers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from unlabeled.core.errors import UserError
from unlabeled.parallel.cluster import ray_cluster

__all__ = ["Job", "Pool", "PoolName", "opened"]

PoolName = Literal["local", "submitit", "ray"]
LAST_WORDS = 30.0  # seconds that a worker gets to save when it is told to stop


class Job(Protocol):
    def done(self) -> bool: ...

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        ...


Pool = Callable[[Callable[[Any], Any], Any], Job]  # submit(function, argument)


@contextmanager
def opened(
    name: PoolName, workers: int, folder: Path, threads: int = 1, hours: float = 24.0, **options: Any
) -> Iterator[Pool]:
    """A pool, closed at the end; on an error or Ctrl-C its jobs are told to stop, which makes them save.

    folder: for logs, on a file system that the jobs share. threads: of each job. hours: limit of a job on Slurm. options: of
    submitit's `update_parameters`, such as slurm_partition; `cluster="local"` stays on this machine.

    Raises:
        UserError: where the engine is not installed or there is none of that name.
    """
    if name == "local":
        made = _here() if workers == 1 else _processes(workers, threads)
    elif name == "submitit":
        made = _submitit(folder, threads, hours, options)
    elif name == "ray":
        made = _ray(threads)
    else:
        raise UserError(f"A pool is local, submitit or ray, not {name!r}.")
    with made as submit:
        yield submit


class _Done:
    def __init__(self, value: Any) -> None:
        self.value = value

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.value


@contextmanager
def _here() -> Iterator[Pool]:
    yield lambda function, argument: _Done(function(argument))


def _begin_worker(parent: int, threads: int) -> None:
    """Ctrl-C is for the process that was started by hand, which passes it on; a worker whose parent was killed saves and ends."""
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WORDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _processes(workers: int, threads: int) -> Iterator[Pool]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when a worker starts
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (os.getpid(), threads))
    try:
        yield pool.submit
    except BaseException:
        processes = list((pool._processes or {}).values())
        for process in processes:
            process.terminate()
        end = time.monotonic() + LAST_WORDS
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def _submitit(folder: Path, threads: int, hours: float, options: dict[str, Any]) -> Iterator[Pool]:
    try:
        import submitit  # pyrefly: ignore
    except ImportError as error:
        raise UserError("--pool submitit needs it: `pip install submitit`.") from error
    cluster = options.pop("cluster", None)
    executor = submitit.AutoExecutor(folder / "jobs", cluster=cluster)
    executor.update_parameters(name="unlabeled-scale", timeout_min=round(60 * hours), cpus_per_task=threads, **options)
    jobs: list[Any] = []

    class Running:
        def __init__(self, job: Any) -> None:
            self.job = job

        def done(self) -> bool:
            return self.job.done()

        def result(self) -> Any:
            from submitit.core.utils import FailedJobError, UncompletedJobError  # pyrefly: ignore

            try:
                return self.job.result()
            except (FailedJobError, UncompletedJobError) as error:
                raise UserError(
                    f"Job {self.job.job_id} ended without a result; {self.job.paths.stderr} says why; the same command goes on."
                ) from error

    def submit(function: Callable[[Any], Any], argument: Any) -> Job:
        jobs.append(executor.submit(function, argument))
        return Running(jobs[-1])

    try:
        yield submit
    except BaseException:
        for job in jobs:
            if not job.done():
                job.cancel(check=False)
        raise


@contextmanager
def _ray(threads: int) -> Iterator[Pool]:
    with ray_cluster("--pool ray") as ray, _submitting(ray, threads) as submit:
        yield submit


@contextmanager
def _submitting(ray: Any, threads: int) -> Iterator[Pool]:
    class Running:
        def __init__(self, reference: Any) -> None:
            self.reference = reference

        def done(self) -> bool:
            return bool(ray.wait([self.reference], timeout=0)[0])

        def result(self) -> Any:
            return ray.get(self.reference)

    running: list[Any] = []

    def submit(function: Callable[[Any], Any], argument: Any) -> Job:
        running.append(ray.remote(num_cpus=threads)(function).remote(argument))
        return Running(running[-1])

    try:
        yield submit
    except BaseException:
        for reference in running:
            ray.cancel(reference)
        raise
