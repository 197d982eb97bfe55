"""The PostgreSQL protocol by hand: a client that sends any bytes in any pieces, and a scripted server.

Message layouts: PostgreSQL manual, chapter "Frontend/Backend Protocol". SCRAM: RFC 5802, RFC 7677.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
import threading
import time
import weakref

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = (3 << 16) | 2
DEFAULT_TIMEOUT = 20.0

_open_connections = weakref.WeakSet()


class ProtocolError(Exception):
    """The peer broke the protocol, or closed where it should not."""


class ServerError(Exception):
    """An ErrorResponse where none was expected. `fields` maps the field letter to its text."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('S')}: {fields.get('C')}: {fields.get('M')}")
        self.fields = fields

    @property
    def code(self):
        return self.fields.get("C", "")

    @property
    def text(self):
        return self.fields.get("M", "")


def close_all():
    """Closes every client connection that a test left open."""
    for conn in list(_open_connections):
        conn.close()


# Messages.


def cstr(text):
    data = text if isinstance(text, bytes) else text.encode()
    return data + b"\0"


def message(kind, body=b""):
    kind = kind if isinstance(kind, bytes) else kind.encode()
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(parameters, version=PROTOCOL_3_0):
    body = struct.pack("!I", version)
    for name, value in parameters.items():
        body += cstr(name) + cstr(value)
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def request(code, rest=b""):
    return struct.pack("!II", 8 + len(rest), code) + rest


def cancel_request(pid, key):
    return request(CANCEL_REQUEST, struct.pack("!I", pid) + key)


def query(sql):
    return message("Q", cstr(sql))


def parse(sql, name="", types=()):
    body = cstr(name) + cstr(sql) + struct.pack("!H", len(types))
    return message("P", body + b"".join(struct.pack("!I", oid) for oid in types))


def bind(values=(), name="", portal="", result_formats=()):
    """Text parameters; None is NULL."""
    body = cstr(portal) + cstr(name) + struct.pack("!HH", 0, len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(data)) + data
    body += struct.pack("!H", len(result_formats))
    return message("B", body + b"".join(struct.pack("!H", f) for f in result_formats))


def describe(kind="P", name=""):
    return message("D", kind.encode() + cstr(name))


def execute(portal="", rows=0):
    return message("E", cstr(portal) + struct.pack("!I", rows))


def close(kind="S", name=""):
    return message("C", kind.encode() + cstr(name))


def function_call(oid, arguments=()):
    """Binary arguments and result."""
    body = struct.pack("!IHHH", oid, 1, 1, len(arguments))
    for argument in arguments:
        body += struct.pack("!i", len(argument)) + argument
    return message("F", body + struct.pack("!H", 1))


def extended(sql, values=(), name=""):
    """Parse, Bind, Describe, Execute of one statement, without Sync."""
    return parse(sql, name) + bind(values, name) + describe() + execute()


def copy_data(data):
    return message("d", data)


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")
COPY_DONE = message("c")


def copy_fail(reason="client gave up"):
    return message("f", cstr(reason))


# Replies.


class Message:
    """One message of a server. `kind` is its letter."""

    def __init__(self, kind, body):
        self.kind = kind
        self.body = body

    def __repr__(self):
        shown = self.body if len(self.body) < 80 else self.body[:80] + b"..."
        return f"{self.kind}{shown!r}"

    @property
    def fields(self):
        """Fields of an ErrorResponse or NoticeResponse."""
        assert self.kind in "EN", self
        fields = {}
        for part in self.body.split(b"\0"):
            if part:
                fields[chr(part[0])] = part[1:].decode(errors="replace")
        return fields

    @property
    def row(self):
        """Values of a DataRow as text, None for NULL."""
        assert self.kind == "D", self
        (count,) = struct.unpack_from("!H", self.body)
        at, values = 2, []
        for _ in range(count):
            (size,) = struct.unpack_from("!i", self.body, at)
            at += 4
            if size < 0:
                values.append(None)
            else:
                values.append(self.body[at : at + size].decode(errors="replace"))
                at += size
        return values

    @property
    def text(self):
        """The first string of the body: a command tag, a status byte."""
        return self.body.split(b"\0")[0].decode(errors="replace")

    @property
    def pair(self):
        """Name and value of a ParameterStatus."""
        assert self.kind == "S", self
        name, value = self.body.split(b"\0")[:2]
        return name.decode(), value.decode()


def kinds(messages):
    """The letters of the messages, notices and parameter reports left out."""
    return "".join(m.kind for m in messages if m.kind not in "NSA")


def rows(messages):
    return [m.row for m in messages if m.kind == "D"]


def errors(messages):
    return [m.fields for m in messages if m.kind == "E"]


def split(data):
    """Cuts bytes into messages: (list of Message, the rest)."""
    found, at = [], 0
    while at + 5 <= len(data):
        (size,) = struct.unpack_from("!I", data, at + 1)
        if at + 1 + size > len(data):
            break
        found.append(Message(chr(data[at]), bytes(data[at + 5 : at + 1 + size])))
        at += 1 + size
    return found, bytes(data[at:])


class Conn:
    """A client. `address` is (host, port), or the path of a unix socket."""

    def __init__(self, address, timeout=DEFAULT_TIMEOUT, receive_buffer=0):
        self.timeout = timeout
        self.buffer = bytearray()
        self.parameters = {}
        self.pid = 0
        self.key = b""
        self.negotiated = None
        self.notices = []
        self.round_trips = 0
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
            if family == socket.AF_INET:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.socket.close()
            raise
        _open_connections.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass

    def reset(self):
        """Closes so that the peer sees a connection reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def terminate(self):
        """Says goodbye and waits for the peer's end of file."""
        try:
            self.send(TERMINATE)
            while self.socket.recv(65536):
                pass
        except OSError:
            pass
        self.close()

    # Sending.

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def send_in_pieces(self, data, size=1, pause=0.0):
        for at in range(0, len(data), size):
            self.socket.sendall(data[at : at + size])
            if pause:
                time.sleep(pause)

    # Receiving.

    def _fill(self, wanted, deadline):
        while len(self.buffer) < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no message within {self.timeout} s")
            self.socket.settimeout(left)
            data = self.socket.recv(262144)
            if not data:
                raise EOFError(f"end of file with {len(self.buffer)} bytes of a message")
            self.buffer += data

    def recv_bytes(self, count, timeout=None):
        self._fill(count, time.monotonic() + (timeout or self.timeout))
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def recv(self, timeout=None):
        """The next message. EOFError at the end of the connection."""
        deadline = time.monotonic() + (timeout or self.timeout)
        self._fill(5, deadline)
        kind = chr(self.buffer[0])
        (size,) = struct.unpack_from("!I", self.buffer, 1)
        if size < 4:
            raise ProtocolError(f"length {size} in a message {kind!r}")
        self._fill(1 + size, deadline)
        body = bytes(self.buffer[5 : 1 + size])
        del self.buffer[: 1 + size]
        found = Message(kind, body)
        if kind == "S":
            name, value = found.pair
            self.parameters[name] = value
        elif kind == "N":
            self.notices.append(found.fields)
        return found

    def recv_until(self, last="Z", timeout=None):
        """Messages up to and including the first of kind `last`."""
        found = []
        while True:
            found.append(self.recv(timeout))
            if found[-1].kind in last:
                return found

    def recv_quiet(self, seconds=0.2):
        """Fails when anything arrives, or the peer closes, within the time."""
        assert not self.buffer, bytes(self.buffer[:80])
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return
        raise ProtocolError(f"unexpected {data!r}" if data else "unexpected end of file")

    def recv_to_end(self, timeout=None):
        """Everything up to the peer's end (end of file or reset), as raw bytes."""
        deadline = time.monotonic() + (timeout or self.timeout)
        try:
            while True:
                self._fill(len(self.buffer) + 1, deadline)
        except (EOFError, ConnectionError):
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def recv_last_error(self, timeout=None):
        """Reads to the end of the connection; the fields of the last message, an ErrorResponse."""
        found, rest = split(self.recv_to_end(timeout))
        assert not rest, f"half a message at the end: {rest[:80]!r}"
        assert found and found[-1].kind == "E", f"no error at the end: {found[-3:]}"
        return found[-1].fields

    # Login.

    def start(self, user, database, version=PROTOCOL_3_0, **parameters):
        self.send(startup({"user": user, "database": database, **parameters}, version))

    def login(self, user, database="app", password="", version=PROTOCOL_3_0, **parameters):
        """Startup and authentication up to the first ReadyForQuery. ServerError if refused."""
        self.start(user, database, version, **parameters)
        return self.finish_login(user, password)

    def finish_login(self, user, password=""):
        while True:
            got = self.recv()
            if got.kind == "E":
                raise ServerError(got.fields)
            if got.kind == "v":
                self.negotiated = negotiated_version(got)
            elif got.kind == "R":
                self._authenticate(got, user, password)
            elif got.kind == "K":
                self.pid = struct.unpack_from("!I", got.body)[0]
                self.key = got.body[4:]
            elif got.kind == "Z":
                return self
            elif got.kind not in "SN":
                raise ProtocolError(f"{got} during the login")

    def _authenticate(self, got, user, password):
        (code,) = struct.unpack_from("!I", got.body)
        if code == 0:
            return
        self.round_trips += 1
        if code == 3:
            self.send(message("p", cstr(password)))
        elif code == 5:
            inner = hashlib.md5((password + user).encode()).hexdigest()
            outer = hashlib.md5(inner.encode() + got.body[4:8]).hexdigest()
            self.send(message("p", cstr("md5" + outer)))
        elif code == 10:
            assert b"SCRAM-SHA-256" in got.body[4:].split(b"\0"), got
            self._scram(password)
        else:
            raise ProtocolError(f"authentication request {code}")

    def _scram(self, password):
        scram = ScramClient(password)
        first = scram.first()
        self.send(sasl_initial(first))
        got = self.recv()
        if got.kind == "E":
            raise ServerError(got.fields)
        assert struct.unpack_from("!I", got.body)[0] == 11, got
        self.round_trips += 1
        self.send(message("p", scram.final(got.body[4:])))
        got = self.recv()
        if got.kind == "E":
            raise ServerError(got.fields)
        assert struct.unpack_from("!I", got.body)[0] == 12, got
        assert scram.is_server(got.body[4:]), "the server's SCRAM signature is wrong"

    # Queries.

    def query(self, sql, timeout=None):
        """Rows of a simple query; ServerError if it failed."""
        self.send(query(sql))
        return self.result(timeout)

    def result(self, timeout=None):
        """Rows up to ReadyForQuery; ServerError if an error came."""
        found = self.recv_until("Z", timeout)
        for fields in errors(found):
            raise ServerError(fields)
        return rows(found)

    def value(self, sql, timeout=None):
        return self.query(sql, timeout)[0][0]

    def execute(self, sql, values=(), timeout=None):
        """Rows of one statement by the extended protocol."""
        self.send(extended(sql, values), SYNC)
        return self.result(timeout)

    def error_of(self, sql, timeout=None):
        """The fields of the error that a simple query must give."""
        try:
            self.query(sql, timeout)
        except ServerError as error:
            return error.fields
        raise AssertionError(f"no error from {sql[:80]}")


def negotiated_version(got):
    """(minor version, names of unknown options) of a NegotiateProtocolVersion."""
    minor, count = struct.unpack_from("!II", got.body)
    names = [n.decode() for n in got.body[8:].split(b"\0")[:count]]
    return minor & 0xFFFF, names


def sasl_initial(first, mechanism="SCRAM-SHA-256"):
    return message("p", cstr(mechanism) + struct.pack("!I", len(first)) + first)


# SCRAM.


def scram_keys(password, salt, rounds):
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return client_key, hashlib.sha256(client_key).digest(), server_key


def scram_verifier(password, salt=b"salt for a test!", rounds=4096):
    """As in pg_authid.rolpassword."""
    _, stored_key, server_key = scram_keys(password, salt, rounds)
    salt64, stored64, server64 = (
        base64.b64encode(x).decode() for x in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256${rounds}:{salt64}${stored64}:{server64}"


class ScramClient:
    def __init__(self, password):
        self.password = password
        self.bare = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
        self.signature = b""
        self.salt = b""
        self.rounds = 0

    def first(self):
        return ("n,," + self.bare).encode()

    def final(self, challenge):
        parts = dict(p.split("=", 1) for p in challenge.decode().split(","))
        assert parts["r"].startswith(self.bare[5:]), "the nonce is not ours"
        self.salt, self.rounds = base64.b64decode(parts["s"]), int(parts["i"])
        client_key, stored_key, server_key = scram_keys(self.password, self.salt, self.rounds)
        without_proof = "c=biws,r=" + parts["r"]
        signed = ",".join([self.bare, challenge.decode(), without_proof]).encode()
        self.signature = hmac.digest(server_key, signed, "sha256")
        mask = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, mask))
        return (without_proof + ",p=" + base64.b64encode(proof).decode()).encode()

    def is_server(self, final):
        return final == b"v=" + base64.b64encode(self.signature)


# The scripted server.


def row_description(*names):
    body = struct.pack("!H", len(names))
    for name in names:
        body += cstr(name) + struct.pack("!IHIhiH", 0, 0, 25, -1, -1, 0)
    return message("T", body)


def data_row(*values):
    body = struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", len(value)) + value.encode()
    return message("D", body)


def command_complete(tag):
    return message("C", cstr(tag))


def ready(status="I"):
    return message("Z", status.encode())


def error_response(code, text, severity="ERROR"):
    fields = [("S", severity), ("V", severity), ("C", code), ("M", text)]
    return message("E", b"".join(n.encode() + cstr(v) for n, v in fields) + b"\0")


def parameter_status(name, value):
    return message("S", cstr(name) + cstr(value))


AUTHENTICATION_OK = message("R", struct.pack("!I", 0))
SERVER_PARAMETERS = {
    "server_version": "18.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "application_name": "",
    "is_superuser": "off",
    "session_authorization": "app",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "Etc/UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
}


class ServerConn:
    """One accepted connection of a ScriptedServer."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(DEFAULT_TIMEOUT)
        self.startup = {}
        self.version = 0
        self.key = b"\1\2\3\4"
        self.pid = 4242

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def recv_exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def read_startup(self):
        """Reads the first packet, refusing encryption. Returns False for a cancel request."""
        while True:
            (size,) = struct.unpack("!I", self.recv_exactly(4))
            body = self.recv_exactly(size - 4)
            (self.version,) = struct.unpack_from("!I", body)
            if self.version == CANCEL_REQUEST:
                self.pid, self.key = struct.unpack_from("!I", body, 4)[0], body[8:]
                return False
            if self.version in (SSL_REQUEST, GSSENC_REQUEST):
                self.send(b"N")
                continue
            words = [w.decode() for w in body[4:].split(b"\0")]
            self.startup = dict(zip(words[0::2], words[1::2]))
            return True

    def welcome(self, parameters=None, key=None):
        """AuthenticationOk up to ReadyForQuery. application_name echoes the startup packet's."""
        values = {**SERVER_PARAMETERS, **(parameters or {})}
        for name in list(values):
            for asked, value in self.startup.items():
                if asked.lower() == name.lower():
                    values[name] = value
        self.send(
            AUTHENTICATION_OK,
            *(parameter_status(n, v) for n, v in values.items()),
            message("K", struct.pack("!I", self.pid) + (key or self.key)),
            ready(),
        )

    def recv(self):
        head = self.recv_exactly(5)
        (size,) = struct.unpack_from("!I", head, 1)
        return Message(chr(head[0]), self.recv_exactly(size - 4))

    def answer_housekeeping(self, got):
        """Answers SET, RESET, DISCARD, ROLLBACK and empty queries. False if it was none of them."""
        word = got.text.strip().split(" ")[0].rstrip(";").upper() if got.kind == "Q" else ""
        if got.kind != "Q" or word not in ("SET", "RESET", "DISCARD", "ROLLBACK", ""):
            return False
        if not word:
            self.send(message("I"), ready())
            return True
        for _ in [s for s in got.text.split(";") if s.strip()]:
            self.send(command_complete(word))
        self.send(ready())
        return True

    def serve_queries(self, on_query):
        """Until the client leaves: `on_query(conn, message)` for all that is not housekeeping."""
        while True:
            got = self.recv()
            if got.kind == "X":
                return
            if not self.answer_housekeeping(got):
                on_query(self, got)


class ScriptedServer:
    """A fake PostgreSQL: `script(conn)` runs in a thread for each connection that comes in.

    The end of a script closes its connection. `failures` holds what scripts raised, other than a
    vanished peer; `check()` raises the first.
    """

    def __init__(self, script):
        self.script = script
        self.failures = []
        self.count = 0
        self._conns = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.count += 1
                self._conns.add(sock)
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock):
        try:
            self.script(ServerConn(sock))
        except (EOFError, OSError):
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(error)
        with self._lock:
            self._conns.discard(sock)
        sock.close()

    def stop(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        with self._lock:
            conns = list(self._conns)
        for sock in conns:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def check(self):
        for error in self.failures:
            raise error
