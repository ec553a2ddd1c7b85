#!/usr/bin/env bash
# Stands in for jaxwiz where launch/local.sh starts again: `train FOLDER` is preempted the first two times.
if [[ $1 == launch ]]; then exec "$REAL_JAXWIZ" "$@"; fi
line="$JAXWIZ_PROCESS_ID of $JAXWIZ_PROCESSES: $COLOUR"
echo "$line" >>"$2/starts"
(($(grep -c "^$line$" "$2/starts") > 2)) || exit 42
