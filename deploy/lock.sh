#!/bin/sh
# Writes the constraints file anew: the newest versions that pyproject.toml allows, as one resolver run found them.
#   sh deploy/lock.sh PYTHON FILE       (`make lock` calls it; run the tests before committing the result)
set -eu
python=$1
file=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet hatchling editables '.[dev]'
# Old versions of pip list setuptools and themselves only when asked; no line may name an index or a path.
"$work/venv/bin/python" -m pip freeze | grep -v -e ' @ ' -e '^understudy==' -e '^-e ' >"$work/pins"
{ grep '^#' "$file"; cat "$work/pins"; } >"$work/file"
cp "$work/file" "$file"
