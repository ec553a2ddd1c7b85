#!/usr/bin/env python3
"""Stands in for gcloud, kubectl, xpk and sky: records its arguments, and answers as the test has written down.

$STAND_IN/answers.json is a list of [pattern, exit code, output, times]: the first whose pattern is in the command line
and that has not been given `times` times yet (null: always) is given. $STAND_IN/calls has a command line on each line.
"""

import fcntl
import json
import os
import re
import sys
from pathlib import Path

folder = Path(os.environ["STAND_IN"])
call = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
with open(folder / "calls", "a+") as calls:
    fcntl.flock(calls, fcntl.LOCK_EX)
    calls.write(call.replace("\n", "\\n") + "\n")
    calls.flush()
    given_file = folder / "given.json"
    given = json.loads(given_file.read_text()) if given_file.exists() else {}
    for number, (pattern, code, output, times) in enumerate(json.loads((folder / "answers.json").read_text())):
        if re.search(pattern, call) and (times is None or given.get(str(number), 0) < times):
            given[str(number)] = given.get(str(number), 0) + 1
            given_file.write_text(json.dumps(given))
            if output:
                print(output)
            sys.exit(code)
