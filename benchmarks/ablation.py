"""What each technique is worth on top of a small reference recipe, and in the best set of them.

    make ablation OPTIONS="--data DIR --init CHECKPOINT --reference-counts counts.json"
    python benchmarks/ablation.py --data DIR [--only NAME ...] [--rows N] [--minutes N] [--quick]

The reference is a stage of masked tokens and one of labels, about five minutes of one core on
60,000 pairs of 16 tokens. Every technique is a run of its own that differs from it in a value or
two, on the same fold, once for each seed; stages that a technique does not touch are those of the
reference, taken over. Gains are of the AUC of the held-out rows (honest scores), paired, the mean
over seeds.

Finished runs are kept in --out and used again: the same command goes on where it was stopped, and
two processes may share the work with different --seeds. --table writes benchmarks/ablation.md of
what is there. The last line has the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation_gain import Scores, table_of, to_markdown
from ablation_techniques import QUICK, REFERENCE, TECHNIQUES, Technique, best_set

from desmatch.data.sample import write_sample
from desmatch.intake import find_sources
from desmatch.pipeline import execute_fold
from desmatch.predict import score_held_out
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.runs import atomic_write, read_json, write_json, write_text
from desmatch.stages import Run, read_stage_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

SCORES = "held_out.parquet"
MINUTES = "minutes.json"
PLUS = "+"
"""Between the names of techniques that are used together."""

MARKDOWN = Path(__file__).with_name("ablation.md")


class Study:
    """The runs of an ablation in one folder, OUT/NAME/seed-S.

    Args:
        data: Folder of contest files.
        words: Options of all runs.
        out: OUT.
        deadline: Seconds of `time.monotonic` after which no run is begun.
    """

    def __init__(self, data: Path, words: Sequence[str], out: Path, deadline: float) -> None:
        self.sources = find_sources(data)
        self.words, self.out, self.deadline = tuple(words), out, deadline

    def folder(self, name: str, seed: int) -> Path:
        """Return where a run lies."""
        return self.out / name / f"seed-{seed}"

    def do(self, name: str, technique: Technique, seed: int) -> bool:
        """Train and score a run, if it is not there and there is time; return whether it is."""
        folder = self.folder(name, seed)
        if (folder / SCORES).is_file():
            return True
        if time.monotonic() > self.deadline:
            return False
        print(f"{name}, seed {seed}", flush=True)
        words = [*self.words, *REFERENCE.options, *technique.options,
                 f"--seed={seed}", "--validation.split_seed=0"]  # fmt: skip
        run = Run(
            folder,
            load_recipe(recipe_path("baseline"), words),
            self.sources,
            may_resume=True,
            donors=tuple(path for path in self.out.glob(f"*/seed-{seed}") if path != folder),
        )
        model = execute_fold(run, 0)
        scored = score_held_out(run.prepared, run.recipe, 0, model)
        names = ("row", "label", "group", "honest_score")
        write_json(folder / MINUTES, self._minutes(run))
        with atomic_write(folder / SCORES) as partial:
            pq.write_table(pa.table({each: scored[each] for each in names}), partial)
        return True

    def _minutes(self, run: Run) -> float:
        """Return the minutes of a run's training, those of stages taken over among them."""
        total = 0.0
        for stage, entry in read_stage_log(run.folder).items():
            made = [entry, *(read_stage_log(donor).get(stage, {}) for donor in run.donors)]
            own = [each["minutes"] for each in made if each and not each.get("is_taken_over")]
            total += float(own[0]) if own else 0.0
        return total

    def scores(self, name: str) -> Scores:
        """Return what the finished runs of a technique say, by seed."""
        found = {}
        for path in sorted((self.out / name).glob(f"seed-*/{SCORES}")):
            table = pq.read_table(path)
            columns = {each: table[each].to_numpy() for each in table.column_names}
            seed = int(path.parent.name.removeprefix("seed-"))
            found[seed] = (columns, float(read_json(path.with_name(MINUTES))))
        return found


def run_study(study: Study, chosen: Mapping[str, Technique], seeds: Sequence[int]) -> None:
    """Do the reference and the techniques seed by seed, then the best set and it less each."""
    for seed in seeds:
        for name, technique in {"reference": REFERENCE, **chosen}.items():
            if not study.do(name, technique, seed):
                print("the time is over; give the command again to go on", flush=True)
                return
    together = helping_set(alone_table(study))
    for names in (together, *less_each(together).values()):
        for seed in seeds:
            if len(names) > 1:  # one alone is done already
                study.do(PLUS.join(names), join(names), seed)


def alone_table(study: Study) -> list[dict[str, Any]]:
    """Return a line for each technique alone, against the reference."""
    return table_of({name: study.scores(name) for name in ("reference", *TECHNIQUES)})


def helping_set(alone: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the techniques that help and can go together."""
    return best_set([line["name"] for line in alone if line["verdict"] == "helps"])


def less_each(together: Sequence[str]) -> dict[str, list[str]]:
    """Return what is left of a set without each of its techniques, by the one left out."""
    return {name: [each for each in together if each != name] for name in together}


def join(names: Sequence[str]) -> Technique:
    """Return several techniques as one."""
    return Technique(" + ".join(names), tuple(o for n in names for o in TECHNIQUES[n].options))


def figures(study: Study) -> dict[str, Any]:
    """Return the tables: each technique alone, all sets that were run, and the best less each."""
    alone = alone_table(study)
    sets = sorted(path.name for path in study.out.glob(f"*{PLUS}*"))
    together = helping_set(alone)
    left = {f"without {name}": rest for name, rest in less_each(together).items()}
    best = PLUS.join(together)
    of_best = {best: study.scores(best)} if best in sets else {}
    of_best |= {name: study.scores(PLUS.join(rest)) for name, rest in left.items() if of_best}
    return {
        "alone": alone,
        "together": table_of({name: study.scores(name) for name in ("reference", *sets)})
        if sets
        else [],
        "less_each": table_of(of_best, reference=best),
    }


def main() -> None:
    """Run what is missing and show what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of contest files; none: the toy language")
    parser.add_argument("--init", help="checkpoint that all runs start from")
    parser.add_argument("--reference-counts", help="counts that align it")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablation"), help="folder of the runs"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run for each")
    parser.add_argument("--only", nargs="+", choices=TECHNIQUES, help="these techniques alone")
    parser.add_argument("--rows", type=int, help="this many techniques, in the order of the table")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after them")
    parser.add_argument("--table", action="store_true", help="train nothing, write ablation.md")
    parser.add_argument("--quick", action="store_true", help="a minute: tiny runs, two techniques")
    options = parser.parse_args()
    words = [
        *(f"--model.init={options.init}" for _ in range(options.init is not None)),
        *(f"--model.reference_counts={options.reference_counts}"
          for _ in range(options.reference_counts is not None)),
    ]  # fmt: skip
    chosen = {name: TECHNIQUES[name] for name in (options.only or [*TECHNIQUES])[: options.rows]}
    with tempfile.TemporaryDirectory() as scratch:
        data, out = options.data, options.out
        if options.quick or data is None:
            data = Path(scratch) / "data"
            write_sample(data, seed=0, num_train=600, num_test=60, num_unlabeled=200)
        if options.quick:
            words, out, options.seeds = [*QUICK], Path(scratch) / "runs", [0, 1]
            chosen = {name: TECHNIQUES[name] for name in ("mask-30", "fgm")}
        study = Study(data, words, out, time.monotonic() + 60 * options.minutes)
        if not options.table:
            run_study(study, chosen, options.seeds)
        found = figures(study)
    text = to_markdown(found)
    if options.table:
        write_text(MARKDOWN, text)
    print(text)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
