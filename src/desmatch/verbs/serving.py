"""Verbs that hand a run's models over, serve them, and try a server out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.errors import UserError, require_installed

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def export(options: argparse.Namespace) -> None:
    """Write a run's models for other tools, or for serving."""
    from desmatch.mends import load_whole_run

    if options.to != "onnx":
        _refuse_options_of_onnx(options)
    run = load_whole_run(options.run)
    if options.to == "onnx":
        require_installed("onnx", "onnx", "onnxruntime", "onnxscript")
        from desmatch.console import describe_export
        from desmatch.deploy import export_onnx

        run = run if options.member is None else run.of_member(options.member)
        if options.fold is not None:
            run = run.of_fold(options.fold)
        manifest = export_onnx(
            run,
            options.out,
            precision=options.precision,
            graphs=options.graphs,
            with_rows=options.with_rows,
        )
        print(describe_export(options.out, manifest))
        return
    from desmatch.export import export_hugging_face, export_torch

    write = {"hf": export_hugging_face, "torch": export_torch}[options.to]
    name = write(run.of_member(options.member).of_fold(options.fold).last_model, options.out)
    print(f"wrote {options.out}, a {name}")


def _refuse_options_of_onnx(options: argparse.Namespace) -> None:
    given = {
        f"--precision {options.precision}": options.precision != "fp32",
        f"--graphs {options.graphs}": options.graphs != "several",
        "--with-rows": options.with_rows,
    }
    words = next((words for words, is_given in given.items() if is_given), None)
    if words is not None:
        raise UserError(
            f"{words}: a choice of --to onnx alone, got --to {options.to}; leave it out, or add "
            "--to onnx"
        )


def serve(options: argparse.Namespace) -> None:
    """Answer over HTTP until told to stop."""
    require_installed("serve", "fastapi", "onnxruntime", "prometheus_client", "uvicorn")
    from desmatch.serve.contracts import Limits
    from desmatch.serve.nearest import ROWS, NearestRows
    from desmatch.serve.server import Place, serve
    from desmatch.serve.session import ServedModel

    folder, is_both = _exported(options.model), options.orders == "both"
    model = ServedModel.load(folder, num_threads=options.threads, both_orders=is_both)
    path = options.rows or folder / ROWS
    rows = NearestRows.read(path) if options.rows or path.is_file() else None
    place = Place(
        host=options.host,
        port=options.port,
        contract=options.contract,
        allow_exit=options.allow_exit,
        drain_seconds=options.drain_seconds,
    )
    limits = Limits(
        body_bytes=options.max_body, pairs_per_call=options.max_pairs, ids_per_text=options.max_ids
    )
    serve(model, place, limits, rows=rows)


def _exported(folder: Path) -> Path:
    """Return the folder itself if it was exported, else where the run it is of is exported to."""
    if not (folder / "recipe.yaml").is_file():
        return folder
    require_installed("onnx", "onnx", "onnxscript")
    from desmatch.deploy import exported
    from desmatch.mends import load_whole_run

    return exported(load_whole_run(folder, say=print))


def referee(options: argparse.Namespace) -> None:
    """Try a server out as the contest's client does."""
    from dataclasses import asdict

    from desmatch.console import describe_verdict
    from desmatch.data.read import column, read_pairs
    from desmatch.runs import write_json
    from desmatch.serve.referee import Rules, referee
    from desmatch.submit import write_scores

    for path in filter(None, (options.out, options.json)):
        if path.is_dir():  # said before a quarter of an hour is spent
            raise UserError(f"{path}: expected a file to write, got a folder; name a file in it")
    rules = Rules(
        contract=options.contract,
        seconds=60 * options.minutes,
        limit_ms=options.limit_ms,
        timeout_seconds=options.timeout,
        wait_seconds=options.wait,
    )
    rows = read_pairs([options.test], labels="optional").rows
    a, b = (column(rows, name).slice(0, options.rows).to_pylist() for name in "ab")
    verdict = referee(options.url, list(zip(a, b, strict=True)), rules, progress="referee")
    figures = asdict(verdict.figures)
    print(describe_verdict(figures))
    if options.json is not None:
        write_json(options.json, figures)
    if verdict.figures.failed == verdict.figures.sent:
        raise UserError(f"{options.url}: no row has a score, so {options.out} is not written")
    write_scores(options.out, [verdict.scores])
    print(f"wrote {len(verdict.scores)} scores to {options.out}")
