#!/usr/bin/env bash
# Stands in for jaxwiz where only the scheduler's part is tested: `train FOLDER` waits for SIGTERM and ends with 42, like
# a preempted training; from its third start on it is done at once. `launch` is the real one.
if [[ $1 == launch ]]; then exec "$REAL_JAXWIZ" "$@"; fi
echo "$SLURM_PROCID of $SLURM_STEP_NUM_TASKS on $SLURMD_NODENAME, colour $COLOUR" >>"$2/starts-$SLURM_PROCID"
trap 'exit 42' TERM
(($(wc -l <"$2/starts-$SLURM_PROCID") < 3)) || exit 0
for _ in {1..600}; do sleep 0.1; done
exit 1
