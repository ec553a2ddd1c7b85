#!/usr/bin/env bash
# jaxwiz, but process 1 is unlike the others: it has two devices, a clock 90 s ahead, and another folder.
if [[ $JAXWIZ_PROCESS_ID == 1 ]]; then
  export XLA_FLAGS=--xla_force_host_platform_device_count=2
  exec "$PYTHON" "$(dirname "$0")/odd_host.py" "$@" --folder "$FOLDER/other"
fi
exec "$PYTHON" -m jaxwiz.cli "$@" --folder "$FOLDER/shared"
