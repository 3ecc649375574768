from __future__ import annotations

import json
import math
import socket
import threading
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args
from urllib.parse import parse_qs

import numpy as np
import pytest

from desmatch.arguments import build_parser
from desmatch.cli import INTERRUPTED, main
from desmatch.console import describe_verdict
from desmatch.errors import UserError
from desmatch.serve import Contract
from desmatch.serve import referee as module
from desmatch.serve.referee import CONTRACTS, Rules, referee

PAIRS = [("1 2 3", "4 5"), ("6", "7 8"), ("9 1", "2"), ("3 3", "3"), ("5", "5 &=+%")]
SCORES = [0.1, 0.2, 0.3, 0.4, 1.0]
PROBES = {"gaiic": "/tccapi", "v1": "/readyz"}


class Stub(ThreadingHTTPServer):
    """A server that answers rows by a function: (row, row's answer) -> what to do instead."""

    daemon_threads = True

    def __init__(self, mischief=None, *, health=200, probe="/tccapi"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mischief, self.probe = mischief or instead({}, of=()), probe
        self.health = [health] if isinstance(health, int) else list(health)
        self.released = threading.Event()
        self.rows, self.clients, self.bodies = [], [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open, if the client lets it

    def do_GET(self):
        health = self.server.health
        is_probe = self.path == self.server.probe
        self.reply((health[0] if len(health) == 1 else health.pop(0)) if is_probe else 404, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        pair, index = read_form(body) if self.path == "/tccapi" else read_json(body)
        row = PAIRS.index(pair)
        self.server.clients.append(self.client_address)
        self.server.bodies.append(body)
        self.server.rows.append(row)
        result = {"predict": SCORES[row], "index": index, "ok": True}
        if self.path == "/v1/match":
            result = {"score": SCORES[row]}
        answer = self.server.mischief(row, {"results": [result]})
        if answer == "hang":
            self.server.released.wait(60)
            answer = ""
        if answer == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif isinstance(answer, int):
            self.reply(answer, b"out of order")
        elif isinstance(answer, str | bytes):
            self.reply(200, answer if isinstance(answer, bytes) else answer.encode())
        else:
            self.reply(200, json.dumps(answer).encode())

    def reply(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "text/html")  # the client must not look at it
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


def read_form(body):
    fields = parse_qs(body, strict_parsing=True)
    assert set(fields) == {"input", "index"}
    (text,), (index,) = fields["input"], fields["index"]
    return tuple(text.split("\t")), index


def read_json(body):
    content = json.loads(body)
    assert list(content) == ["pairs"]
    (pair,) = content["pairs"]
    return (pair["a"], pair["b"]), None


@contextmanager
def serving(mischief=None, **options):
    with Stub(mischief, **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def closed_url():
    """A url where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def changed(**values):
    """A mischief for the third row: its result with other values."""

    def mischief(row, answer):
        return {"results": [answer["results"][0] | values]} if row == 2 else answer

    return mischief


def instead(replacement, *, of=(2,)):
    """A mischief for some rows: something else than their answer."""
    return lambda row, answer: replacement if row in of else answer


@pytest.mark.parametrize("contract", CONTRACTS)
def test_good_answers_become_scores_in_the_order_of_the_rows(contract):
    with serving(probe=PROBES[contract]) as server:
        verdict = referee(server.url, PAIRS, Rules(contract=contract))
    assert verdict.scores.tolist() == SCORES
    assert server.rows == [0, 1, 2, 3, 4]
    figures = verdict.figures
    assert (figures.rows, figures.sent, figures.failed, figures.not_reached) == (5, 5, 0, 0)
    assert figures.failures == ()
    assert 0 < figures.p50_ms <= figures.p90_ms <= figures.p99_ms <= figures.max_ms
    assert figures.max_ms <= 1000 * figures.seconds
    assert figures.pairs_per_second == pytest.approx(5 / figures.seconds)


def test_each_pair_has_a_connection_of_its_own():
    with serving() as server:
        referee(server.url, PAIRS)
    assert len(set(server.clients)) == len(PAIRS)


def test_the_form_is_the_contests():
    with serving() as server:
        referee(server.url, PAIRS[:1])
    assert server.bodies == ["input=1+2+3%094+5&index=0"]


@pytest.mark.parametrize(
    ("mischief", "reason"),
    [
        (instead(500), "status 500"),
        (instead(204), "status 204"),
        (instead("<html>"), "not JSON"),
        (instead(b"\xff"), "not JSON"),
        (instead("[" * 100_000), "not JSON"),
        (instead("[]"), "not one result"),
        (instead({"results": []}), "not one result"),
        (instead({"results": [0.5]}), "not one result"),
        (instead({"results": [{"predict": 0.5, "index": "2", "ok": True}] * 2}), "not one result"),
        (changed(ok=False), "ok is not true"),
        (changed(ok=1), "ok is not true"),
        (changed(index="3"), "wrong index"),
        (changed(index=2), "wrong index"),
        (changed(predict=1.001), "predict is no number in [0, 1]"),
        (changed(predict=-0.001), "predict is no number in [0, 1]"),
        (changed(predict=math.nan), "predict is no number in [0, 1]"),
        (changed(predict=math.inf), "predict is no number in [0, 1]"),
        (changed(predict=None), "predict is no number in [0, 1]"),
        (changed(predict="0.5"), "predict is no number in [0, 1]"),
        (changed(predict=True), "predict is no number in [0, 1]"),
        (instead("close"), "no HTTP answer (RemoteDisconnected)"),
    ],
)
def test_a_row_that_failed_has_0_and_its_reason(mischief, reason):
    with serving(mischief) as server:
        verdict = referee(server.url, PAIRS)
    assert verdict.scores.tolist() == [0.1, 0.2, 0, 0.4, 1.0]
    assert [asdict(each) for each in verdict.figures.failures] == [
        {"reason": reason, "rows": 1, "first_row": 3}
    ]
    assert (verdict.figures.sent, verdict.figures.failed) == (5, 1)


def test_an_answer_of_v1_needs_a_score():
    with serving(changed(score=2), probe="/readyz") as server:
        verdict = referee(server.url, PAIRS, Rules(contract="v1"))
    assert verdict.scores[2] == 0
    assert verdict.figures.failures[0].reason == "score is no number in [0, 1]"


def test_a_late_answer_fails_its_own_row_alone():
    with serving(instead("hang")) as server:
        verdict = referee(server.url, PAIRS, Rules(timeout_seconds=1, limit_ms=999))
    assert verdict.scores.tolist() == [0.1, 0.2, 0, 0.4, 1.0]
    assert verdict.figures.failures[0].reason == "timeout"
    assert verdict.figures.max_ms > 999
    assert verdict.figures.share_over_limit == pytest.approx(1 / 5)


def test_rows_that_are_not_reached_in_time_have_0():
    with serving(instead("hang")) as server:
        verdict = referee(server.url, PAIRS, Rules(seconds=1))
    assert verdict.scores.tolist() == [0.1, 0.2, 0, 0, 0]
    figures = verdict.figures
    assert (figures.sent, figures.failed, figures.not_reached) == (3, 1, 2)
    assert server.rows == [0, 1, 2]


def test_one_row_is_sent_however_short_the_time():
    with serving() as server:
        figures = referee(server.url, PAIRS, Rules(seconds=1e-9)).figures
    assert (figures.sent, figures.not_reached) == (1, 4)


def test_reasons_are_counted_the_most_frequent_first():
    def mischief(row, answer):
        return {0: 503, 1: "no", 3: "no"}.get(row, answer)

    with serving(mischief) as server:
        verdict = referee(server.url, PAIRS)
    said = describe_verdict(asdict(verdict.figures)).splitlines()
    assert said[0].startswith("5 of 5 pairs sent in ")
    assert said[0].endswith(" a second; 3 failed, 0 not reached")
    assert said[2:] == [
        "  failed: not JSON, rows: 2, the first: 2",
        "  failed: status 503, rows: 1, the first: 1",
    ]


def test_the_clock_starts_when_the_server_is_ready():
    with serving(health=[503, 503, 200]) as server:
        assert referee(server.url, PAIRS).scores.tolist() == SCORES


def test_a_server_that_is_not_ready_in_time():
    with (
        serving(health=503) as server,
        pytest.raises(UserError, match=r"GET /tccapi with 200 within 0\.5 s \(status 503\)"),
    ):
        referee(server.url, PAIRS, Rules(wait_seconds=0.5))


def test_a_server_of_another_contract_is_no_long_wait():
    with serving() as server, pytest.raises(UserError, match="does not know GET /readyz"):
        referee(server.url, PAIRS, Rules(contract="v1"))


def test_where_no_server_is_the_error_says_how_to_start_one():
    url = closed_url()
    with pytest.raises(UserError) as refusal:
        referee(url, PAIRS, Rules(wait_seconds=0.1))
    assert str(refusal.value) == (
        f"{url}: no server answered GET /tccapi with 200 within 0.1 s (connection refused); "
        "start one with `desmatch serve RUN --contract gaiic`"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "https://a",
        "http://a:x",
        "http://a:1/tccapi",
        "http://",
        "http://a..b",
    ],
)
def test_a_wrong_url_is_refused_at_once(url):
    with pytest.raises(UserError, match="expected http://host:port"):
        referee(url, PAIRS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"contract": "v2"}, "expected gaiic or v1, got 'v2'"), ({"seconds": 0}, "seconds: expected")],
)
def test_rules_without_meaning_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Rules(**options)


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs: expected at least one"):
        referee("http://localhost:1", [])


def command(server_url, folder, *words):
    test = folder / "test.tsv"
    test.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    out = folder / "out" / "result.tsv"
    files = ["--test", str(test), "--out", str(out)]
    return out, ["referee", "--url", server_url, *files, "--wait", "0.5", *words]


def test_the_verb_writes_scores_and_figures(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    with serving(instead(500)) as server:
        out, words = command(server.url, tmp_path, "--json", str(figures))
        assert main(words) == 0
    np.testing.assert_allclose(np.loadtxt(out), [0.1, 0.2, 0, 0.4, 1], rtol=1e-9)
    printed = capsys.readouterr().out
    assert "failed: status 500, rows: 1, the first: 3" in printed
    assert "wrote 5 scores" in printed
    written = json.loads(figures.read_text())
    assert written["rows"] == 5
    assert written["failures"] == [{"reason": "status 500", "rows": 1, "first_row": 3}]
    assert describe_verdict(written) in printed
    assert main(["submit", "--check", str(out), "--test", str(tmp_path / "test.tsv")]) == 0


def test_the_verb_sends_the_first_rows_alone_where_asked(tmp_path):
    with serving() as server:
        out, words = command(server.url, tmp_path, "--rows", "2")
        assert main(words) == 0
    assert out.read_text() == "0.1\n0.2\n"
    assert server.rows == [0, 1]


def test_the_verb_reports_mistakes_and_writes_nothing(capsys, tmp_path):
    out, words = command(closed_url(), tmp_path)
    assert main(words) == 2
    assert "start one with `desmatch serve RUN --contract gaiic`" in capsys.readouterr().err
    with serving(instead(500, of=range(5))) as server:
        out, words = command(server.url, tmp_path)
        assert main(words) == 2
    printed = capsys.readouterr()
    assert "failed: status 500, rows: 5" in printed.out
    assert "no row has a score" in printed.err
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "expected a file to write, got a folder" in capsys.readouterr().err
    assert not out.exists()


def test_ctrl_c_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    exchange = module._exchange

    def interrupted(address, request, timeout):
        if request.method == "POST" and b"index=2" in request.body:
            raise KeyboardInterrupt
        return exchange(address, request, timeout)

    monkeypatch.setattr(module, "_exchange", interrupted)
    with serving() as server:
        words = command(server.url, tmp_path, "--json", str(tmp_path / "figures.json"))[1]
        assert main(words) == INTERRUPTED
    assert [path.name for path in tmp_path.iterdir()] == ["test.tsv"]
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_the_command_line_offers_every_contract():
    words = ["referee", "--url", "u", "--test", "t", "--out", "o", "--contract"]
    assert get_args(Contract) == tuple(CONTRACTS)
    for contract in CONTRACTS:
        assert build_parser().parse_args([*words, contract]).contract == contract
