"""A report: what the runs under a directory say together, printed and written."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from files import replacing
from options import Option
from reporting.comparisons import Section
from reporting.histories import find_runs, studies
from reporting.rows import comma_separated, comparison_rows, run_rows
from reporting.text import written
from settings import UserError

PRINTED, ROWS, COMPARISONS, FIGURE = "report.txt", "report.csv", "comparisons.csv", "report.png"


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> None:
    """Compare the runs under a directory, in print, in files there and, if matplotlib is there, in a figure.

    Raises:
        UserError: there is nothing to report on, or a file cannot be written.
    """
    runs, left_out = find_runs(directory, table)
    sections = [Section(study) for study in studies(runs)]
    text = written(sections, left_out, directory, table, verbose)
    print(text)
    sys.stdout.flush()
    if not runs:
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    files = {
        PRINTED: f"{text}\n".encode(errors="backslashreplace"),
        ROWS: comma_separated(run_rows([section.study for section in sections])),
        COMPARISONS: comma_separated(comparison_rows(sections)),
    }
    for name, content in files.items():
        with replacing(directory / name) as file:
            file.write(content)
    try:
        from reporting import figure
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        (directory / FIGURE).unlink(missing_ok=True)  # an older one would show something else
        hint = "; the figure needs matplotlib: pip install matplotlib"
    else:
        figure.draw(sections, directory / FIGURE)
        files[FIGURE], hint = b"", ""
    with suppress(OSError):
        print(f"saved {', '.join(files)} in {directory}{hint}", file=sys.stderr)
