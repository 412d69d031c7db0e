# SPDX-License-Identifier: GPL-2.0
"""A mount that reaches the host by way of a relay, which can be made to stand still: nothing is answered then."""

import os
import signal
import subprocess
import threading

from . import counters, filesystems
from .checks import eventually
from .process import spawn

PORT = 12301
# As many as a mount has on their way at once.
SLOTS = 128


class Detour:
    """Mounts a directory of the host for a block."""

    def __init__(self, source, target):
        self.source = source
        self.top = target
        # The others it leaves as they are.
        self.command = [filesystems.program("qtfs-probe"), "--connect", f"{filesystems.HOST_ADDRESS}:{filesystems.PORT}",
                        "mangle", "--listen", f"127.0.0.1:{PORT}", "--side", "both", "--every", "1000000000", "--seed", "1"]
        self.asks = None

    def __enter__(self):
        self.relay = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)  # pylint: disable=consider-using-with
        os.makedirs(self.top)
        eventually(self._mounted, 20, "the relay listens")
        return self

    def __exit__(self, *_):
        self.go_on()
        if self.asks:
            self.asks.kill()
            self.asks.finished(20)
        if filesystems.is_mounted(self.top):
            filesystems.umount(self.top)
        os.rmdir(self.top)
        self.relay.kill()
        self.relay.wait()

    def _mounted(self):
        options = ("server=127.0.0.1", f"port={PORT}")
        return filesystems.mount(self.source, self.top, *options, check=False).status == 0

    def stand_still(self):
        """Nothing is answered from now on, and as much is asked as can be."""
        self.relay.send_signal(signal.SIGSTOP)
        self.asks = spawn(ask_all, self.top)
        eventually(lambda: counters.in_flight(self.top) == SLOTS, 20, "all slots are taken")

    def go_on(self):
        """The opposite."""
        self.relay.send_signal(signal.SIGCONT)


def ask_all(top):
    """Asks for more names than there are slots."""
    def ask(number):
        os.path.exists(f"{top}/missing-{number}")
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(SLOTS + 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
