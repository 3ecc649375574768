"""What the terminal shows: figures as a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from desmatch.publish.anonymize import Published


def describe_data(figures: Mapping[str, Any]) -> str:
    """Return the figures of the prepared data as a table and sentences.

    Those of files that were counted alone have no graph, no drift and no warnings.
    """
    head = f"{'role':<10} {'rows':>9} {'texts':>9} {'positive':>9} {'OOV':>7} {'mean ids':>9}"
    vocabulary = figures["vocabulary"]
    lines = [
        head,
        *(_file_line(each) for each in figures["data"]),
        *_estimate_lines(figures["data"]),
        "",
        f"{vocabulary['distinct_ids']} distinct ids, {vocabulary['kept_ids']} of them frequent "
        "enough for a row of their own",
    ]
    if "graph" in figures:
        num_test = figures["data"][1]["rows"]
        lines += ["", *_graph_lines(figures["graph"], num_test=num_test)]
        lines += ["", *_drift_lines(figures["drift"])]
    elif figures["rejected_rows"]:
        lines.append(f"{figures['rejected_rows']} malformed rows were left out")
    return "\n".join([*lines, *(f"\nwarning: {each}" for each in figures.get("warnings", ()))])


def _estimate_lines(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which numbers of texts are estimates."""
    return [
        f"texts of {each['role']}: estimated from {each['share_of_texts_counted']:.3g} of them, "
        "which a hash chose; within about 0.1 %"
        for each in files
        if "share_of_texts_counted" in each
    ]


def _graph_lines(graph: Mapping[str, Any], *, num_test: int) -> list[str]:
    sizes = graph["components_by_size"]
    touched, both = graph["test_rows_with_known_query"], graph["test_rows_with_both_known"]
    examples = graph["examples"]
    return [
        f"query graph of the labelled pairs: {graph['texts']} texts, {graph['components']} "
        f"components, the largest of {graph['largest']} pairs",
        "  components by pairs: " + ", ".join(f"{size}: {sizes[size]}" for size in sizes),
        *(f"  hub: text {hub['side']} of {hub['place']}, in {hub['rows']} pairs, "
          f"{hub['positives']:.0%} positive" for hub in graph["hubs"]),
        f"repeated rows: {graph['repeated_rows']}",
        *_example_lines(examples["repeated"], "is"),
        f"rows whose pair has the other label elsewhere: {graph['contradicting_rows']}",
        *_example_lines(examples["contradicting"], "against"),
        f"further rows of label 0 whose texts others make equal: {graph['rows_against_closure']}",
        *_example_lines(examples["against_closure"], "against"),
        f"test rows with a query of the labelled pairs: {touched} of {num_test}; both texts: "
        f"{both}, one: {graph['test_rows_with_one_known']}, none: {num_test - touched}",
        f"test rows whose pair is labelled: {graph['test_rows_of_known_pair']}; whose label "
        f"follows by closure: {graph['test_rows_that_follow']}",
        *_example_lines(examples["known_in_test"], "is"),
    ]  # fmt: skip


def _example_lines(examples: list[list[str]], verb: str) -> list[str]:
    """Name rows beside others; of those in the same file the line is enough."""
    lines = []
    for first, *others in examples:
        file = first.rpartition(":")[0]
        short = [other.replace(f"{file}:", "line ", 1) for other in others]
        lines.append(f"  {first} {verb} {', '.join(short) or 'itself'}")
    return lines


def _drift_lines(drift: Mapping[str, Any]) -> list[str]:
    low, high = drift["interval"]
    return [
        f"test against labelled rows: told apart with AUC {drift['auc']:.3f} ({low:.3f} to "
        f"{high:.3f}; 0.5: not at all); weights leave {drift['effective_share']:.0%} of the rows",
        f"  {'feature':<18} {'AUC':>6} {'labelled':>10} {'test':>10} {'importance':>10}",
        *(f"  {each['name']:<18} {each['auc']:>6.3f} {each['labelled_mean']:>10.3f} "
          f"{each['test_mean']:>10.3f} {each['importance']:>10.3f}"
          for each in drift["features"]),
    ]  # fmt: skip


def _file_line(each: Mapping[str, Any]) -> str:
    positives = f"{each['positives']:.1%}" if each["positives"] is not None else "-"
    mean = f"{each['mean_length']:.1f}" if "mean_length" in each else "-"
    return (
        f"{each['role']:<10} {each['rows']:>9} {each['distinct_texts']:>9} {positives:>9} "
        f"{each['oov_share']:>7.2%} {mean:>9}"
    )


def describe_figures(name: str, figures: Mapping[str, Any]) -> str:
    """Return an AUC with its interval."""
    low, high = figures["interval"]
    return (
        f"{name}: {figures['auc']:.4f}, 95 % interval {low:.4f} to {high:.4f}, "
        f"{figures['rows']} rows"
    )


def describe_run(folder: Path, card: Mapping[str, Any]) -> str:
    """Return a finished run's figures and the paths of what it made."""
    validation = card["validation"]
    claimed = validation["headline"]
    low, high = claimed["interval"]
    held_out = {**validation, "interval": validation["validation_interval"]}
    lines = [
        f"claimed for a test of {validation['test_size']} rows: {claimed['value']:.4f}, 95 % "
        f"interval {low:.4f} to {high:.4f} ({claimed['name']}: {claimed['why']})",
        describe_figures("validation AUC", held_out),
        card["models"]["note"],
        *_standing_lines(validation),
        f"minutes: {card['minutes']:.1f}",
        *(f"warning: {warning}" for warning in card["warnings"]),
        f"submission: {folder / 'submission' / 'result.tsv'}",
        f"report: {folder / 'report.html'}",
    ]
    return "\n".join(lines)


def _standing_lines(validation: Mapping[str, Any]) -> list[str]:
    """Return an ensemble's members and what they were combined by, each against the best member."""
    return [
        f"  {each['name']}: {each['auc']:.4f}, against the best member {each['difference']:+.4f} "
        f"({each['difference_interval'][0]:+.4f} to {each['difference_interval'][1]:+.4f})"
        for each in validation.get("standings", ())
        if each["is_member"] or each["name"] == validation["combine"]
    ]


def describe_verdict(figures: Mapping[str, Any]) -> str:
    """Return how a server did under a referee, a line for each kind of failure."""
    return "\n".join([
        f"{figures['sent']} of {figures['rows']} pairs sent in {figures['seconds']:.1f} s, "
        f"{figures['pairs_per_second']:.1f} a second; {figures['failed']} failed, "
        f"{figures['not_reached']} not reached",
        f"milliseconds a pair: p50 {figures['p50_ms']:.1f}, p90 {figures['p90_ms']:.1f}, "
        f"p99 {figures['p99_ms']:.1f}, max {figures['max_ms']:.1f}; "
        f"{figures['share_over_limit']:.2%} over {figures['limit_ms']:g}",
        *(f"  failed: {each['reason']}, rows: {each['rows']}, the first: {each['first_row']}"
          for each in figures["failures"]),
    ])  # fmt: skip


def describe_published(published: Published, key: Path) -> str:
    """Return what was numbered, and what must stay at home."""
    rare = f"; {published.num_rare} rarer ones share numbers" if published.num_rare else ""
    return "\n".join([
        *(f"wrote {file.path}: {file.num_rows} rows, {'' if file.is_labelled else 'un'}labelled"
          for file in published.files),
        f"{published.num_numbers} tokens with a number of their own{rare}",
        f"key: {key}, {published.num_in_key} tokens; whoever has it reads the texts: keep it, and "
        "never publish it",
        "numbering hides words, not how often they come: `desmatch audit` measures what shows",
    ])  # fmt: skip


def describe_audit(figures: Mapping[str, Any]) -> str:
    """Return how exposed numbered pairs are: shares and counts, never a token."""
    data, attack, found = (figures[name] for name in ("data", "attack", "neighbours"))
    lines = [f"{data['rows']} rows, {data['distinct_texts']} distinct texts, "
             f"{data['distinct_ids']} distinct ids"]  # fmt: skip
    if attack is None:
        lines.append(figures["attack_note"])
    else:
        rho = "-" if attack["spearman"] is None else f"{attack['spearman']:.3f}"
        lines.append(f"placed right by rank: {attack['ids']:.2%} of the ids, "
                     f"{attack['occurrences']:.2%} of the occurrences; "
                     f"rank correlation {rho}")  # fmt: skip
    if found is not None:
        lines.append(
            f"placed right by neighbours: {found['by_neighbours']['ids']:.2%} of the "
            f"{found['top']} most frequent ids, {found['by_neighbours']['occurrences']:.2%} of "
            f"their occurrences (by rank {found['by_rank']['occurrences']:.2%})"
        )
    lines.append(f"{'seen in':<8} {'1 row':>9} {'2 rows':>9} {'below 5':>9} {'below 10':>9} "
                 f"{'distinct':>9}")  # fmt: skip
    lines += [f"{each['kind']:<8} {each['in_1']:>9} {each['in_2']:>9} {each['below_5']:>9} "
              f"{each['below_10']:>9} {each['distinct']:>9}"
              for each in figures["crowd"]]  # fmt: skip
    head = f"{'treatment':<34} {'ids':>8} {'lone rows':>9} {'lone texts':>10} {'placed':>7}"
    lines.append(f"{head} {'AUC':>7} {'difference':>10}")
    return "\n".join([*lines, *map(_treatment_line, figures["treatments"])])


def _treatment_line(line: Mapping[str, Any]) -> str:
    placed = "-" if line["placed"] is None else f"{line['placed']['occurrences']:.2%}"
    auc, difference = "-", "-"
    if line.get("auc") is not None:
        auc, difference = f"{line['auc']:.4f}", f"{line['difference']:+.4f}"
    return (
        f"{line['name']:<34} {line['distinct_ids']:>8} {line['rows_with_lone_id']:>9} "
        f"{line['lone_texts']:>10} {placed:>7} {auc:>7} {difference:>10}"
    )


def describe_runs(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of runs, a line each."""
    width, recipe_width = (
        max(len(key), *(len(each[key]) for each in entries)) for key in ("name", "recipe")
    )
    head = (
        f"{'run':<{width}} {'recipe':<{recipe_width}} {'seed':>4} {'AUC':>7} "
        f"{'95 % interval':<16} {'figure':<17} {'minutes':>7} {'revision':<15} state"
    )
    return "\n".join([head, *(_run_line(each, width, recipe_width) for each in entries)])


def _run_line(each: Mapping[str, Any], width: int, recipe_width: int) -> str:
    auc, interval = "-", "-"
    if each["auc"] is not None:
        low, high = each["interval"]
        auc, interval = f"{each['auc']:.4f}", f"{low:.4f} to {high:.4f}"
    return (
        f"{each['name']:<{width}} {each['recipe']:<{recipe_width}} {each['seed']:>4} {auc:>7} "
        f"{interval:<16} {each['figure'] or '-':<17} {each['minutes']:>7.1f} "
        f"{each['revision'] or '-':<15} {each['state']}"
    )


def describe_comparison(comparison: Mapping[str, Any]) -> str:
    """Return each run's difference from the first, a line each."""
    lines = [
        f"{each['second']} against {each['first']}: {each['difference']:+.4f} AUC, 95 % interval "
        f"{each['interval'][0]:+.4f} to {each['interval'][1]:+.4f}, better with a chance of "
        f"{each['chance_second_is_better']:.0%} ({each['rows']} rows)"
        for each in comparison["paired"]
    ]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in comparison["warnings"])])


def describe_tuning(folder: Path, figures: Mapping[str, Any]) -> str:
    """Return what came out of a search, and where it lies."""
    counts, best = figures["counts"], figures["best"]
    spent = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = [f"trials: {spent or 'none'}; {figures['minutes']:.1f} minutes"]
    if best is not None:
        gain = best["against_own"]
        against = "" if gain is None else f", {gain:+.4f} against the recipe's own values"
        lines += [
            f"best AUC: {best['auc']:.4f}, trial {best['number']}{against}",
            *(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}"
              for key, value in best["values"].items()),
            f"  (the greatest of {counts['finished']} on the same rows, so it flatters: confirm it "
            f"with --recipe {folder / 'best.yaml'} --validation.split_seed 1)",
        ]  # fmt: skip
    shares = figures["importance"]["shares"] or {}
    told = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
    lines.append(f"importance: {told or figures['importance']['note']}")
    return "\n".join([*lines, f"report: {folder / 'report.html'}"])


def describe_export(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Return what was exported, and how far it is from the run."""
    lines = [f"wrote {folder}, {manifest['precision']}; serve it with `desmatch serve {folder}`"]
    for name, parity in manifest["parity"].items():
        lines.append(
            f"  {name}: on {parity['rows']} held-out rows probabilities differ by "
            f"{parity['largest_difference_of_probability']:.2g} at most, AUC "
            f"{parity['roc_auc']:.4f} ({parity['difference_of_roc_auc']:+.5f})"
        )
    if manifest["rows"] is not None:
        lines.append(
            f"  with {manifest['rows']} labelled pairs, which anybody who may ask it can see"
        )
    if manifest["closure"]:
        lines.append("  what follows from labelled pairs is not part of it: pairs stand alone")
    return "\n".join(lines)


def describe_diagnosis(figures: Mapping[str, Any]) -> str:
    """Return what training did, layer by layer, as two tables."""
    names = (figures["start"], figures["end"])
    head = f"{'norm':<26} {names[0]:>14} {names[1]:>14}"
    lines = [f"mean |scale| of each norm\n{head}"]
    lines += [f"{each['name']:<26} {_number(each['start']):>14} {_number(each['end']):>14}"
              for each in figures["norms"]]  # fmt: skip
    lines.append(f"last scale over the median of the others: {figures['last_scale_ratio']:.3f}")
    lines.append(
        f"\ngradient norm, mean of {figures['batches']} joint batches, and update over size\n"
        f"{'part':<26} {names[0]:>14} {names[1]:>14} {'update':>9}"
    )
    lines += [f"{each['name']:<26} {_number(each['gradient_start']):>14} "
              f"{_number(each['gradient_end']):>14} {_number(each['update']):>9}"
              for each in figures["parts"]]  # fmt: skip
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
