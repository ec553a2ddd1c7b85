#!/usr/bin/env bash
# A launch spec as a SkyPilot managed job, which finds new hosts after a preemption; from the checkout:
#
#   launch/skypilot.sh SPEC.yaml [a.b=value ...]
#   sky jobs logs --name NAME; sky jobs cancel --name NAME
#
# Environment: JAXWIZ (the program), DRY_RUN=1 prints the task and the command.
set -euo pipefail
if [[ $# -lt 1 ]]; then
  echo "usage: launch/skypilot.sh SPEC.yaml [a.b=value ...]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${JAXWIZ:-$(command -v jaxwiz || echo "$PWD/.venv/bin/jaxwiz")}
spec=$("$program" launch --on skypilot "$@")
eval "$spec"
task=$("$program" launch --on skypilot "$@" --fill launch/skypilot.yaml)
if [[ ${DRY_RUN:-} ]]; then
  echo "$task"
  printf '%q ' sky jobs launch --yes --detach-run "--name=$NAME" TASK.yaml && echo
  exit
fi
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
echo "$task" >"$folder/task.yaml"
sky jobs launch --yes --detach-run "--name=$NAME" "$folder/task.yaml"
