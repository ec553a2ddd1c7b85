"""jaxwiz on a host whose clock is 90 s ahead."""

import sys
import time

right = time.time
time.time = lambda: right() + 90

from jaxwiz.cli import main  # noqa: E402 - after the clock is wrong

sys.exit(main(sys.argv[1:]))
