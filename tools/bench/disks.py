"""File systems in files, and the power cut of one."""

import fcntl
import os
import struct
import subprocess
import time

from common import fail

FS_IOC_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
NO_LOG_FLUSH = 2


class Disk:
    """An ext4 file system of its own, in a file that is mounted by loop. Root only.

    One to `measure` has all of its blocks, so that a flush of it allocates nothing below.
    """

    def __init__(self, home, name, megabytes=2048, *, measure=False):
        if os.geteuid() != 0:
            fail("a disk of its own needs root: mount, and FS_IOC_SHUTDOWN for a power cut")
        self.image, self.path, self.megabytes, self.measure = home / f"{name}.img", home / name, megabytes, measure
        self.path.mkdir()

    def make(self):
        """Begins with an empty one."""
        self.unmount()
        options = []
        if not self.measure:
            with open(self.image, "wb") as file:
                file.truncate(self.megabytes << 20)
        elif not self.image.exists():
            with open(self.image, "wb") as file:
                for _ in range(self.megabytes):
                    file.write(bytes(1 << 20))
                os.fsync(file.fileno())
        if self.measure:
            options = ["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, str(self.image)], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.path)], check=True)

    def cut_power(self):
        """Throws away all that has not reached the disk, as xfstests does. From then on it fails."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def power_on(self):
        """Mounts it again after a cut, which replays its journal."""
        self.unmount()
        self.mount()

    def unmount(self, check=True):
        # A process that has just been killed may hold it for a moment.
        for _ in range(200):
            if not os.path.ismount(self.path):
                return
            subprocess.run(["umount", str(self.path)], stderr=subprocess.DEVNULL)
            time.sleep(0 if not os.path.ismount(self.path) else 0.05)
        if check:
            fail(f"{self.path} cannot be unmounted")
