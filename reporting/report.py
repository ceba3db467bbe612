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
from reporting.page import page
from reporting.rows import comma_separated, comparison_rows, run_rows
from reporting.screen import screen
from reporting.tuned import add_tuned
from reporting.words import Names
from running.streams import print_message, print_result
from storage.files import remove, replacing

PAGE, ROWS, COMPARISONS, FIGURE = "report.md", "report.csv", "comparisons.csv", "report.png"


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> None:
    """Compare runs, write the report to their directory, and print what a person reads first.

    Args:
        directory: where the histories are, at any depth.
        verbose: whether to print all of report.md instead.
        table: all options.

    Raises:
        UserError: there is nothing to report on, or a file cannot be written; the report is printed first.
    """
    runs, left_out = find_runs(directory, table)
    sections = [Section(study, table) for study in studies(runs)]
    families = add_tuned(sections)
    names = Names(sections, table)
    script = Script(sections, families, table)
    parts = (sections, names, script.unanswered, families, left_out)
    if not runs:
        print_result(screen(*parts, rest=""))
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    text = page(*parts)
    files = {
        PAGE: f"{text}\n".encode(errors="backslashreplace"),
        ROWS: comma_separated(run_rows([section.study for section in sections])),
        COMPARISONS: comma_separated(comparison_rows(sections, names, table)),
        SCRIPT: script.text().encode(errors="surrogateescape"),
    }
    printed = text if verbose else screen(*parts, rest=_rest(directory, files))
    try:
        why_no_figure = _write(directory, files, sections, names)
    except UserError:
        print_result(printed)
        raise
    print_result(printed)
    written = [name for name, content in files.items() if content] + [FIGURE] * (not why_no_figure)
    print_message(f"saved {', '.join(written)} in {directory}{why_no_figure}")


def _rest(directory: Path, files: dict[str, bytes]) -> str:
    """Where the rest of a report is, in words."""
    said = f"In {directory}: {PAGE} has every number, every task and what the words mean; {COMPARISONS} and "
    said += f"{ROWS} are for programs"
    return said + (f"; bash {SCRIPT} trains what lacks runs." if files[SCRIPT] else ".")


def _write(directory: Path, files: dict[str, bytes], sections: Sequence[Section], names: Names) -> str:
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
    figure, why_not = _draw(sections, names)
    if figure is None:
        remove(directory / FIGURE)  # an old one would show other runs
    else:
        with replacing(directory / FIGURE) as file:
            file.write(figure)
    return why_not


def _draw(sections: Sequence[Section], names: Names) -> tuple[bytes | None, str]:
    """Draw the figure.

    Returns:
        the PNG, or None; why there is none, if matplotlib is missing or fails.
    """
    try:
        with redirect_stderr(io.StringIO()):  # matplotlib reports on its caches and settings
            from reporting import figure

            return figure.draw(sections, names), ""
    except Exception as error:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "matplotlib":
            return None, "; the figure needs matplotlib: pip install matplotlib"
        return None, f"; the figure cannot be drawn ({error!r})"
