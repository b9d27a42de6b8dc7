#!/bin/sh
# Makes .venv with the locked dependencies. Needs Python 3.11 or later, or uv; with uv on PATH it takes uv's word for both.
# Quiet and quick when there is nothing to do.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $1"
    say "hint: $2"
    exit 1
}

# What uv makes of pyproject.toml and uv.lock depends on these two files alone; their digest marks a finished set-up.
wanted=$(cat pyproject.toml uv.lock | cksum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/.crewship-setup 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

find_python() {
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

make_venv() {
    python=$(find_python) || die "no Python 3.11 or later on PATH" "install one, or uv (https://docs.astral.sh/uv)"
    # Debian and Ubuntu keep ensurepip in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "Installing $package"
            export DEBIAN_FRONTEND=noninteractive
            apt-get install -y -q "$package" >/dev/null 2>&1 \
                || { apt-get update -q >/dev/null 2>&1 || true; apt-get install -y -q "$package" >&2; } \
                || die "$package could not be installed" "install it by hand: apt-get install $package"
        else
            die "$python has no venv module" "install it: sudo apt-get install $package (or install uv)"
        fi
    fi
    "$python" -m venv .venv
    # The locked version, whose hash pip checks; uv then checks those of everything else.
    .venv/bin/python scripts/locked.py uv > .venv/.uv-requirement
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/.uv-requirement
}

started=$(date +%s)
say "Installing the locked dependencies into .venv ..."
rm -f .venv/.crewship-setup
if uv --version >/dev/null 2>&1; then
    uv sync --frozen --quiet
else
    [ -x .venv/bin/uv ] || make_venv
    .venv/bin/uv sync --frozen --quiet
fi
printf '%s' "$wanted" > .venv/.crewship-setup
say "✓ Dependencies ($(($(date +%s) - started)) s)"
