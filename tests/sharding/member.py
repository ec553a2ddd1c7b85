"""Run by tests in a process of its own: a member of a job, without JAX.

python -m tests.sharding.member gather|killed|forked|failing|frozen CULPRIT    (the index of who does it)
"""

import os
import signal
import subprocess
import sys
import time

from jaxwiz.files import UserError
from jaxwiz.sharding.launch import find_launch
from jaxwiz.sharding.processes import meet

if __name__ == "__main__":
    deed, culprit = sys.argv[1], int(sys.argv[2])
    launch = find_launch(os.environ)
    assert launch is not None
    processes = meet(launch)
    print(processes.gather(f"value of {processes.index}"), processes.of_first(f"from {processes.index}"), flush=True)
    if deed != "gather":
        if processes.index != culprit:
            time.sleep(60)
        if deed == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "forked":  # a child that goes on, with all that was open
            if os.fork() == 0:
                time.sleep(4)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "failing":
            error = UserError("learning_rate = -1: must be positive")
            print(error, file=sys.stderr)
            processes.fail(error, 2)
        elif deed == "frozen":  # as a host does that loses its power or its network
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
            for pid in children.stdout.split():
                subprocess.run(["kill", "-STOP", pid], check=False)
            time.sleep(60)
    processes.leave()
