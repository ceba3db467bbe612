#!/usr/bin/env bash
# studies/run.sh NAME [PROCESSES] [OPTION ...]: runs what is left of the list studies/NAME.txt; --help says more.
exec python "$(dirname "$0")/study.py" run "$@"
