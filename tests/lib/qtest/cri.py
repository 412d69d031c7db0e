# SPDX-License-Identifier: GPL-2.0
"""What a kubelet says to containerd: the container runtime interface, as far as one pod needs it.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto. A message is a list of (field, value); texts and bytes,
numbers and messages are encoded as protobuf does, and read as a dictionary of field to a list of values.
"""

import sys

from . import process

SOCKET = "unix:///run/containerd/containerd.sock"
SERVICE = "/runtime.v1.RuntimeService/"
# NamespaceMode
NODE = 2


def varint(number):
    """A number in groups of seven bits."""
    encoded = bytearray()
    while number > 0x7f:
        encoded.append(number & 0x7f | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode(fields):
    """A message."""
    encoded = b""
    for field, value in fields:
        if isinstance(value, int):
            encoded += varint(field << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
        encoded += varint(field << 3 | 2) + varint(len(data)) + data
    return encoded


def decode(data):
    """The fields of a message; those that are messages stay bytes."""
    found, at = {}, 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if not byte & 0x80:
                return value
    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        elif key & 7 == 2:
            size = number()
            value = data[at:at + size]
            at += size
        else:
            raise ValueError(f"field {key >> 3} is of the unexpected type {key & 7}")
        found.setdefault(key >> 3, []).append(value)
    return found


class Runtime:
    """containerd, as a kubelet sees it."""

    @staticmethod
    def call(method, *fields, patience=150):
        """One call; its answer. In a process of its own: gRPC has threads, and tests fork."""
        return decode(process.run([sys.executable, "-m", "qtest.cri", method], stdin=encode(fields), patience=patience).out)

    @staticmethod
    def sandbox(name):
        """The configuration of a pod on the host's network."""
        return [(1, [(1, name), (2, f"uid-{name}"), (3, "default")]), (3, f"/var/log/pods/{name}"),
                (8, [(2, [(1, [(1, NODE)])])])]

    def run_pod(self, name):
        """RunPodSandbox; the pod's id."""
        return self.call("RunPodSandbox", (1, self.sandbox(name)))[1][0].decode()

    def create(self, pod, name, image, command):
        """CreateContainer; the container's id."""
        config = [(1, [(1, name)]), (2, [(1, image)]), *((3, word) for word in command), (11, f"{name}.log"),
                  (15, [(2, [(3, [(1, NODE)])])])]
        return self.call("CreateContainer", (1, pod), (2, config), (3, self.sandbox(name)))[1][0].decode()

    def exec(self, container, *command):
        """ExecSync; output and exit status."""
        answer = self.call("ExecSync", (1, container), *((2, word) for word in command), (3, 100))
        return answer.get(1, [b""])[0].decode(), answer.get(3, [0])[0]


def main():
    """A call: method as argument, message on stdin, answer on stdout."""
    import grpc  # pylint: disable=import-outside-toplevel
    with grpc.insecure_channel(SOCKET) as channel:
        ask = channel.unary_unary(SERVICE + sys.argv[1], request_serializer=bytes, response_deserializer=bytes)
        sys.stdout.buffer.write(ask(sys.stdin.buffer.read(), timeout=120, wait_for_ready=True))


if __name__ == "__main__":
    main()
