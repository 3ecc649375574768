"""Workers of a Ray cluster, or of Ray on this machine; all of its hosts see the run's folder."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from desmatch import __version__
from desmatch.errors import UserError, listed
from desmatch.tasks.plan import num_at_once
from desmatch.tasks.processes import threads_of_each
from desmatch.tasks.schedule import WorkerLost
from desmatch.tasks.work import SILENT, do_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from desmatch.stages import Run
    from desmatch.tasks.plan import Task

PASSED = ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "OMP_NUM_THREADS")
"""Environment that workers have from the one who started them."""

CALL_SECONDS = 10.0
"""For a cluster to take a connection."""

USES_GPU = ("predict",)
"""Stages beside those that train that are faster on a GPU."""


class RayCluster:
    """Remote tasks of Ray, each with as many processors as it has threads, and a GPU if it trains.

    Args:
        run: Its folder must lie on a file system that all hosts share.
        tasks: To be done.
        address: Of the cluster, as `ray.init` has it; none: RAY_ADDRESS, or this machine.
    """

    def __init__(self, run: Run, tasks: Sequence[Task], address: str | None) -> None:
        self.run, self.tasks, self.address = run, tasks, address

    def __enter__(self) -> Self:
        """Join the cluster, or start Ray on this machine, and look whether all see the folder.

        Raises:
            UserError: There is no cluster at the address, a host does not see the folder, or none
                has as many processors as a task has threads.
        """
        self.is_ours = not ray.is_initialized()
        if self.is_ours:
            _join(self.address)
        self.refs: dict[Future[str], Any] = {}
        try:
            self._look_around([node for node in ray.nodes() if node["Alive"]])
        except UserError:
            self._leave()
            raise
        return self

    def _look_around(self, nodes: Sequence[dict[str, Any]]) -> None:
        _require_shared(self.run.folder, nodes)
        resources = [node["Resources"] for node in nodes]
        cores = [int(each.get("CPU", 0)) for each in resources if each.get("CPU", 0) >= 1]
        share = threads_of_each(num_at_once(self.tasks), sum(cores))
        self.num_threads = min([share, *cores])
        self.has_gpus = any(each.get("GPU", 0) for each in resources)
        most = max(self._threads_of(task) for task in self.tasks)
        if most > max(cores, default=0):
            raise UserError(
                f"machine.num_threads {most}: no host of the cluster has as many processors, "
                f"the largest has {max(cores, default=0)}"
            )

    def _threads_of(self, task: Task) -> int:
        return task.run.recipe.machine.num_threads or self.num_threads

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what is still being done, and leave the cluster."""
        for ref in list(self.refs.values()):
            ray.cancel(ref, force=True)
        self._leave()

    def _leave(self) -> None:
        if self.is_ours:
            ray.shutdown()

    @property
    def is_free(self) -> bool:
        """Whether one more task may be given: Ray lets tasks wait by itself."""
        return True

    def submit(self, task: Task, *, is_retry: bool) -> Future[str]:
        """Give a task to the cluster."""
        num_threads = self._threads_of(task)
        is_on_gpu = self.has_gpus and (task.stage.is_parallel or task.stage.name in USES_GPU)
        remote = _remote(do_task, num_cpus=num_threads, num_gpus=int(is_on_gpu))
        settings = {"num_threads": num_threads, "is_retry": is_retry}
        ref = remote.remote(task.run, task.stage.name, str(Path.cwd()), **settings)
        given: Future[str] = Future()
        self.refs[given] = ref
        ref.future().add_done_callback(lambda ended: self._pass_on(ended, given))
        return given

    def _pass_on(self, ended: Future[str], given: Future[str]) -> None:
        self.refs.pop(given, None)
        error = ended.exception()
        if error is None:
            given.set_result(ended.result())
        elif isinstance(error, RayTaskError):
            given.set_exception(error.cause)
        elif isinstance(error, RayError):
            given.set_exception(WorkerLost(type(error).__name__))
        else:
            given.set_exception(error)


def _join(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # on by default
    named = address or os.environ.get("RAY_ADDRESS", "")
    try:
        _call(named)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--on ray: no cluster answers at {named or 'this machine'} ({error}); start one with "
            "`ray start --head`, or leave the address out to use this machine"
        ) from error


def _call(address: str) -> None:
    """Look whether somebody is at host:port; Ray itself would wait for minutes.

    Raises:
        OSError: Nobody is.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CALL_SECONDS).close()


def _remote(function: Any, **options: Any) -> Any:  # noqa: ANN401 - Ray's own types
    """Return a remote function; retries are the schedule's, which lets them resume."""
    environment = {name: os.environ[name] for name in PASSED if name in os.environ} | SILENT
    return ray.remote(function).options(
        max_retries=0, runtime_env={"env_vars": environment}, **options
    )


def _require_shared(folder: Path, nodes: Sequence[dict[str, Any]]) -> None:
    """Refuse hosts that do not see the run's folder and this one, or have another desmatch.

    Raises:
        UserError: There are such hosts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    seen = {str(Path.cwd()): Path.cwd(), str(mark.resolve()): folder}
    try:
        answers = [
            _remote(_look, num_cpus=0, scheduling_strategy=_on(node)).remote(list(seen))
            for node in nodes
        ]
        problems = [
            f"host {node['NodeManagerHostname']}: {problem}"
            for node, answer in zip(nodes, answers, strict=True)
            for problem in _problems(answer, list(seen.values()))
        ]
    finally:
        mark.unlink()
    if problems:
        raise UserError(listed(problems))


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _look(paths: Sequence[str]) -> tuple[str, list[bool]]:
    """Return this host's version of desmatch, and whether it sees each of some paths."""
    return __version__, [Path(path).exists() for path in paths]


def _problems(answer: Any, folders: Sequence[Path]) -> Iterator[str]:  # noqa: ANN401 - a reference
    try:
        version, is_seen = ray.get(answer)
    except RayError as error:
        yield f"desmatch does not run there ({error}); install {__version__} on it"
        return
    if version != __version__:
        yield f"has desmatch {version}, here it is {__version__}; install one of them on both"
    for folder, sees in zip(folders, is_seen, strict=True):
        if not sees:
            yield (f"does not see {folder}; run on a file system that all hosts of the cluster "
                   "share")  # fmt: skip
