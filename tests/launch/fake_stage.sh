#!/usr/bin/env bash
# Stands in for jaxwiz where launch/local.sh itself is tested: fake_stage.sh ok | fail CODE | wait
trap 'echo "TERM $JAXWIZ_PROCESS_ID"; exit 43' TERM
trap 'echo "INT $JAXWIZ_PROCESS_ID"; exit 44' INT
echo "start $JAXWIZ_PROCESS_ID of $JAXWIZ_PROCESSES at $JAXWIZ_COORDINATOR, GPUs ${CUDA_VISIBLE_DEVICES:-none}: $*"
case $1 in
  ok) exit 0 ;;
  fail) [[ $JAXWIZ_PROCESS_ID == 1 ]] && exit "$2" ;;
esac
for _ in {1..150}; do sleep 0.2; done
