#!/usr/bin/env bash
# A launch spec on a GKE cluster that has JobSet, by kubectl:
#
#   launch/gke/submit.sh SPEC.yaml [a.b=value ...]   submit, follow the log of the first pod, end as the JobSet ends
#   launch/gke/submit.sh SPEC.yaml --delete          stop it: the pods save their state first
#
# JobSet starts all pods again after a preemption, a lost host or an error, `retries` times, and not where the config is
# wrong. Submitting again with other values (accelerator.slices=1) replaces the JobSet; training goes on from its state.
#
# Environment: JAXWIZ (the program), KUBECTL (its options), POLL_S (10), DRY_RUN=1 prints the commands and the manifest.
set -euo pipefail
if [[ $# -lt 1 ]]; then
  echo "usage: launch/gke/submit.sh SPEC.yaml [a.b=value ...] [--delete]" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
program=${JAXWIZ:-$(command -v jaxwiz || echo "$root/.venv/bin/jaxwiz")}
arguments=()
delete=
for word in "$@"; do [[ $word == --delete ]] && delete=yes || arguments+=("$word"); done
spec=$("$program" launch --on gke "${arguments[@]}")
eval "$spec"
manifest=$("$program" launch --on gke "${arguments[@]}" --fill "$root/launch/gke/$KIND.yaml")

read -ra options <<<"${KUBECTL:-}"
call() { if [[ ${DRY_RUN:-} ]]; then printf '%q ' kubectl "$@" && echo; else kubectl "${options[@]}" "$@"; fi; }
job=("jobset/$NAME" "--namespace=$NAMESPACE")
terminal() { call get "${job[@]}" '--output=jsonpath={.status.terminalState}'; }

call delete "${job[@]}" --ignore-not-found --wait
[[ -z $delete ]] || exit 0
[[ -z ${DRY_RUN:-} ]] || echo "$manifest"
call apply --filename=- <<<"$manifest"
[[ -z ${DRY_RUN:-} ]] || exit 0

first=jobset.sigs.k8s.io/jobset-name=$NAME,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
while state=$(terminal) && [[ -z $state ]]; do
  # Ends with each pod, and fails while there is none; the next start has a new one.
  call logs --follow --selector="$first" "--namespace=$NAMESPACE" --tail=20 2>/dev/null || true
  sleep "${POLL_S:-10}"
done
echo "jobset $NAME: ${state:-no answer about it; if it is there, it goes on}"
[[ $state == Completed ]]
