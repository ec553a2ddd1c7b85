#!/usr/bin/env bash
# Starts N processes on this machine as one job, from a launch spec or from a stage command:
#
#   launch/local.sh configs/launch/quickstart.yaml [a.b=value ...]     (accelerator.nodes processes)
#   launch/local.sh 2 train configs/train/quickstart.yaml
#
# When one fails, the others are given GRACE_S seconds to end by themselves, saying why, and are ended then. INT, TERM
# and HUP are passed on. The exit code is that of the first process that failed. All start again, RETRIES times, after
# every exit code but 0, 2 (wrong config) and 130 (SIGINT), unless this script was told to end. GPUs are dealt out
# evenly. DRY_RUN=1 prints the commands.
#
# Environment: JAXWIZ (the program), JAXWIZ_COORDINATOR (default: a free port of 127.0.0.1), GPUS (how many), GRACE_S.
set -euo pipefail
set -m # each process in a group of its own: else bash lets them ignore INT
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}
ENVIRONMENT=()
if [[ ${1:-} == *.yaml ]]; then
  spec=$("$program" launch --on local "$@")
  eval "$spec"
  set -- "$HOSTS" "${COMMAND[@]}"
elif [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh SPEC.yaml [a.b=value ...] | N STAGE CONFIG.yaml [a.b=value ...]" >&2
  exit 2
fi
count=$1
shift
gpus=${GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)) && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}
pass_on() {
  local pid
  for pid in "${pids[@]}"; do kill -"$1" -- "-$pid" 2>/dev/null || true; done
}
told=
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064 # the signal's name is meant as it is now
  trap "told=$signal; pass_on $signal" "$signal"
done

for ((start = 0; ; start++)); do
  coordinator=${JAXWIZ_COORDINATOR:-127.0.0.1:$(free_port)}
  pids=()
  for ((index = 0; index < count; index++)); do
    launch=(env "${ENVIRONMENT[@]}" "JAXWIZ_COORDINATOR=$coordinator" "JAXWIZ_PROCESSES=$count"
      "JAXWIZ_PROCESS_ID=$index")
    first=$((index * (gpus / count))) last=$(((index + 1) * (gpus / count) - 1))
    ((gpus < count)) || launch+=("CUDA_VISIBLE_DEVICES=$(seq -s, "$first" "$last")")
    if [[ ${DRY_RUN:-} ]]; then
      printf '%q ' "${launch[@]}" "$program" "$@" && echo
    else
      "${launch[@]}" "$program" "$@" &
      pids+=($!)
    fi
  done
  status=0 ender=
  while ((${#pids[@]})); do
    code=0 ended=
    wait -n -p ended "${pids[@]}" || code=$?
    [[ ${ended:-} ]] || continue # a signal came
    left=()
    for pid in "${pids[@]}"; do [[ $pid == "$ended" ]] || left+=("$pid"); done
    pids=("${left[@]}")
    if ((code && !status)); then
      status=$code
      { sleep "${GRACE_S:-10}" && pass_on TERM && sleep 5 && pass_on KILL; } &
      ender=$!
      disown "$ender" # bash need not report its end
    fi
  done
  [[ -z $ender ]] || kill -- "-$ender" 2>/dev/null || true
  [[ $told || $status =~ ^(0|2|130)$ ]] || ((start >= ${RETRIES:-0})) && exit "$status"
  case $status in 42) why=preempted ;; 43) why=hung ;; *) why="failed, or lost a process" ;; esac
  echo "launch/local.sh: $why (exit code $status); start $((start + 1)) of $RETRIES again" >&2
done
