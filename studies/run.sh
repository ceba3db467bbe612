#!/usr/bin/env bash
# studies/run.sh NAME [PROCESSES] [OPTION ...]: runs what is left of the list studies/NAME.txt; --help says more.

script=$0
[ -e "$script" ] || script=$(command -v -- "$script") # as bash has found it on the PATH
while [ -L "$script" ]; do # called through a link; not every readlink has -f
    link=$(readlink "$script")
    case $link in
    /*) script=$link ;;
    *) script=$(dirname "$script")/$link ;;
    esac
done

PYTHON=${PYTHON:-$(command -v python || echo python3)}

# Become Python: PYTHON is a path, or a command with options.
start() {
    if [ -x "$PYTHON" ]; then exec "$PYTHON" "$@"; fi
    eval "exec $PYTHON \"\$@\""
}

if ! (start -c 'import sys; sys.exit(sys.version_info < (3, 10))') 2>/dev/null; then
    echo "studies/run.sh: error: '$PYTHON' does not start Python 3.10 or newer: activate the environment" \
        "(. .venv/bin/activate), or set PYTHON" >&2
    exit 1
fi
start "$(dirname "$script")" "$@" # its __main__.py
