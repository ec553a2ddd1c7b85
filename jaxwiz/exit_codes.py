"""What a command's exit code means; `docs/faults.md` says what to do about each. Imports nothing.

A process that gets a second signal while it stops ends with 128 + the signal's number, as a shell reports it, and one
that is killed with what the system gives it (137, or -9).
"""

FAILED = 1  # a fault of jaxwiz, of the machine, or another process of the job was lost
BAD_INPUT = 2  # a config, a file or a row that has to be mended before the same command can go on
PREEMPTED = 42  # told to end by SIGTERM or by the platform: everything is saved, run the same command again
HUNG = 43  # a step exceeded its time limit: the same command continues, best on other machines
INTERRUPTED = 130  # SIGINT: everything is saved; whoever pressed Ctrl-C does not want a restart
