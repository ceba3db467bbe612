"""A report: what the runs under a directory say together, written and printed."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from errors import UserError
from options import Option
from reporting.comparisons import Section
from reporting.histories import find_runs, studies
from reporting.rows import comma_separated, comparison_rows, run_rows
from reporting.text import written
from running.streams import give, say
from storage.files import remove, replacing

PRINTED, ROWS, COMPARISONS, FIGURE = "report.txt", "report.csv", "comparisons.csv", "report.png"


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> None:
    """Compare the runs under a directory, in files there, with a figure if it can be drawn, and in print.

    Raises:
        UserError: there is nothing to report on, or a file cannot be written; it was printed all the same.
    """
    runs, left_out = find_runs(directory, table)
    sections = [Section(study) for study in studies(runs)]
    text = written(sections, left_out, directory, table, verbose)
    if not runs:
        give(text)
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    files = {
        PRINTED: f"{text}\n".encode(errors="backslashreplace"),
        ROWS: comma_separated(run_rows([section.study for section in sections])),
        COMPARISONS: comma_separated(comparison_rows(sections)),
    }
    try:
        why_no_figure = _write(directory, files, sections)
    except UserError:
        give(text)
        raise
    give(text)
    names = [*files] if why_no_figure else [*files, FIGURE]
    say(f"saved {', '.join(names)} in {directory}{why_no_figure}")


def _write(directory: Path, files: dict[str, bytes], sections: Sequence[Section]) -> str:
    """Write the files and the figure; returns why there is no figure, if there is none.

    Raises:
        UserError: one cannot be written.
    """
    for name, content in files.items():
        with replacing(directory / name) as file:
            file.write(content)
    figure, why_not = _draw(sections)
    if figure is None:
        remove(directory / FIGURE)  # an older one would show something else
    else:
        with replacing(directory / FIGURE) as file:
            file.write(figure)
    return why_not


def _draw(sections: Sequence[Section]) -> tuple[bytes | None, str]:
    """The figure, or why there is none: whatever is wrong with matplotlib costs the figure alone."""
    try:
        with redirect_stderr(io.StringIO()):  # it tells of its caches and settings
            from reporting import figure

            return figure.draw(sections), ""
    except Exception as error:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "matplotlib":
            return None, "; the figure needs matplotlib: pip install matplotlib"
        return None, f"; the figure cannot be drawn ({error!r})"
