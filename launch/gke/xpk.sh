#!/usr/bin/env bash
# A launch spec's TPU slices on a cluster that XPK made (xpk cluster create), as an XPK workload:
#
#   launch/gke/xpk.sh SPEC.yaml [a.b=value ...]
#
# XPK writes the JobSet itself and starts it again after a lost host and after exit code 42; 1 is what the processes of
# a job end with when another one was lost, 43 what they end with when they hang. `runs` is the name of a storage that
# `xpk storage attach` has made known, to be mounted at /jaxwiz/runs.
#
# Environment: JAXWIZ (the program), DRY_RUN=1 prints the command.
set -euo pipefail
if [[ $# -lt 1 ]]; then
  echo "usage: launch/gke/xpk.sh SPEC.yaml [a.b=value ...]" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
spec=$("${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}" launch --on gke "$@")
eval "$spec"
if [[ -z $TPU_TYPE ]]; then
  echo "launch/gke/xpk.sh: accelerator.kind = '$KIND': only TPU slices here; use launch/gke/submit.sh" >&2
  exit 2
fi
workload=(xpk workload create "--workload=$NAME" "--project=$PROJECT" "--zone=$ZONE" "--cluster=$CLUSTER"
  "--tpu-type=$TPU_TYPE" "--num-slices=$SLICES" "--docker-image=$IMAGE" "--max-restarts=$RETRIES"
  "--restart-on-exit-codes=1,43" "--termination-grace-period-seconds=$GRACE_S" "--env=JAX_PLATFORMS=tpu,cpu")
for pair in "${ENVIRONMENT[@]}"; do workload+=("--env=$pair"); done
[[ -z $BUCKET ]] || workload+=(--storage=runs)
workload+=("--command=cd /jaxwiz && exec jaxwiz$(printf ' %q' "${COMMAND[@]}")")
if [[ ${DRY_RUN:-} ]]; then
  printf '%q ' "${workload[@]}" && echo
else
  exec "${workload[@]}"
fi
