#!/usr/bin/env bash
# Starts N processes on this machine as one job, each running the same stage command:
#
#   launch/local.sh 2 train configs/train/quickstart.yaml
#
# When one fails, the others are given GRACE_S seconds to end by themselves, saying why, and are ended then. INT, TERM
# and HUP are passed on. The exit code is that of the first process that failed. The machine's GPUs are dealt out evenly
# where there are enough. DRY_RUN=1 prints every command instead of running it. Needs bash 5.1.
#
# Environment: JAXWIZ (the program), JAXWIZ_COORDINATOR (default: a free port of 127.0.0.1), GPUS (how many), GRACE_S.
set -euo pipefail
set -m # each process in a group of its own: else bash lets them ignore INT

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh N STAGE CONFIG.yaml [a.b=value ...]" >&2
  exit 2
fi
count=$1
shift

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)) && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}
coordinator=${JAXWIZ_COORDINATOR:-127.0.0.1:$(free_port)}
gpus=${GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}

pids=()
for ((index = 0; index < count; index++)); do
  launch=(env "JAXWIZ_COORDINATOR=$coordinator" "JAXWIZ_PROCESSES=$count" "JAXWIZ_PROCESS_ID=$index")
  if ((gpus >= count)); then
    share=$((gpus / count))
    launch+=("CUDA_VISIBLE_DEVICES=$(seq -s, $((index * share)) $((index * share + share - 1)))")
  fi
  if [[ ${DRY_RUN:-} ]]; then
    printf '%q ' "${launch[@]}" "$program" "$@" && echo
  else
    "${launch[@]}" "$program" "$@" &
    pids+=($!)
  fi
done

pass_on() {
  local pid
  for pid in "${pids[@]}"; do kill -"$1" -- "-$pid" 2>/dev/null || true; done
}
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064 # the signal's name is meant as it is now
  trap "pass_on $signal" "$signal"
done

status=0
ender=
while ((${#pids[@]})); do
  code=0
  ended=
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
exit "$status"
