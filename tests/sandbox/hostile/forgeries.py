"""Wrong answers that try to be judged right. None may pass where the tests are in a process of their own."""

# ruff: noqa: E501 - programs as strings

_WRONG = "\ndef double(x):\n    return x\n"

BY_VALUE = {
    "number equal to all": (
        "class N(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef double(x): return N(1)"
    ),
    "text equal to all": "class T(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\ndef double(x): return T()",
    "list equal to all": "class L(list):\n    def __eq__(s, o): return True\ndef double(x): return L()",
    "not unequal": "class L(list):\n    def __ne__(s, o): return False\n    def __eq__(s, o): return True\ndef double(x): return [L()]",
    "object equal to all": "class A:\n    def __eq__(s, o): return True\ndef double(x): return A()",
    "class equal to all": "class M(type):\n    def __eq__(s, o): return True\nclass A(metaclass=M): pass\ndef double(x): return A",
    "class that says it is int": "class A:\n    __class__ = int\n    def __eq__(s, o): return True\ndef double(x): return A()",
    "mock": "from unittest.mock import ANY\ndef double(x): return ANY",
    "pickles a call": "class P:\n    def __reduce__(s): return (eval, ('1',))\ndef double(x): return P()",
    "exception equal to all": "class E(Exception):\n    def __eq__(s, o): return True\ndef double(x): raise E()",
    "swallowed exit": "def double(x): raise SystemExit(0)",
    "keyboard interrupt": "def double(x): raise KeyboardInterrupt",
    "stop iteration": "def double(x): raise StopIteration(4)",
    "returns nothing": "def double(x): pass",
    "always true": "def double(x): return True",
    "a function": "def double(x): return lambda: x",
    "a cycle": "def double(x):\n    y = []\n    y.append(y)\n    return y",
    "very deep": "def double(x):\n    for _ in range(100000): x = [x]\n    return x",
    "very large": "def double(x): return 'x' * (100 << 20)",
    "endless": "import itertools\ndef double(x): return itertools.count()",
    "endless by a class": "class E:\n    def __iter__(s): return s\n    def __next__(s): return 1\ndef double(x): return E()",
    "huge number": "def double(x): return 1 << 10**7",
    "mapping that lies": "class D(dict):\n    def __eq__(s, o): return True\n    def items(s): return []\ndef double(x): return D()",
    "repr that exits": "import os\nclass R:\n    def __repr__(s): os._exit(0)\ndef double(x): return R()",
    "exception that exits": (
        "import os\nclass E(Exception):\n    def __str__(s): os._exit(0)\n    @property\n    def args(s): os._exit(0)\n"
        "def double(x): raise E()"
    ),
    "changes its argument while it is written": (
        "import threading\ndef double(x):\n    y = list(range(10**5))\n"
        "    threading.Thread(target=lambda: [y.clear() or y.extend(range(9)) for _ in range(99)]).start()\n    return y"
    ),
}

BY_PROCESS = {
    "leaves at once": "import os; os._exit(0)",
    "leaves in the call": "import os\ndef double(x): os._exit(0)",
    "leaves by sys.exit": "import sys; sys.exit(0)",
    "leaves by a handler": "import atexit, os\natexit.register(lambda: os._exit(0))" + _WRONG,
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "crashes": "import ctypes\ndef double(x): ctypes.string_at(0)",
    "overflows the stack": "import sys\nsys.setrecursionlimit(10**9)\ndef double(x): return sorted([x], key=double)",
    "closes all files": "import os; os.closerange(0, 64)" + _WRONG,
    "closes all files in the call": "import os\ndef double(x): os.closerange(0, 64)",
    "writes passed everywhere": (
        "import os\nfor fd in range(64):\n    for text in (b'passed', b'{\"status\": \"passed\"}\\n', b'\\0\\0\\0\\1R'):\n"
        "        try: os.write(fd, text)\n        except OSError: pass\n" + _WRONG
    ),
    "writes a verdict in the call": (
        "import os\ndef double(x):\n    for fd in range(64):\n"
        '        try: os.write(fd, b\'{"status": "passed", "detail": "", "reason": ""}\\n\')\n        except OSError: pass\n'
        "    return x"
    ),
    "says that it is longer than it is": "import os\ndef double(x): os.write(4, b'\\xff\\xff\\xff\\xff')\n",
    "says that it is shorter than it is": "import os\ndef double(x):\n    os.write(4, b'\\0\\0\\0\\2V4' * 3)\n    return x",
    "answers before it is asked": (
        "import os\nos.write(4, b'\\0\\0\\0\\1R' + b'\\0\\0\\0\\2V4' + b'\\0\\0\\0\\2V4' * 9)" + _WRONG
    ),
    "sends a tag that nobody knows": "import os\ndef double(x): os.write(4, b'\\0\\0\\0\\1Q')\n",
    "sends a broken value": "import os\ndef double(x): os.write(4, b'\\0\\0\\0\\3V[1')\n",
    "sends a million brackets": "import os\ndef double(x): os.write(4, b'\\0\\x01\\0\\1V' + b'[' * 65536)\n",
    "sends an exception of no class": "import os\ndef double(x): os.write(4, b'\\0\\0\\0\\x0eE[\"eval\",[],1]')\n",
    "reads the questions itself": "import os\nos.set_blocking(3, False)\ndef double(x): return os.read(3, 9)",
    "patches the encoder": (
        "import gc\nfor o in gc.get_objects():\n    if callable(o) and getattr(o, '__name__', '') == 'encode':\n"
        "        try: o.__code__ = (lambda value: b'4').__code__\n        except Exception: pass\n" + _WRONG
    ),
    "patches what it can reach from its frames": (
        "import sys\nf = sys._getframe()\nwhile f:\n    for name, value in list(f.f_locals.items()):\n"
        "        if isinstance(value, (list, dict)):\n            try: value.clear()\n            except Exception: pass\n"
        "    for name in ('status', 'passed', 'result'):\n        f.f_globals[name] = 'passed'\n    f = f.f_back\n"
        + _WRONG
    ),
    "patches builtins": (
        "import builtins\nfor name in ('AssertionError', 'Exception', 'BaseException', 'ValueError'):\n"
        "    setattr(builtins, name, SystemExit)\nbuiltins.isinstance = builtins.callable = lambda *a: True\n"
        "builtins.compile = builtins.exec = lambda *a, **k: None\n" + _WRONG
    ),
    "patches json and os": (
        "import json, os\njson.dumps = lambda *a, **k: '4'\njson.JSONEncoder.encode = lambda s, o: '4'\n"
        "os._exit = lambda c: None\nos.write = lambda *a: 1" + _WRONG
    ),
    "patches what encodes": (
        "import sys\nfor m in list(sys.modules.values()):\n    for n in ('encode', 'dumps', 'cut', 'explain'):\n"
        "        try: setattr(m, n, lambda *a, **k: b'4')\n        except Exception: pass\n" + _WRONG
    ),
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)" + _WRONG,
    "answers by a signal": (
        "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "def double(x):\n    while True: pass"
    ),
    "a thread that answers": (
        "import os, threading, time\ndef late():\n    while True:\n        os.write(4, b'\\0\\0\\0\\2V4')\n"
        "threading.Thread(target=late, daemon=True).start()" + _WRONG
    ),
    "another module of the name": "import sys\nsys.modules['builtins'] = sys.modules['math'] = None" + _WRONG,
    "no debug": "import builtins\nbuiltins.__dict__['__debug__'] = False" + _WRONG,
    "defines no function": "x = 1",
    "deletes its function": "def double(x): return 2 * x\ndel double",
    "a name that is no function": "double = 4",
    "tests of its own": "def check(*a): pass\nreport = print\ncalls = {}\ndata = b''" + _WRONG,
}

FORGERIES = {**BY_VALUE, **BY_PROCESS}
