"""Entry point of run.sh: check the installation, then run the study."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from errors import UserError
from main import REQUIRED, check_packages
from running.streams import flush_streams, open_streams


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        check_packages(REQUIRED)
    except UserError as error:
        sys.exit(f"studies/run.sh: error: {error}")
    from studies import study  # imports some of them

    return study.main(sys.argv[1:])


if __name__ == "__main__":
    open_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = main()
    flush_streams()
    sys.exit(code)
