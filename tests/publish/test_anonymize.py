from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desmatch.cli import main
from desmatch.data.read import read_pairs
from desmatch.publish import anonymize as module
from desmatch.publish.key import read_key
from desmatch.publish.tokens import auto_tokens
from tests.publish.conftest import SECRET

PLAIN = "花呗 怎么还\thow do I pay Huabei\t1\n花呗能提现吗\tpay 花呗!\t0\n"


def rows_of(path):
    return [line.split("\t") for line in path.read_text(encoding="ascii").splitlines()]


def words_of(text, key):
    words = {number: token for token, number in key.numbers.items()}
    return [words[number] for number in text.split(" ")]


def test_the_key_leads_back_to_every_token(publish, write, tmp_path):
    assert publish(write("pairs.tsv", PLAIN)) == 0
    key = read_key(tmp_path / "key.json")
    rows = rows_of(tmp_path / "out" / "pairs.tsv")
    plain = [line.split("\t") for line in PLAIN.splitlines()]
    for row, (a, b, label) in zip(rows, plain, strict=True):
        assert [words_of(text, key) for text in row[:2]] == [auto_tokens(a), auto_tokens(b)]
        assert row[2] == label
    assert set(key.numbers) == {token for a, b, _ in plain for token in auto_tokens(a + " " + b)}


def test_the_outputs_are_read_as_pairs(publish, write, tmp_path):
    assert publish(write("train.tsv", PLAIN), write("test.csv", "a,b\nx,y z\n")) == 0
    rows = read_pairs([tmp_path / "out" / "train.tsv"], labels="required").rows
    assert rows["label"] == [1, 0]
    assert len(read_pairs([tmp_path / "out" / "test.tsv"], labels="absent").rows) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.tsv", "train.tsv"]


def test_a_token_has_one_number_in_all_files_on_all_days_and_in_all_processes(
    publish, write, tmp_path, monkeypatch
):
    first, second = write("first.tsv", "pay now\tpay later\n"), write("second.tsv", "later\tpay\n")
    assert publish(first, second, out="day1") == 0
    (pay, _), (pay_again, later) = (
        text.split(" ") for text in rows_of(tmp_path / "day1" / "first.tsv")[0]
    )
    assert pay == pay_again
    assert rows_of(tmp_path / "day1" / "second.tsv") == [[later, pay]]
    monkeypatch.delenv("DESMATCH_SECRET")
    assert publish(second, out="by-key") == 0
    words = [sys.executable, "-m", "desmatch", "anonymize", str(second)]
    words += ["--out", str(tmp_path / "by-secret"), "--key", str(tmp_path / "new.json")]
    subprocess.run(words, check=True, env=os.environ | {"DESMATCH_SECRET": SECRET})
    for out in ("by-key", "by-secret"):
        assert rows_of(tmp_path / out / "second.tsv") == [[later, pay]]


def test_the_same_command_gives_the_same_bytes(publish, write, tmp_path):
    path = write("pairs.tsv", PLAIN)
    for number in ("1", "2"):
        assert publish(path, out=number, key=f"{number}.json", options=["--shuffle"]) == 0
    for one, other in (("1.json", "2.json"), ("1/pairs.tsv", "2/pairs.tsv")):
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()


def test_without_a_secret_every_key_has_its_own(write, tmp_path, monkeypatch):
    monkeypatch.delenv("DESMATCH_SECRET", raising=False)
    path = write("pairs.tsv", PLAIN)
    for number in "12":
        words = ["anonymize", path, "--out", tmp_path / number, "--key", tmp_path / f"{number}.key"]
        assert main([str(word) for word in words]) == 0
    one, other = (set((tmp_path / number / "pairs.tsv").read_text().split()) for number in "12")
    assert one & other == {"0", "1"}


def test_rare_tokens_share_a_number_and_are_not_in_the_key(publish, write, tmp_path):
    plain = "a b c\ta b\na x\ty a\n"
    assert publish(write("p.tsv", plain), options=["--min-count", "2"]) == 0
    key = read_key(tmp_path / "key.json")
    assert set(key.numbers) == {"a", "b"}
    [rare] = key.rare
    a, b = key.numbers["a"], key.numbers["b"]
    assert rows_of(tmp_path / "out" / "p.tsv") == [
        [f"{a} {b} {rare}", f"{a} {b}"],
        [f"{a} {rare}", f"{rare} {a}"],
    ]


def test_rare_tokens_are_counted_over_all_files_of_a_command(publish, write, tmp_path):
    one, other = write("1.tsv", "a\tb\n"), write("2.tsv", "a\tc\n")
    assert publish(one, other, options=["--min-count", "2"]) == 0
    assert set(read_key(tmp_path / "key.json").numbers) == {"a"}


def test_rare_tokens_may_be_dealt_to_several_numbers(publish, write, tmp_path):
    plain = "".join(f"w{k}\tv{k}\n" for k in range(100))
    options = ["--min-count", "2", "--rare-buckets", "4"]
    assert publish(write("p.tsv", plain), options=options) == 0
    counts = Counter((tmp_path / "out" / "p.tsv").read_text().split())
    assert set(counts) == set(read_key(tmp_path / "key.json").rare)
    assert len(counts) == 4


def test_a_shuffle_keeps_all_rows_and_their_labels(publish, write, tmp_path):
    plain = "".join(f"w{k}\tv{k}\t{k % 2}\n" for k in range(200))
    path = write("p.tsv", plain)
    assert publish(path, out="plain") == 0
    assert publish(path, out="shuffled", options=["--shuffle"]) == 0
    rows, shuffled = (rows_of(tmp_path / out / "p.tsv") for out in ("plain", "shuffled"))
    assert rows != shuffled
    assert sorted(rows) == sorted(shuffled)


def test_what_is_said_names_files_and_counts_and_no_word(publish, write, tmp_path, capsys):
    assert publish(write("pairs.tsv", PLAIN), options=["--min-count", "2"]) == 0
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'out' / 'pairs.tsv'}: 2 rows, labelled" in said
    assert "3 tokens with a number of their own; 12 rarer ones share numbers" in said
    assert f"key: {tmp_path / 'key.json'}, 3 tokens; whoever has it reads the texts" in said
    assert not set("花呗怎么") & set(said)


# What is refused


def refused(publish, capsys, tmp_path, *inputs, **where):
    before = sorted(path for path in tmp_path.rglob("*"))
    assert publish(*inputs, **where) == 2
    assert sorted(path for path in tmp_path.rglob("*")) == before
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_bad_row_of_the_last_file_leaves_nothing(publish, write, tmp_path, capsys):
    good, bad = write("good.tsv", PLAIN), write("bad.tsv", "fine\tfine\n \u200b\tgeheim\n")
    error = refused(publish, capsys, tmp_path, good, bad)
    assert f"{bad}:2: text a has no token; write a text or remove the row" in error
    assert "geheim" not in error


def test_what_fails_on_the_way_leaves_nothing(publish, write, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "key.json")

    monkeypatch.setattr(module, "extend_key", full)
    assert "No space left" in refused(publish, capsys, tmp_path, write("p.tsv", PLAIN))


def test_an_interrupted_command_leaves_nothing(publish, write, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "extend_key", interrupted)
    path = write("p.tsv", PLAIN)
    assert publish(path) == 130
    assert [*tmp_path.iterdir()] == [path]


def test_a_pipe_is_read_once_and_never_twice(publish, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    options = ["--min-count", "2"]
    error = refused(publish, capsys, tmp_path, tmp_path / "pipe", options=options)
    assert "--min-count reads twice" in error
    writer = subprocess.Popen(["sh", "-c", 'printf "a b\\tc\\n" > "$0"', str(tmp_path / "pipe")])
    assert publish(tmp_path / "pipe") == 0
    assert writer.wait() == 0
    assert len(rows_of(tmp_path / "out" / "pipe.tsv")) == 1


def test_a_folder_that_is_there_is_not_written_to(publish, write, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert "is there already" in refused(publish, capsys, tmp_path, write("p.tsv", PLAIN))


def test_two_inputs_of_one_name_are_refused(publish, write, tmp_path, capsys):
    error = refused(publish, capsys, tmp_path, write("p.tsv", PLAIN), write("p.csv", "a,b\nx,y\n"))
    assert "would be written as p.tsv" in error


def test_the_key_lies_in_the_output_only_if_told(publish, write, tmp_path, capsys):
    path = write("p.tsv", PLAIN)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for place in ("out/key.json", "link/deep/key.json"):
        error = refused(publish, capsys, tmp_path, path, key=place)
        assert "lies in the folder that is published" in error
    assert publish(path, key="out/deep/key.json", options=["--key-in-out"]) == 0
    found = tmp_path / "out" / "deep" / "key.json"
    assert found.stat().st_mode & 0o777 == 0o600
    assert len(read_key(found).numbers) == 15


def test_another_file_is_never_taken_for_a_key(publish, write, tmp_path, capsys):
    path, other = write("p.tsv", PLAIN), write("key.json", "{}")
    other.chmod(0o600)
    assert "not a key of this version" in refused(publish, capsys, tmp_path, path)


def test_buckets_need_a_count(publish, write, tmp_path, capsys):
    error = refused(
        publish, capsys, tmp_path, write("p.tsv", PLAIN), options=["--rare-buckets", "2"]
    )
    assert "--rare-buckets needs --min-count K" in error


def test_a_tokenizer_that_fails_does_not_show_the_text(
    publish, write, tmp_path, capsys, monkeypatch
):
    def fail(text):
        raise RuntimeError(text)

    tokens = module.Tokens(fail, {"kind": "auto"})
    monkeypatch.setattr(module, "load_tokens", lambda *_, **__: tokens)
    error = refused(publish, capsys, tmp_path, write("p.tsv", "geheim\tx\n"))
    assert ":1: the tokenizer fails on text a" in error
    assert "geheim" not in error


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Zs"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=4), st.sampled_from(["tsv", "csv", "jsonl"]))
def test_any_text_is_numbered_or_refused(tmp_path_factory, capsys, rows, suffix):
    folder = tmp_path_factory.mktemp("any")
    path = folder / f"p.{suffix}"
    path.write_bytes("".join(f"{a}\t{b}\n" for a, b in rows).encode())
    words = ["anonymize", path, "--out", folder / "out", "--key", folder / "key"]
    status = main([str(word) for word in words])
    assert status in (0, 2)
    assert (folder / "out").exists() == (folder / "key").exists() == (status == 0)
    assert "Traceback" not in capsys.readouterr().err


TIFINAGH = st.text(st.sampled_from([chr(code) for code in range(0x2D30, 0x2D68)]), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.tuples(TIFINAGH, TIFINAGH, st.sampled_from(["", "\t1", "\tx", "\n"])), min_size=1)
)
def test_no_output_and_no_error_holds_a_letter_of_the_texts(tmp_path_factory, capsys, rows):
    """Of a script that nothing else here is written in."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "p.tsv"
    path.write_text("".join(f"{a}\t{b}{end}\n" for a, b, end in rows), encoding="utf-8")
    main(["anonymize", str(path), "--out", str(folder / "out"), "--key", str(folder / "key")])
    said = "".join(capsys.readouterr())
    written = "".join(each.read_text() for each in (folder / "out").glob("*"))
    assert not re.search(r"[\u2d30-\u2d7f]", said + written)
