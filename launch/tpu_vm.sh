#!/usr/bin/env bash
# A launch spec on Cloud TPU VMs, one action at a time, from a machine with gcloud; launch/tpu_vm_up.sh does them all:
#
#   launch/tpu_vm.sh create|install|run|codes|state|status|logs|stop|delete SPEC.yaml [a.b=value ...]
#
#   create   ask for the hosts (a queued resource, spot or on demand) and wait until they are there
#   install  clone the source, run the setup commands, mount the bucket; on all hosts, again if need be
#   run      start the command on every host; it outlives the ssh session, logs to jaxwiz.log, leaves jaxwiz.code
#   codes    the exit codes of all hosts, "running" where there is none yet; state: of the queued resource
#   status   what there is, and the last line of each host's log; logs: follow the log of the first host
#   stop     let training save its state and end; delete: give the hosts back
#
# All slices come with one queued resource and run as one job.
# Environment: JAXWIZ (the program), POLL_S (30), DRY_RUN=1 prints every command instead of running it.
set -euo pipefail
action=${1:-}
if [[ $# -lt 2 || ! $action =~ ^(create|install|run|codes|state|status|logs|stop|delete)$ ]]; then
  echo "usage: launch/tpu_vm.sh create|install|run|codes|state|status|logs|stop|delete SPEC.yaml [a.b=value ...]" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
spec=${JAXWIZ_SPEC:-$("${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}" launch --on tpu-vm "${@:2}")}
eval "$spec"
place=("--project=$PROJECT" "--zone=$ZONE")
nodes=("$NAME")
((SLICES == 1)) || mapfile -t nodes < <(seq -f "$NAME-%g" 0 $((SLICES - 1)))

call() { if [[ ${DRY_RUN:-} ]]; then printf '%q ' "$@" && echo; else "$@"; fi; }
queued() { call gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
ssh_to() { call gcloud compute tpus tpu-vm ssh "$1" "${place[@]}" "--worker=$2" --quiet "--command=$3"; }
on_all() { # one command on every host of every slice; fails where a host does not answer
  local node silent=() pids=() number
  for node in "${nodes[@]}"; do
    if [[ ${DRY_RUN:-} ]]; then ssh_to "$node" all "$1"; else ssh_to "$node" all "$1" & pids+=($!); fi
  done
  for number in "${!pids[@]}"; do wait "${pids[number]}" || silent+=("${nodes[number]}"); done
  ((${#silent[@]} == 0)) && return
  echo "launch/tpu_vm.sh: not every host of ${silent[*]} answered and did it: $action" >&2
  return 1
}

case $action in
  create)
    hosts=("--node-id=$NAME")
    ((SLICES == 1)) || hosts=("--node-count=$SLICES" "--node-prefix=$NAME")
    [[ -z $SPOT ]] || hosts+=(--spot)
    queued create "--accelerator-type=$TPU_TYPE" "--runtime-version=$RUNTIME" "${hosts[@]}"
    [[ -z ${DRY_RUN:-} ]] || exit 0
    until state=$(queued describe '--format=value(state.state)') && [[ $state == ACTIVE ]]; do
      [[ $state != FAILED && $state != SUSPENDED ]] || { echo "launch/tpu_vm.sh: $NAME is $state" >&2 && exit 1; }
      sleep "${POLL_S:-30}"
    done
    ;;
  install)
    lines=("test -d jaxwiz || git clone --quiet $SOURCE jaxwiz" "cd jaxwiz" "${SETUP[@]}")
    # States are folders that are renamed once they are complete, and all hosts have to see that at once.
    mount="gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 $BUCKET_NAME runs"
    [[ -z $BUCKET ]] || lines+=("mkdir -p runs" "mountpoint -q runs || $mount")
    on_all "set -e; $(printf '%s; ' "${lines[@]}")"
    ;;
  run)
    words=$(printf '%q ' env "${ENVIRONMENT[@]}" .venv/bin/jaxwiz "${COMMAND[@]}")
    on_all "rm -f jaxwiz.code; cd jaxwiz && setsid nohup sh -c $(printf '%q' "$words; echo \$? >~/jaxwiz.code") \
>>~/jaxwiz.log 2>&1 </dev/null &"
    ;;
  codes) on_all "echo code \$(cat jaxwiz.code 2>/dev/null || echo running)" ;;
  state) queued describe '--format=value(state.state)' ;;
  status) queued describe && on_all "hostname; cat jaxwiz.code || tail -n 1 jaxwiz.log" ;;
  logs) ssh_to "${nodes[0]}" 0 "tail -n 100 -F jaxwiz.log" ;;
  stop) on_all "pkill -TERM -f '[j]axwiz ${COMMAND[0]}'" ;;
  delete) queued delete --force --quiet ;;
esac
