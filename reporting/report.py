"""Entry point of --report: compare the runs under a directory."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from errors import UserError
from options import Option
from reporting.comparisons import Section
from reporting.histories import find_runs, studies
from reporting.missing import SCRIPT, Script
from reporting.rows import comma_separated, comparison_rows, run_rows
from reporting.text import report_text
from running.streams import print_message, print_result
from storage.files import remove, replacing

PRINTED, ROWS, COMPARISONS, FIGURE = "report.txt", "report.csv", "comparisons.csv", "report.png"


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> None:
    """Compare runs, write the report to their directory, and print it.

    Raises:
        UserError: there is nothing to report on, or a file cannot be written; the text is printed first.
    """
    runs, left_out = find_runs(directory, table)
    sections = [Section(study, table) for study in studies(runs)]
    script = Script(sections, table)
    text = report_text(sections, script.unanswered, left_out, verbose)
    if not runs:
        print_result(text)
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    files = {
        PRINTED: f"{text}\n".encode(errors="backslashreplace"),
        ROWS: comma_separated(run_rows([section.study for section in sections])),
        COMPARISONS: comma_separated(comparison_rows(sections)),
        SCRIPT: script.text().encode(errors="surrogateescape"),
    }
    try:
        why_no_figure = _write(directory, files, sections)
    except UserError:
        print_result(text)
        raise
    print_result(text)
    names = [name for name, content in files.items() if content] + [FIGURE] * (not why_no_figure)
    print_message(f"saved {', '.join(names)} in {directory}{why_no_figure}")


def _write(directory: Path, files: dict[str, bytes], sections: Sequence[Section]) -> str:
    """Write the files and the figure.

    Returns:
        Why there is no figure, empty where there is one.

    Raises:
        UserError: a file cannot be written.
    """
    for name, content in files.items():
        if content:
            with replacing(directory / name) as file:
                file.write(content)
        else:
            remove(directory / name)  # an old one would train runs that are not missing
    figure, why_not = _draw(sections)
    if figure is None:
        remove(directory / FIGURE)  # an old one would show other runs
    else:
        with replacing(directory / FIGURE) as file:
            file.write(figure)
    return why_not


def _draw(sections: Sequence[Section]) -> tuple[bytes | None, str]:
    """Draw the figure.

    Returns:
        the PNG, or None; why there is none, if matplotlib is missing or fails.
    """
    try:
        with redirect_stderr(io.StringIO()):  # matplotlib reports on its caches and settings
            from reporting import figure

            return figure.draw(sections), ""
    except Exception as error:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "matplotlib":
            return None, "; the figure needs matplotlib: pip install matplotlib"
        return None, f"; the figure cannot be drawn ({error!r})"
