# Sourced by the commands in this folder: reading the flags that they pass on to hvae_tpu.main.
# shellcheck shell=bash disable=SC2154  # $python is made by environment.sh

# Prints the value of flag --$1 among the arguments $2..., the last one if it is repeated.
flag() {
  local name=$1 value=''
  shift
  while (($#)); do
    case $1 in
      "--$name="* | "-$name="*) value=${1#*=} ;;
      "--$name" | "-$name") value=${2:-} ;;
    esac
    shift
  done
  echo "$value"
}

# Prints the default of --workdir, runs/<config>-<argument>, for the value $1 of --config. A config
# that cannot be read is left to hvae_tpu.main, which tells why.
default_workdir() {
  local path=${1%%:*} argument=${1#*:}
  if [[ $1 != *:* ]]; then
    argument=$("$python" -c '
import inspect, runpy, sys
get_config = runpy.run_path(sys.argv[1])["get_config"]
print(next(iter(inspect.signature(get_config).parameters.values())).default)
' "$path" 2>/dev/null) || argument=''
  fi
  echo "runs/$(basename "$path" .py)${argument:+-$argument}"
}

# Prints the newest step that is saved in work directory $1, or 'none'.
last_saved() {
  local path newest=none
  for path in "$1"/checkpoints/*; do
    path=${path##*/}
    if [[ $path =~ ^[0-9]+$ ]] && [[ $newest == none || $path -gt $newest ]]; then newest=$path; fi
  done
  echo "$newest"
}
