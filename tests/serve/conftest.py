from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from desmatch.cli import main


@pytest.fixture(scope="session")
def exported_folder(finished_run, tmp_path_factory):
    """A tiny run, exported in fp32 through the command line."""
    out = tmp_path_factory.mktemp("export") / "model"
    assert main(["export", str(finished_run), "--to", "onnx", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def export_with_rows(finished_run, tmp_path_factory):
    """The same with its labelled pairs."""
    out = tmp_path_factory.mktemp("with-rows") / "model"
    words = ["export", str(finished_run), "--to", "onnx", "--with-rows", "--out", str(out)]
    assert main(words) == 0
    return out


class Client:
    """A service at a port: a new connection for each request."""

    def __init__(self, port, process=None):
        self.port, self.process = port, process

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None):
        """The status, the body and the headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def match(self, pairs):
        """The results of pairs."""
        body = json.dumps({"pairs": [{"a": a, "b": b} for a, b in pairs]})
        status, answer, _ = self.request("POST", "/v1/match", body)
        assert status == 200, answer
        return json.loads(answer)["results"]


@contextmanager
def running(folder, *options):
    """`desmatch serve` in a process of its own, as users have it."""
    words = ["serve", str(folder), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "desmatch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        said = []
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", "".join(said))) is None:
            said.append(process.stdout.readline())
            assert said[-1], "".join(said)
        client = Client(int(found[1]), process)
        wait_until_ready(client)
        yield client
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def wait_until_ready(client):
    for _ in range(200):
        try:
            if client.request("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("the service did not become ready")


@pytest.fixture(scope="session")
def service(exported_folder):
    with running(exported_folder, "--contract", "gaiic") as client:
        yield client


@pytest.fixture(scope="session")
def service_with_rows(export_with_rows):
    with running(export_with_rows, "--contract", "gaiic") as client:
        yield client
