"""Runs a program and ends it before the n-th change that it makes to files. Linux on x86-64 and AArch64.

A change is a system call that writes, synchronises, cuts, makes, renames, links or removes a file, or that changes who may
read or lock it. They are counted over all threads, so that each number is a moment of the program's life. ptrace stops the
program at the entry of the call, and the call is not made any more.
"""

import ctypes
import os
import platform
import signal
import struct
import subprocess
import threading

TRACEME, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE and EXITKILL.
OPTIONS = 1 | 2 | 4 | 8 | 0x100000
ENTRY = 1
# __WALL: threads as well. __WNOTHREAD: no process that another thread of ours waits for.
WAIT = 0x40000000 | 0x20000000
WRITES = (os.O_CREAT, os.O_TRUNC)
# By machine: calls whose first argument is a file, and calls that change names, with the argument
# that is a path.
FILES = {
    "x86_64": {
        1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 74: "fsync", 75: "fdatasync", 77: "ftruncate",
        285: "fallocate", 91: "fchmod", 93: "fchown", 73: "flock", 26: "msync", 306: "syncfs",
    },
    "aarch64": {
        64: "write", 68: "pwrite64", 66: "writev", 70: "pwritev", 82: "fsync", 83: "fdatasync", 46: "ftruncate",
        47: "fallocate", 52: "fchmod", 55: "fchown", 32: "flock", 227: "msync", 267: "syncfs",
    },
}  # fmt: skip
NAMES = {
    "x86_64": {
        82: ("rename", 0), 264: ("renameat", 1), 316: ("renameat2", 1), 83: ("mkdir", 0), 258: ("mkdirat", 1),
        84: ("rmdir", 0), 87: ("unlink", 0), 263: ("unlinkat", 1), 86: ("link", 1), 265: ("linkat", 3),
        90: ("chmod", 0), 268: ("fchmodat", 1), 452: ("fchmodat2", 1),
    },
    "aarch64": {
        38: ("renameat", 1), 276: ("renameat2", 1), 34: ("mkdirat", 1), 35: ("unlinkat", 1), 37: ("linkat", 3),
        53: ("fchmodat", 1), 452: ("fchmodat2", 1),
    },
}  # fmt: skip
# Calls that open a file: which argument is the path, and which the flags.
OPENS = {"x86_64": {2: (0, 1), 257: (1, 2)}, "aarch64": {56: (1, 2)}}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def traceme():
    if libc.ptrace(TRACEME, 0, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace is not allowed here")


def is_possible():
    """Whether this machine lets programs be traced, and its system calls are known here."""
    if platform.machine() not in FILES:
        return False
    try:
        subprocess.run(["true"], preexec_fn=lambda: (traceme(), os._exit(0)))
    except subprocess.SubprocessError:
        return False
    return True


class Traced(threading.Thread):
    """A program that runs until it ends, or until it is about to make the change with the number `end_at`.

    Only changes below `watched` count. `on_end` is called when the change is about to be made, before the program is killed.
    """

    def __init__(self, command, log, watched, end_at=None, on_end=lambda: None, is_armed=True):
        super().__init__()
        machine = platform.machine()
        self.files, self.names, self.opens = FILES[machine], NAMES[machine], OPENS[machine]
        self.command, self.log, self.watched = [str(part) for part in command], log, str(watched)
        self.end_at, self.on_end, self.is_armed = end_at, on_end, is_armed
        self.changes, self.last, self.was_ended, self.code, self.pid = 0, "", False, None, None
        self.started = threading.Event()
        self.start()
        self.started.wait()

    def run(self):
        try:
            process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, preexec_fn=traceme)
            self.pid = process.pid
            os.waitpid(self.pid, WAIT)
            libc.ptrace(SETOPTIONS, self.pid, None, OPTIONS)
        finally:
            self.started.set()
        self._go_on(self.pid, 0)
        threads = {self.pid}
        while self.code is None:
            thread, status = os.waitpid(-1, WAIT)
            if os.WIFSTOPPED(status):
                self._stopped(thread, os.WSTOPSIG(status), status >> 16, threads)
            elif thread == self.pid:
                self.code = process.returncode = os.waitstatus_to_exitcode(status)

    def _stopped(self, thread, number, event, threads):
        passed_on = 0
        if number == signal.SIGTRAP | 0x80:
            self._called(thread)
        elif number == signal.SIGSTOP and thread not in threads:
            # So a new thread begins.
            threads.add(thread)
        elif number != signal.SIGTRAP and not event:
            passed_on = number
        self._go_on(thread, passed_on)

    def _go_on(self, thread, number):
        # One that has been killed meanwhile is gone.
        libc.ptrace(SYSCALL, thread, None, number)

    def _called(self, thread):
        info = ctypes.create_string_buffer(88)
        libc.ptrace(GET_SYSCALL_INFO, thread, len(info), ctypes.addressof(info))
        if info.raw[0] != ENTRY or not self.is_armed or self.was_ended:
            return
        number, *arguments = struct.unpack_from("=7Q", info.raw, 24)
        change = self._change(thread, number, arguments)
        if change is None:
            return
        self.changes, self.last = self.changes + 1, change
        if self.changes == self.end_at:
            self.was_ended = True
            self.on_end()
            os.kill(self.pid, signal.SIGKILL)

    def _change(self, thread, number, arguments):
        """What a call is about to change; `None`: nothing, or nothing that is watched."""
        if name := self.files.get(number):
            path = self._path_of(thread, arguments[0])
            return f"{name} {path}" if path.startswith(self.watched) else None
        if found := self.names.get(number):
            name, argument = found
            return f"{name} {self._text(thread, arguments[argument])}"
        if found := self.opens.get(number):
            path, flags = found
            if any(arguments[flags] & write for write in WRITES):
                return f"open {self._text(thread, arguments[path])}"
        return None

    def _path_of(self, thread, file):
        try:
            return os.readlink(f"/proc/{thread}/fd/{file & 0xFFFFFFFF}")
        except OSError:
            return ""

    def _text(self, thread, address):
        try:
            with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                return memory.read(4096).split(b"\0")[0].decode(errors="replace")
        except OSError:
            return "?"

    def signal(self, number):
        """Sends a signal, unless it has ended."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def end(self, seconds=60):
        """Waits for its end. A program that hangs is killed, and that is `-SIGKILL` without `was_ended`."""
        self.join(seconds)
        if self.is_alive():
            self.signal(signal.SIGKILL)
            self.join()
        return self.code
