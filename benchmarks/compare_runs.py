"""Whether a second run ranks the held-out rows better than a first: paired, with an interval.

    python benchmarks/compare_runs.py FIRST SECOND [--quick]

Compared are the rows that both runs hold out. The 95 % interval of the difference is a bootstrap
that draws the same components for both runs; DeLong's test takes rows for independent. The last
line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from desmatch.compare import compare_runs
from desmatch.errors import UserError


def main() -> int:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, metavar="FIRST")
    parser.add_argument("second", type=Path, metavar="SECOND")
    parser.add_argument("--quick", action="store_true", help="200 bootstrap samples, not 2,000")
    options = parser.parse_args()
    num_samples = 200 if options.quick else 2000
    try:
        figures = compare_runs(options.first, options.second, num_samples=num_samples)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in figures["warnings"]:
        print(warning, file=sys.stderr)
    delong = figures["delong"]
    print(f"{'figure':<28}{'value':>9}  95 % interval")
    print(f"{'rows':<28}{figures['rows']:>9}")
    print(f"{'AUC of the first':<28}{figures['auc_first']:>9.4f}")
    print(f"{'AUC of the second':<28}{figures['auc_second']:>9.4f}")
    for name, found in (("second less first", figures), ("the same by DeLong", delong)):
        low, high = found["interval"]
        print(f"{name:<28}{found['difference']:>+9.4f}  {low:+.4f} to {high:+.4f}")
    print(f"{'p of no difference (DeLong)':<28}{delong['p_value']:>9.4f}")
    print(f"{'chance that second is better':<28}{figures['chance_second_is_better']:>9.3f}")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
