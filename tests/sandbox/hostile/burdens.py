"""Programs that use too much. Each ends by its limit or passes, as stated, and is gone afterwards without a trace."""

# ruff: noqa: E501 - programs as strings

_RIGHT = "\ndef double(x):\n    return 2 * x\n"

# name: (source, statuses that are right)
BURDENS = {
    "endless loop": ("while True: pass", {"timed_out"}),
    "endless loop in a call": ("def double(x):\n    while True: pass", {"timed_out"}),
    "endless loop that catches all": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        {"timed_out"},
    ),
    "endless loop in C": ("def double(x): return sum(iter(int, 1))", {"timed_out"}),
    "endless loop in a comparison": (
        "class E(list):\n    pass\ndef double(x):\n    y = [2] * 10**7\n    return max(y * 50)",
        {"timed_out", "failed"},
    ),
    "large power": ("def double(x): return 9 ** 9 ** 9", {"timed_out", "failed"}),
    "sleeps": ("import time; time.sleep(60)", {"timed_out"}),
    "sleeps in a call": ("import time\ndef double(x): time.sleep(60)", {"timed_out"}),
    "stops itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", {"timed_out"}),
    "ignores signals": (
        "import signal\nfor s in {*range(1, 32)} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        {"timed_out"},
    ),
    "waits for a lock": ("import threading\nl = threading.Lock(); l.acquire(); l.acquire()", {"timed_out"}),
    "exception that hangs": (
        "class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E",
        {"timed_out"},
    ),
    "drips its answer": (
        "import os, time\ndef double(x):\n    os.write(4, b'\\0\\0\\1\\0')\n    while True: time.sleep(0.05); os.write(4, b'x')",
        {"timed_out", "failed"},
    ),
    "memory": ("x = bytearray(8 << 30)", {"failed"}),
    "memory bit by bit": ("x = []\nwhile True: x.append(bytes(1 << 20))", {"failed", "timed_out"}),
    "memory in C": ("import ctypes\nassert ctypes.CDLL(None).mmap(0, 16 << 30, 3, 34, -1, 0) > 0", {"failed"}),
    "threads": (
        "import threading, time\nfor _ in range(5000): threading.Thread(target=time.sleep, args=(60,)).start()",
        {"failed"},
    ),
    "small threads": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "for _ in range(50000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        {"failed", "timed_out"},
    ),
    "threads that compute": (
        "import threading\nfor _ in range(8): threading.Thread(target=lambda: sum(iter(int, 1))).start()\n" + _RIGHT,
        {"passed", "timed_out"},
    ),
    "a thread left behind": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()" + _RIGHT,
        {"passed"},
    ),
    "files": ("for n in range(20000): open(f'{n}', 'w').close()", {"failed", "timed_out"}),
    "folders": ("import os\nfor n in range(20000): os.mkdir(f'{n}')", {"failed", "timed_out"}),
    "a deep folder": ("import os\nfor n in range(1200): os.mkdir('d'); os.chdir('d')" + _RIGHT, {"passed", "failed"}),
    "locked folders": ("import os\nos.mkdir('a', 0); os.mkdir('b'); os.mkdir('b/c', 0o100)" + _RIGHT, {"passed"}),
    "odd names": ("for n in ('\\n', '-rf', '\\udcff', ' ', '*'): open(n, 'w')" + _RIGHT, {"passed"}),
    "links in circles": (
        "import os\nos.symlink('.', 'a'); os.symlink('b', 'b'); os.symlink('/', 'c')" + _RIGHT,
        {"passed"},
    ),
    "a big file": ("open('big', 'wb').write(b'x' * (64 << 20))", {"failed"}),
    "a sparse file": ("open('big', 'wb').truncate(1 << 40)", {"failed"}),
    "many big files": ("for n in range(99): open(f'{n}', 'wb').write(b'x' * (16 << 20))", {"failed", "timed_out"}),
    "open files": ("import os\nf = [os.open('.', 0) for _ in range(5000)]", {"failed"}),
    "pipes": ("import os\np = [os.pipe() for _ in range(5000)]", {"failed"}),
    "50 MB of output": ("for _ in range(50): print('x' * (1 << 20))" + _RIGHT, {"passed"}),
    "invalid UTF-8 out": ("import os\nos.write(1, b'\\xff\\xfe'); print('\\ud800')" + _RIGHT, {"passed"}),
    "output in a call": (
        "import os\ndef double(x):\n    os.write(2, b'x' * 10**6); print(x)\n    return 2 * x",
        {"passed"},
    ),
    "50 MB of exception": ("raise ValueError('x' * (50 << 20))", {"failed"}),
    "deep recursion": ("def double(x): return double(x)", {"failed"}),
    "recursion without a limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return sorted([n], key=f)\nf(0)",
        {"failed"},
    ),
    "nested brackets": ("eval('(' * 10**5 + ')' * 10**5)", {"failed"}),
    "reads its input": ("input()", {"failed"}),
    "reads its input itself": ("import sys; sys.stdin.read()", {"failed"}),
    "syntax error": ("def (:", {"failed"}),
    "null byte": ("x = '\0'", {"failed"}),
    "lone surrogate in the source": ("x = '\ud800'", {"failed"}),
    "very long line": ("x = " + "1 + " * 20000 + "1" + _RIGHT, {"passed", "failed"}),
}
