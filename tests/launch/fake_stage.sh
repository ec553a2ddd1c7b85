#!/usr/bin/env bash
# Stands in for jaxwiz where launch/local.sh itself is tested: fake_stage.sh ok | fail CODE | wait
sleeper=
leave() { echo "$1 $JAXWIZ_PROCESS_ID" && { [[ -z $sleeper ]] || kill "$sleeper"; } && exit "$2"; }
trap 'leave TERM 43' TERM
trap 'leave INT 44' INT
echo "start $JAXWIZ_PROCESS_ID of $JAXWIZ_PROCESSES at $JAXWIZ_COORDINATOR, GPUs ${CUDA_VISIBLE_DEVICES:-none}: $*"
case $1 in
  ok) exit 0 ;;
  fail) [[ $JAXWIZ_PROCESS_ID == 1 ]] && exit "$2" ;;
esac
# Not in the foreground: a shell that has just begun to wait for a foreground command may lose a SIGINT. And in a group of
# its own: a signal to ours would end it, and then the script, which may come before the trap.
set -m
sleep 30 >/dev/null 2>&1 &
sleeper=$!
wait "$sleeper"
