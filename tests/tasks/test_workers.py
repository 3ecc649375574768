"""Tasks done by processes and by a cluster: as one process would, whoever is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from desmatch import __version__
from desmatch.cli import main
from desmatch.tasks.processes import Processes, Slot
from desmatch.tasks.schedule import WorkerLost

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
TRIES = 4


@pytest.fixture(scope="module")
def words(sample_folder, tiny_options):
    """The command of a run of two folds, but for its folder and who does it."""
    return ["run", "--recipe", "demo", "--data", str(sample_folder), *tiny_options,
            "--folds", "2", "--pretrain.num_evaluations=1"]  # fmt: skip


@pytest.fixture(scope="module")
def in_sequence(words, tmp_path_factory):
    """The folder of that run, done one step after the other."""
    out = tmp_path_factory.mktemp("in-sequence") / "run"
    assert main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def address():
    """Two hosts of one processor each, as Ray sees them."""
    if os.environ.get("DESMATCH_REQUIRE_RAY") != "1":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'desmatch[ray]'")
    cluster = two_hosts()
    yield cluster.address
    cluster.shutdown()


def two_hosts(tries=TRIES):
    """Start a cluster; the half minute that Ray gives a host is short on a busy machine."""
    from ray.cluster_utils import Cluster

    try:
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(**NODE)
    except Exception as error:
        if tries == 1 or "timed out during startup" not in str(error):
            raise
        return two_hosts(tries - 1)
    return cluster


@contextmanager
def killed_once(out, find_workers):
    """Kill the workers once a fold has a checkpoint of its last stage; give what was killed."""
    killed, is_over = [], threading.Event()

    def watch():
        while not list(out.glob("fold-*/.finetuned.making/checkpoint-*/seal.json")):
            if is_over.wait(0.002):
                return
        for pid in find_workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


def ray_workers(folder):
    """Processes of Ray that do a task in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_task = process.joinpath("cmdline").read_bytes().startswith(b"ray::do_task")
            if is_task and process.joinpath("cwd").resolve() == folder:
                yield int(process.name)


def outputs(out):
    """The bytes of all that a run says of its rows, and of its models."""
    names = ("submission/result.tsv", "predictions/*.parquet", "fold-*/*/model.safetensors",
             "fold-*/*/history.json")  # fmt: skip
    paths = [path for name in names for path in sorted(out.glob(name))]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def stage_log(out):
    return json.loads((out / "stages.json").read_text())


def require_resumed_to_the_same(out, in_sequence, said):
    assert "its worker was lost (" in said
    assert "report: done, 9 of 9" in said
    assert outputs(out) == outputs(in_sequence)
    assert stage_log(out).keys() == stage_log(in_sequence).keys()
    assert any(each["is_resumed"] for each in stage_log(out).values())
    assert not list(out.rglob(".*"))


def test_processes_that_are_killed_are_replaced_and_the_bytes_are_those_of_one_process(
    in_sequence, words, tmp_path, capsys
):
    out = tmp_path / "run"
    children = multiprocessing.active_children
    with killed_once(out, lambda: [each.pid for each in children()]) as killed:
        assert main([*words, "--out", str(out), "--on", "processes:2"]) == 0
    assert len(killed) == 2
    require_resumed_to_the_same(out, in_sequence, capsys.readouterr().out)
    assert not children()


def test_a_killed_worker_of_a_cluster_is_replaced_and_the_bytes_are_those_of_one_process(
    address, in_sequence, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    out = Path("run")
    with killed_once(out, lambda: ray_workers(tmp_path)) as killed:
        assert main([*words, "--out", str(out), "--on", f"ray:{address}"]) == 0
    assert killed
    require_resumed_to_the_same(out, in_sequence, capsys.readouterr().out)


def test_a_host_without_the_folder_or_with_another_version_is_named(address):
    import ray

    from desmatch.tasks.ray_cluster import _problems

    ray.init(address, log_to_driver=False)
    try:
        told = [*_problems(ray.put((__version__, [True, False])), [Path("here"), Path("run")]),
                *_problems(ray.put(("0", [True])), [Path("here")])]  # fmt: skip
        assert not [*_problems(ray.put((__version__, [True])), [Path("here")])]
    finally:
        ray.shutdown()
    assert told == [
        "does not see run; run on a file system that all hosts of the cluster share",
        f"has desmatch 0, here it is {__version__}; install one of them on both",
    ]


def test_a_task_of_more_threads_than_any_host_has_is_refused(address, words, tmp_path, capsys):
    place = ["--machine.num_threads=3", "--on", f"ray:{address}"]
    assert main([*words, "--out", str(tmp_path / "run"), *place]) == 2
    assert "no host of the cluster has as many processors, the largest has 1" in (
        capsys.readouterr().err
    )


def test_an_address_without_a_cluster_is_refused(words, tmp_path, capsys):
    if os.environ.get("DESMATCH_REQUIRE_RAY") != "1":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'desmatch[ray]'")
    assert main([*words, "--out", str(tmp_path / "run"), "--on", "ray:127.0.0.1:9"]) == 2
    assert "--on ray: no cluster answers at 127.0.0.1:9" in capsys.readouterr().err


def heeds_ctrl_c():
    """A shell starts what is in its background with the signal ignored, tests included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_the_workers_and_leaves_checkpoints_alone(words, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "desmatch", *words, "--out", str(out),
               "--pretrain.num_train_epochs=1000", "--on", "processes:1"]  # fmt: skip
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeds_ctrl_c,
    )
    while not (out / "fold-0" / ".pretrained.making").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate()  # ends when all who could write there have ended
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "the same command with --resume goes on" in errors
    assert not list(out.rglob("*.partial"))


def test_no_worker_outlives_a_killed_parent():
    script = "\n".join([
        "import time",
        "from desmatch.tasks.processes import Slot",
        "Slot(None).submit(time.sleep, 1000)",
        "print('asleep', flush=True)",
        "time.sleep(1000)",
    ])  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "asleep\n"
    process.kill()
    process.communicate()  # ends when all who could write there have ended
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_is_lost_while_it_has_nothing_to_do_is_replaced():
    slot = Slot(gpu=None)
    try:
        first = slot.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        slot.process.join()
        with suppress(WorkerLost):  # where the call came before the loss was seen
            slot.submit(os.getpid).result()
        assert slot.submit(os.getpid).result() == slot.process.pid != first
    finally:
        slot.stop()
        slot.join()


def test_gpus_are_dealt_by_the_names_that_the_process_has_for_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.gpu for slot in Processes([], 3).slots] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert [slot.gpu for slot in Processes([], 3).slots] == ["5", "GPU-7", "5"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert [slot.gpu for slot in Processes([], 1).slots] == [None]


def test_an_error_in_a_worker_is_that_of_the_command(words, tmp_path, capsys):
    words = [*words, "--out", str(tmp_path / "run")]
    words[words.index("--data") + 1] = str(tmp_path)
    (tmp_path / "train.tsv").write_text("1 2\t3 4\n")
    (tmp_path / "test.tsv").write_text("1 2\t3 4\n")
    errors = []
    for place in ("local", "processes:1"):
        assert main([*words, "--on", place]) == 2
        errors.append(capsys.readouterr().err)
    assert errors[0] == errors[1]
    assert "train.tsv: no row has a label" in errors[0]
