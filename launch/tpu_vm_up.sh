#!/usr/bin/env bash
# A launch spec on Cloud TPU VMs from nothing to the end: creates hosts, installs, runs, and starts again after each
# preemption, `retries` times; then the hosts are given back.
#
#   launch/tpu_vm_up.sh SPEC.yaml [a.b=value ...]
#
# Exit code 0: done; 2: the config is wrong, which another start would not mend; 1: given up, hosts are kept. A lost
# host ends all processes of the job within half a minute. After that, and after exit code 42, training goes on from its
# last saved state: in place where all hosts answer, on new hosts where some were taken, do not answer, or hung (exit
# code 43).
#
# Environment: as launch/tpu_vm.sh; KEEP=1 keeps the hosts at the end; DRY_RUN=1 prints every command of one start.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
if [[ $# -lt 1 ]]; then
  echo "usage: launch/tpu_vm_up.sh SPEC.yaml [a.b=value ...]" >&2
  exit 2
fi
root=$(cd "$here/.." && pwd)
spec=$("${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}" launch --on tpu-vm "$@")
eval "$spec"
export JAXWIZ_SPEC=$spec # read once, for every action
arguments=("$@")
do_one() { "$here/tpu_vm.sh" "$1" "${arguments[@]}"; }
state() { do_one state 2>/dev/null || echo ABSENT; }
give_back() { [[ ${KEEP:-} ]] || do_one delete; }

if [[ ${DRY_RUN:-} ]]; then
  for action in create install run codes delete; do do_one "$action"; done
  exit
fi

# Prints the exit codes of all hosts once none runs any more; fails where a host is gone or stays silent.
ended() {
  local codes answered
  while true; do
    answered=yes
    codes=$(do_one codes) || answered=
    if [[ $(state) != ACTIVE ]]; then
      echo taken && return 1
    elif ! grep -q running <<<"$codes"; then
      grep -o 'code [0-9]*' <<<"$codes" | sort -u | tr '\n' ' '
      [[ $answered ]] && return || return 1
    fi
    sleep "${POLL_S:-30}"
  done
}

new_hosts=
for ((start = 0; start <= RETRIES; start++)); do
  echo "start $((start + 1)) of at most $((RETRIES + 1))"
  found=$(state)
  if [[ $found != ACTIVE || $new_hosts ]]; then
    [[ $found == ABSENT ]] || do_one delete
    do_one create || continue
  fi
  new_hosts=
  if ! do_one install || ! do_one run; then
    new_hosts=yes
    continue
  fi
  codes=$(ended) || new_hosts=yes
  case $codes in
    "code 0 ") [[ $new_hosts ]] || { give_back && exit 0; } ;;
    *"code 2 "*) echo "launch/tpu_vm_up.sh: the config is wrong: launch/tpu_vm.sh logs ..." >&2 && exit 2 ;;
    *"code 43 "*) new_hosts=yes ;; # hung: these hosts are not to be trusted
  esac
  echo "ended: ${codes:-no host answered}"
done
echo "launch/tpu_vm_up.sh: given up after $((RETRIES + 1)) starts; launch/tpu_vm.sh logs ... says more" >&2
exit 1
