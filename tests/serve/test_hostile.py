"""No request makes the service fail: ours, and those that schemathesis makes of the description.

DESMATCH_HOSTILE=2000 asks as often, of either kind, in place of 100 times.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desmatch.serve.contracts import NO_SPACE

PAIRS = [("1 2 3", "2 3"), ("4", "5 6 7 8 9"), ("1 1 1", "unheard-of 1")]
NUM_REQUESTS = int(os.environ.get("DESMATCH_HOSTILE", "100"))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ids = st.one_of(
    st.text(max_size=20), st.lists(st.integers() | st.text(max_size=4), max_size=5), values
)
requests_like_ours = st.fixed_dictionaries(
    {}, optional={"pairs": st.lists(st.fixed_dictionaries({}, optional={"a": ids, "b": ids}),
                                    max_size=3) | values, "other": values}
)  # fmt: skip
bodies = st.one_of(
    requests_like_ours.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.lists(st.tuples(st.sampled_from(["input", "index", "x"]), st.text(max_size=9))).map(
        lambda fields: urlencode(fields, errors="replace").encode()
    ),
)


@settings(max_examples=NUM_REQUESTS, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["/v1/match", "/v1/nearest", "/tccapi", "/healthz", "/nowhere"]),
    method=st.sampled_from(["POST", "POST", "GET", "PUT", "DELETE"]),
    body=bodies,
)
def test_no_request_makes_the_service_fail(service_with_rows, path, method, body):
    status, answer, _ = service_with_rows.request(method, path, body)
    assert 200 <= status < 500, answer
    if status == 200 and path == "/v1/match":
        assert all(0 <= each["score"] <= 1 for each in json.loads(answer)["results"])


def test_the_description_knows_white_space_as_texts_are_split():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert re.findall(f"{NO_SPACE}+", every) == every.split()


def test_every_answer_is_as_the_description_says(service_with_rows, tmp_path):
    expected = service_with_rows.match(PAIRS)
    words = ["run", f"{service_with_rows.url}/openapi.json", "--checks", "all", "--seed", "0",
             "--max-examples", str(NUM_REQUESTS // 2), "--generation-database", "none"]  # fmt: skip
    command = [sys.executable, "-m", "schemathesis.cli", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert service_with_rows.match(PAIRS) == expected
