"""ZMTP 3.0 by hand, with the NULL mechanism, and Ferry's frame: for saying what no library says."""
import ctypes
import ctypes.util
import socket
import struct

MAGIC = 0x5946
HELLO, METADATA, TOPIC_CREATE, PRODUCER_INIT, PRODUCE, FETCH = 1, 2, 3, 6, 7, 10
REQUEST = 1

_xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

GREETING = (b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" +
            b"\0" * 31)
READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"


def checksum(data):
    return _xxhash.XXH3_64bits(data, len(data))


def pack(value):
    """The few types of msgpack that bodies use."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, str):
        value = value.encode()
        return b"\xdb" + struct.pack(">I", len(value)) + value
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(item) for item in value)


def frame(command, body, attachment=b"", version=1, magic=MAGIC, kind=REQUEST, request_id=7,
          body_bytes=None, attachment_bytes=None, flip=0):
    """A frame; what is not given is right. `body` is bytes as they go, or values to pack."""
    body = body if isinstance(body, bytes) else pack(body)
    head = struct.pack("<HBBHHQIII", magic, version, kind, command, 0, request_id,
                       len(body) if body_bytes is None else body_bytes,
                       len(attachment) if attachment_bytes is None else attachment_bytes, 5000)
    mark = (checksum(head + body) ^ flip) & 0xffffffff
    return head + struct.pack("<I", mark) + body + attachment


class Peer:
    """One TCP connection to a broker."""

    def __init__(self, address, greet=True, timeout=20):
        self.socket = socket.create_connection(address, timeout=timeout)
        if greet:
            self.socket.sendall(GREETING)
            self._read(64)
            self.socket.sendall(b"\x04" + bytes([len(READY)]) + READY)
            flags = self._read(1)[0]
            self._read(self._size(flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("cut")
            data += more
        return data

    def _size(self, flags):
        return struct.unpack(">Q", self._read(8))[0] if flags & 2 else self._read(1)[0]

    def send_raw(self, data):
        self.socket.sendall(data)

    def send(self, data, more=False):
        flags = 2 | (1 if more else 0)
        self.socket.sendall(bytes([flags]) + struct.pack(">Q", len(data)) + data)

    def receive(self):
        """The next message's first part; ConnectionError when the broker cut the connection."""
        while True:
            flags = self._read(1)[0]
            data = self._read(self._size(flags))
            if not flags & 4:  # Commands (PING) are ZeroMQ's own business.
                return data

    def status(self):
        """The status of the next reply."""
        return struct.unpack("<H", self.receive()[6:8])[0]

    def ask(self, *args, **more):
        """Sends a frame; the reply's status."""
        self.send(frame(*args, **more))
        return self.status()

    def is_cut(self):
        """True when the broker ends the connection, whatever it says before."""
        try:
            while True:
                self.receive()
        except (ConnectionError, OSError) as error:
            return not isinstance(error, TimeoutError)
