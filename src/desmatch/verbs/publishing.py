"""Verbs for those who publish: pairs by number, and how exposed they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.errors import UserError

if TYPE_CHECKING:
    import argparse


def anonymize(options: argparse.Namespace) -> None:
    """Write plain pairs as numbered ones, and their key."""
    from desmatch.console import describe_published
    from desmatch.publish.anonymize import Protection, Request, anonymize
    from desmatch.publish.key import read_secret
    from desmatch.publish.plain import Columns

    if options.rare_buckets > 1 and options.min_count == 1:
        raise UserError("--rare-buckets needs --min-count K beside it, which says what is rare")
    names = tuple(options.columns.split(",")) if options.columns is not None else ()
    request = Request(
        inputs=options.inputs,
        out=options.out,
        key=options.key,
        columns=Columns(names=names, has_header=not options.no_header),
        tokens=options.tokens,
        lowercase=options.lowercase,
        secret=read_secret(options.secret_file),
        protection=Protection(
            min_count=options.min_count,
            rare_buckets=options.rare_buckets,
            is_shuffled=options.shuffle,
        ),
        may_hold_key=options.key_in_out,
    )
    print(describe_published(anonymize(request), options.key))


def audit(options: argparse.Namespace) -> None:
    """Say how exposed numbered pairs are."""
    from desmatch.console import describe_audit
    from desmatch.publish.audit import Audit, audit
    from desmatch.report.audit import write_audit

    if options.out.is_dir():  # said before the work is done
        raise UserError(f"{options.out}: expected a file to write, got a folder; name a file in it")
    figures = audit(
        Audit(
            data=options.data,
            public_counts=options.public_counts,
            public_pairs=options.public_pairs,
            key=options.key,
            auc_rows=options.auc_rows,
            seed=options.seed,
        )
    )
    figures_path = write_audit(options.out, figures)
    print(describe_audit(figures))
    print(f"wrote {options.out} and {figures_path}")
