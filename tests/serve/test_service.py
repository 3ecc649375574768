from __future__ import annotations

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import numpy as np
import pytest

from desmatch.cli import main
from desmatch.matcher import PairMatcher
from desmatch.serve.contracts import Limits
from desmatch.serve.referee import Rules, referee
from tests.serve.conftest import running

PAIRS = [("1 2 3", "2 3"), ("4", "5 6 7 8 9"), ("1 1 1", "unheard-of 1")]


@pytest.fixture(scope="module")
def expected(finished_run):
    return PairMatcher.from_pretrained(finished_run).predict_proba(PAIRS)[:, 1]


def test_pairs_get_the_probabilities_of_the_python_api(service, expected):
    results = service.match(PAIRS)
    np.testing.assert_allclose([each["score"] for each in results], expected, atol=1e-5)
    assert results[2]["unknown_ids"] == 1
    for each in results:
        mean = (each["score_forward"] + each["score_backward"]) / 2
        assert each["score"] == pytest.approx(mean, abs=1e-6)


def test_texts_may_be_lists_of_ids(service):
    body = json.dumps({"pairs": [{"a": [1, 2.0, 3], "b": ["2", "3"]}]})
    status, answer, _ = service.request("POST", "/v1/match", body)
    assert status == 200
    assert json.loads(answer)["results"] == service.match([("1 2 3", "2 3")])


def test_the_contests_rows_are_answered_one_by_one(service, expected):
    fields = [("input", "\t".join(pair)) for pair in PAIRS] + [("input", "1 2 without a tab")]
    fields += [("index", name) for name in ("7", "x", "9", "10")]
    assert service.request("GET", "/tccapi")[:2] == (200, b"")
    status, answer, _ = service.request("POST", "/tccapi", urlencode(fields))
    assert status == 200
    results = json.loads(answer)["results"]
    assert [each["index"] for each in results] == ["7", "x", "9", "10"]
    assert [each["ok"] for each in results] == [True, True, True, False]
    np.testing.assert_allclose([each["predict"] for each in results], [*expected, 0], atol=1e-5)


def test_the_referee_gets_the_submission_of_the_run(service, finished_run, sample_folder):
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    pairs = [tuple(line.split("\t")) for line in lines]
    of_run = np.loadtxt(finished_run / "submission" / "result.tsv")
    for contract in ("gaiic", "v1"):
        verdict = referee(service.url, pairs, Rules(contract=contract))
        assert not verdict.figures.failures
        np.testing.assert_allclose(verdict.scores, of_run, atol=1e-5)


def test_many_clients_at_once_each_get_their_own_answer(service, finished_run, sample_folder):
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    pairs = [tuple(line.split("\t")) for line in lines]
    of_run = np.loadtxt(finished_run / "submission" / "result.tsv")

    def ask(row):
        return row, service.match([pairs[row]])[0]["score"]

    with ThreadPoolExecutor(16) as pool:
        for row, score in pool.map(ask, np.tile(np.arange(len(pairs)), 5).tolist()):
            assert score == pytest.approx(of_run[row], abs=1e-4)
    assert b"desmatch_batch_pairs_bucket" in service.request("GET", "/metrics")[1]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "Invalid JSON"),
        (b"{", 422, "Invalid JSON"),
        (b"\xff\xfe", 422, "Invalid JSON"),
        (b"[" * 100_000, 422, "Invalid JSON"),
        (b"null", 422, "should be an object"),
        (b'{"pairs": []}', 422, "at least 1 item"),
        (b'{"pairs": [{"a": "1"}]}', 422, "pairs.0.b: Field required"),
        (b'{"pairs": [{"a": "1", "b": ""}]}', 422, "a text needs at least one id"),
        (b'{"pairs": [{"a": "1", "b": ["1 2"]}]}', 422, "no white space"),
        (b'{"pairs": [{"a": "1", "b": -1}]}', 422, "pairs.0.b"),
        (
            b'{"pairs": [{"a": [1, false], "b": "1"}]}',
            422,
            "pairs.0.a: Value error, an id of a list",
        ),
        (b'{"pairs": [{"a": [1.5], "b": "1"}]}', 422, "is a whole number from 0 on"),
        (b'{"pairs": [{"a": [" 1"], "b": "1"}]}', 422, "no white space"),
        (b'{"pairs": [{"a": {}, "b": "1"}]}', 422, "a text is a string of ids, or a list of them"),
        (b'{"pairs": [{"a": "1", "b": "1"}], "more": 1}', 422, "Extra inputs"),
        (b'{"pairs": [{"a": "1", "b": "' + b"1 " * 1001 + b'"}]}', 400, "1001 ids, 1000 at most"),
        (
            b'{"pairs": [' + b",".join([b'{"a": "1", "b": "1"}'] * 1001) + b"]}",
            400,
            "1001 pairs in a call, 1000 at most",
        ),
        (b"x" * (Limits().body_bytes + 1), 413, "over 1048576 bytes"),
    ],
)
def test_a_bad_request_gets_its_reason(service, body, status, reason):
    found, answer, _ = service.request("POST", "/v1/match", body)
    assert (found, reason in json.loads(answer)["detail"]) == (status, True), answer
    assert len(service.match(PAIRS)) == len(PAIRS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "as many fields index as input"),
        (b"input=1%092", "got 0 and 1"),
        (b"input=%ff%092&index=0", "utf-8"),
        (b"\xff", "utf-8"),
        (b"exit", "as many fields index as input"),
    ],
)
def test_a_bad_request_of_the_contest_gets_its_reason(service, body, reason):
    status, answer, _ = service.request("POST", "/tccapi", body)
    assert (status, reason in json.loads(answer)["detail"]) == (400, True), answer


def test_a_slow_client_holds_nobody_up_and_is_told_so(exported_folder):
    with running(exported_folder) as service:
        slow = socket.create_connection(("127.0.0.1", service.port))
        slow.sendall(b"POST /v1/match HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        begun = time.monotonic()
        assert len(service.match(PAIRS)) == len(PAIRS)
        assert time.monotonic() - begun < Limits().body_seconds / 2
        slow.settimeout(Limits().body_seconds + 10)
        assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]
        slow.close()


def test_sigterm_under_load_answers_all_that_was_taken(exported_folder):
    with running(exported_folder, "--drain-seconds", "0.5") as service:
        stop, failures, answered = threading.Event(), [], []

        def load():
            while not stop.is_set():
                try:
                    if service.request("GET", "/readyz")[0] != 200:
                        return
                    answered.append(len(service.match(PAIRS)))
                except Exception as error:
                    failures.append(repr(error))
                    return

        clients = [threading.Thread(target=load) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=20) == 0
        stop.set()
        for client in clients:
            client.join()
        assert failures == []
        assert answered
        assert set(answered) == {len(PAIRS)}


def test_the_contests_exit_is_honoured_behind_a_flag_alone(service, exported_folder):
    assert service.request("POST", "/tccapi", b"exit")[0] == 400
    with running(exported_folder, "--contract", "gaiic", "--allow-exit",
                 "--drain-seconds", "0") as other:  # fmt: skip
        assert other.request("POST", "/tccapi", b"exit")[0] == 200
        assert other.process.wait(timeout=20) == 0


def test_probes_and_the_description(service):
    assert service.request("GET", "/healthz")[:2] == (200, b'{"status":"ok"}')
    description = json.loads(service.request("GET", "/openapi.json")[1])
    posts = description["paths"]["/v1/match"]["post"]
    assert set(posts["responses"]) >= {"200", "400", "408", "413", "422", "503"}
    models = description["components"]["schemas"]
    for route in ("/v1/match", "/v1/nearest"):
        body = description["paths"][route]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["$ref"].removeprefix("#/components/schemas/") in models


def test_requests_are_counted_by_route_and_status(service):
    service.match(PAIRS)
    for method, path in (("GET", "/tccapi"), ("PUT", "/tccapi"), ("GET", "/no/such/place")):
        service.request(method, path)
    metrics = service.request("GET", "/metrics")[1].decode()
    for route, status in (("/v1/match", 200), ("/tccapi", 200), ("/tccapi", 405), ("other", 404)):
        assert f'desmatch_requests_total{{route="{route}",status="{status}"}}' in metrics
    assert "/no/such/place" not in metrics


@pytest.mark.parametrize(
    ("path", "methods"), [("/v1/match", {"POST"}), ("/tccapi", {"GET", "HEAD", "POST"})]
)
def test_a_wrong_method_is_told_the_right_ones(service, path, methods):
    status, _, headers = service.request("DELETE", path)
    assert (status, {*headers["allow"].split(", ")}) == (405, methods)


def test_a_run_is_exported_once_and_a_taken_port_is_said(finished_run, capsys):
    with running(finished_run) as service:
        assert len(service.match(PAIRS)) == len(PAIRS)
        manifest = finished_run / "serving" / "serving.json"
        made = manifest.stat().st_mtime_ns
        assert main(["serve", str(finished_run), "--port", str(service.port)]) == 2
        assert f"--port {service.port}: cannot listen there" in capsys.readouterr().err
        assert manifest.stat().st_mtime_ns == made
