"""A TCP relay that can cut what it carries: at random, all at once, or at a byte offset."""

import contextlib
import random
import socket
import struct
import threading


@contextlib.contextmanager
def silent_port():
    """A port on which connects are never answered: a listener whose backlog is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in [*fillers, listener]:
            sock.close()


@contextlib.contextmanager
def deaf_port(port):
    """Accepts connections on this port and never answers, not even after it has ended itself.

    Yields the list of what it has accepted; who calls closes them.
    """
    accepted = []

    def accept():
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield accepted
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


class Relay:
    """Listens on 127.0.0.1 and forwards to `target` (host, port).

    `cut_after`: bytes of the target's stream after which a connection is cut; None for never.
    `port`: where to listen; 0 for any free port.
    """

    def __init__(self, target, cut_after=None, port=0):
        self.target = target
        self.cut_after = cut_after
        self.count = 0
        self.cuts = 0
        self._pairs = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.address = self._listener.getsockname()
        self.port = self.address[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (near, far)
            with self._lock:
                self.count += 1
                self._pairs.add(pair)
            for source, sink, limit in ((near, far, None), (far, near, self.cut_after)):
                threading.Thread(
                    target=self._pump, args=(pair, source, sink, limit), daemon=True
                ).start()

    def _pump(self, pair, source, sink, limit):
        carried = 0
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if limit is not None and carried + len(data) >= limit:
                    sink.sendall(data[: limit - carried])
                    self.cuts += 1
                    break
                sink.sendall(data)
                carried += len(data)
        except OSError:
            pass
        self._close(pair, hard=False)

    def _close(self, pair, hard):
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for sock in pair:
            try:
                if hard:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def cut_one(self, hard=None):
        """Cuts a connection chosen at random. `hard`: by reset; None: by chance."""
        with self._lock:
            pairs = list(self._pairs)
        if not pairs:
            return False
        self.cuts += 1
        self._close(random.choice(pairs), random.random() < 0.5 if hard is None else hard)
        return True

    def cut_all(self):
        while self.cut_one():
            pass

    def stop(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut_all()
