#!/usr/bin/env bash
# Stands in for jaxwiz: ends with 42 when told to end, as training does once its state is saved.
trap 'exit 42' TERM
echo started
for _ in {1..150}; do sleep 0.2; done
