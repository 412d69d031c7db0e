# SPDX-License-Identifier: GPL-2.0
"""A message there and back: what ping-pong runs on both machines."""

import os
import socket
import sys
import time

PORT = 23456
NAMES = ("ping", "pong")
SOCKET = "socket"


def connected(sock):
    """Without waiting for more to send."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock.detach()


def answer(kind, where):
    """Sends back what comes, until its end. Says that it is ready by a line."""
    if kind == "tcp":
        listener = socket.create_server((where, PORT))
        print("ready", flush=True)
        there = back = connected(listener.accept()[0])
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{where}/{SOCKET}")
        listener.listen()
        print("ready", flush=True)
        there = back = listener.accept()[0].detach()
        os.unlink(f"{where}/{SOCKET}")
    else:
        print("ready", flush=True)
        there = os.open(f"{where}/{NAMES[0]}", os.O_RDONLY)
        back = os.open(f"{where}/{NAMES[1]}", os.O_WRONLY)
    while data := os.read(there, 4096):
        os.write(back, data)


def ask(kind, where, count, size):
    """Sends messages, one after another; prints how long each took to come back, in seconds."""
    if kind == "tcp":
        there = back = connected(socket.create_connection((where, PORT)))
    elif kind == "socket":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"{where}/{SOCKET}")
        there = back = sock.detach()
    else:
        there = os.open(f"{where}/{NAMES[0]}", os.O_WRONLY)
        back = os.open(f"{where}/{NAMES[1]}", os.O_RDONLY)
    message, times = bytes(size), []
    for _ in range(count):
        begin = time.monotonic()
        os.write(there, message)
        left = size
        while left:
            left -= len(os.read(back, left))
        times.append(time.monotonic() - begin)
    print(times)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role == "answer":
        answer(*words)
    else:
        ask(*words[:2], *map(int, words[2:]))
