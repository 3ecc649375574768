"""What an experiment prints: figures beside the expected ones, then all of them as JSON."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from desmatch.train.machine import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class Line:
    """A figure."""

    figure: str
    """What was measured."""
    measured: float | Sequence[float]
    """It, or its values over seeds; the table shows their mean and standard deviation."""
    unit: str = "ratio"
    """What it is counted in."""
    expected: float | None = None
    """What theory or the article's check says; none where neither names a number."""
    at_least: float = -math.inf
    """The least value that is accepted."""
    at_most: float = math.inf
    """The greatest value that is accepted."""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.measured))

    @property
    def is_accepted(self) -> bool | None:
        """Whether the mean keeps its bounds; none where there is no bound."""
        if math.isinf(self.at_least) and math.isinf(self.at_most):
            return None
        return self.at_least <= self.mean <= self.at_most

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        low, high = self.at_least, self.at_most
        if self.is_accepted is None:
            return "-"
        if math.isinf(high):
            return f">= {low:.3g}"
        return f"<= {high:.3g}" if math.isinf(low) else f"{low:.3g} to {high:.3g}"

    def __str__(self) -> str:
        """The line of a table."""
        measured = f"{self.mean:.4g}"
        if not isinstance(self.measured, float) and len(self.measured) > 1:
            measured += f" ± {np.std(self.measured, ddof=1):.2g}"
        expected = "-" if self.expected is None else f"{self.expected:.4g}"
        verdict = {None: "", True: "yes", False: "NO"}[self.is_accepted]
        return (
            f"{self.figure:<{FIGURE_WIDTH}}{self.unit:<10}{expected:>9}{measured:>18}"
            f"{self.bounds:>17}{verdict:>9}"
        ).rstrip()

    def to_json(self) -> dict[str, Any]:
        """Return the line as a dict; a value that is not finite becomes none."""
        several = [self.measured] if isinstance(self.measured, float) else list(self.measured)
        finite = [float(f"{each:.6g}") if math.isfinite(each) else None for each in several]
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return {
            "figure": self.figure,
            "unit": self.unit,
            "expected": self.expected,
            "measured": finite[0] if len(finite) == 1 else finite,
            **{name: value for name, value in bounds.items() if math.isfinite(value)},
            "is_accepted": self.is_accepted,
        }


FIGURE_WIDTH = 62


@dataclass(frozen=True)
class Table:
    """Lines of one question, and what a reader should know of them."""

    lines: Sequence[Line]
    note: str = ""

    def show(self, title: str) -> None:
        """Print the table."""
        print(f"\n{title}")
        print(f"{'figure':<{FIGURE_WIDTH}}{'unit':<10}{'expected':>9}{'measured':>18}"
              f"{'accepted':>17}{'is it':>9}")  # fmt: skip
        for line in self.lines:
            print(line)
        if self.note:
            print(f"note: {self.note}", flush=True)


def run_experiments(description: str, tables: Mapping[str, Callable[[bool], Table]]) -> None:
    """Read the command line, print every table as it is done, and a last line of JSON.

    Args:
        description: Of the script.
        tables: Title to a function that measures; its argument says whether to be quick.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute at most: fewer seeds, sizes and steps"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    figures: dict[str, Any] = {"is_quick": options.quick}
    for title, measure in tables.items():
        started = time.process_time()
        table = measure(options.quick)
        table.show(title)
        lines = [line.to_json() for line in table.lines]
        figures[title] = {"lines": lines, "seconds": round(time.process_time() - started, 1)}
    print(f"\nprocessor time: {time.process_time():.0f} s, one thread")
    print(json.dumps(figures, allow_nan=False))
