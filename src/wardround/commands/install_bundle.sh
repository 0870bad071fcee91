#!/bin/sh
# Installs wardround @version@ (@what@) from this folder alone, into a new virtual environment:
#   sh install.sh NEW-FOLDER
# It needs Python @python@ with venv, under @system@; PYTHON names another interpreter.
set -eu
target=${1:?say into which new folder: sh install.sh NEW-FOLDER}
python=${PYTHON:-python@python@}
case $target in /*) ;; *) target=$PWD/$target ;; esac
cd "$(dirname "$0")"
stop() { echo "wardround was not installed: $*" >&2; exit 2; }

test ! -e "$target" || stop "$target exists already. Name a new folder."
"$python" -c 'import venv, ensurepip' 2>/dev/null || stop \
  "'$python' is not there, or has no venv. Install Python @python@ with venv, or say PYTHON=/PATH/TO/IT."
here=$("$python" -c 'import platform, sys; v = sys.version_info
print(f"{v.major}.{v.minor}", platform.system(), platform.machine())')
test "$here" = "@python@ @system@" || stop \
  "this bundle is for Python @python@ @system@, and '$python' is $here. Make one with such a machine."

# The bundle is whole, and nothing in it was changed since it was made.
test -f SHA256SUMS || stop "the bundle is incomplete, SHA256SUMS is missing. Copy the folder anew."
echo "SHA256SUMS is $(sha256sum SHA256SUMS | cut -d' ' -f1)"
echo "It must be the digest that 'wardround bundle-wheels' printed."
while read -r digest name; do
  test -f "$name" || stop "the bundle is incomplete, $name is missing. Copy the folder anew."
  echo "$digest  $name" | sha256sum --check --status || stop \
    "$name was changed or damaged. Copy the folder anew, and compare the digest above."
done < SHA256SUMS
test "$(ls wheels | wc -l)" -eq @count@ || stop \
  "wheels/ holds a file that does not belong to it. Copy the folder anew."

"$python" -m venv "$target"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_CONFIG_FILE=/dev/null
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CONSTRAINT 2>/dev/null || true
"$target/bin/pip" install --quiet --no-index --find-links wheels --require-hashes --no-deps \
  --only-binary :all: -r requirements.txt || { rm -rf "$target"; stop "pip refused, as said above."; }
"$target/bin/pip" check || stop "the packages above do not fit. $target is left for you to look at."
"$target/bin/wardround" --version
echo "installed in $target"
