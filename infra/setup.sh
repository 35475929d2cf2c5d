#!/bin/sh
# Makes .venv with every dependency of requirements.lock and the project itself (editable).
# Called by the Makefile, which names the stamp in READY; it is written at the end, so that an
# interrupted set-up begins again. Package indexes named by UV_*, PIP_* or pip's files are used.
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() { say "set-up: $*"; exit 1; }

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
set -- python3 python3.14 python3.13 python3.12 python3.11
[ -z "${PYTHON:-}" ] || set -- "$PYTHON"
for python in "$@"; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -c "$new_enough" 2>/dev/null; then
        found=$python
        break
    fi
done
[ -n "${found:-}" ] || fail "Python 3.11 or newer is needed${PYTHON:+ and $PYTHON is not}:" \
    "install it (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3"
"$found" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python's venv is missing: install it (Debian, Ubuntu: apt install python3-venv)."

# Without its stamp the folder is of an interrupted set-up or of another place.
if [ ! -f "$READY" ] || ! .venv/bin/python -c "$new_enough" 2>/dev/null; then
    say "set-up 1/3: Python environment in .venv ($("$found" --version 2>&1))"
    rm -f .venv/.ready-*
    "$found" -m venv --clear .venv
fi

# The stamp is older than its inputs or absent: absent while we work.
rm -f "$READY"
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }
# `pip config get` does not find what only the machine's file says; `list` does.
setting() { pip config list 2>/dev/null | sed -n "s/^global\\.$1='\\(.*\\)'\$/\\1/p" | sed 's/\\n/ /g'; }

say "set-up 2/3: dependencies (some 100 packages, a minute on a slow line)"
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
trap 'exit 130' INT TERM
# uv does not read pip's settings: hand them on where uv has none of its own.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$(setting index-url)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi
if [ -z "${UV_INDEX:-}${UV_EXTRA_INDEX_URL:-}" ]; then
    index=${PIP_EXTRA_INDEX_URL:-$(setting extra-index-url)}
    [ -z "$index" ] || export UV_INDEX="$index"
fi
if [ -z "${UV_FIND_LINKS:-}" ]; then
    links=${PIP_FIND_LINKS:-$(setting find-links)}
    [ -z "$links" ] || export UV_FIND_LINKS="$(printf '%s' "$links" | tr -s ' \n' ',')"
fi
if [ -z "${SSL_CERT_FILE:-}" ]; then
    certificates=${PIP_CERT:-$(setting cert)}
    [ -z "$certificates" ] || export SSL_CERT_FILE="$certificates"
fi
# Several indexes may hold the same name; the lock says which version is meant.
export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
uv() { .venv/bin/uv "$@" --python .venv/bin/python --quiet; }

if pip install --quiet uv >"$lines" 2>&1 && uv pip install -r requirements.lock >>"$lines" 2>&1; then
    editable() { uv pip install --no-deps --editable .; }
else
    say "            uv could not do it ($(tail -n 1 "$lines")); trying pip, which is slower"
    pip install --quiet -r requirements.lock >>"$lines" 2>&1 || {
        cat "$lines" >&2
        fail "the dependencies could not be installed, see above; is the package index reachable?"
    }
    editable() { pip install --quiet --no-deps --editable .; }
fi

say "set-up 3/3: this project"
editable >"$lines" 2>&1 || { cat "$lines" >&2; fail "the project could not be installed, see above."; }
touch "$READY"
