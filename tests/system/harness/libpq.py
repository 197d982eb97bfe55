"""libpq by ctypes, non-blocking underneath so that a test's time-out can end every wait."""

import ctypes
import ctypes.util
import select
import time
import weakref

CONNECTION_OK, CONNECTION_BAD = 0, 1
POLLING_FAILED, POLLING_READING, POLLING_WRITING, POLLING_OK = 0, 1, 2, 3
(
    EMPTY_QUERY,
    COMMAND_OK,
    TUPLES_OK,
    COPY_OUT,
    COPY_IN,
    BAD_RESPONSE,
    NONFATAL_ERROR,
    FATAL_ERROR,
    COPY_BOTH,
    SINGLE_TUPLE,
    PIPELINE_SYNC,
    PIPELINE_ABORTED,
) = range(12)

_lib = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
_void, _text, _int = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_texts, _ints = ctypes.POINTER(_text), ctypes.POINTER(_int)


class _Notification(ctypes.Structure):
    _fields_ = [("channel", _text), ("pid", _int), ("payload", _text)]


for _name, _result, _arguments in (
    ("PQconnectStart", _void, [_text]),
    ("PQconnectPoll", _int, [_void]),
    ("PQstatus", _int, [_void]),
    ("PQfinish", None, [_void]),
    ("PQsocket", _int, [_void]),
    ("PQerrorMessage", _text, [_void]),
    ("PQparameterStatus", _text, [_void, _text]),
    ("PQbackendPID", _int, [_void]),
    ("PQtransactionStatus", _int, [_void]),
    ("PQsetnonblocking", _int, [_void, _int]),
    ("PQflush", _int, [_void]),
    ("PQconsumeInput", _int, [_void]),
    ("PQisBusy", _int, [_void]),
    ("PQgetResult", _void, [_void]),
    ("PQclear", None, [_void]),
    ("PQresultStatus", _int, [_void]),
    ("PQresultErrorField", _text, [_void, _int]),
    ("PQresultErrorMessage", _text, [_void]),
    ("PQcmdStatus", _text, [_void]),
    ("PQntuples", _int, [_void]),
    ("PQnfields", _int, [_void]),
    ("PQfformat", _int, [_void, _int]),
    ("PQgetvalue", _void, [_void, _int, _int]),
    ("PQgetlength", _int, [_void, _int, _int]),
    ("PQgetisnull", _int, [_void, _int, _int]),
    ("PQsendQuery", _int, [_void, _text]),
    (
        "PQsendQueryParams",
        _int,
        [_void, _text, _int, _ints, _texts, _ints, _ints, _int],
    ),
    ("PQsendPrepare", _int, [_void, _text, _text, _int, _ints]),
    ("PQsendQueryPrepared", _int, [_void, _text, _int, _texts, _ints, _ints, _int]),
    ("PQputCopyData", _int, [_void, _text, _int]),
    ("PQputCopyEnd", _int, [_void, _text]),
    ("PQgetCopyData", _int, [_void, ctypes.POINTER(_void), _int]),
    ("PQfreemem", None, [_void]),
    ("PQnotifies", ctypes.POINTER(_Notification), [_void]),
    ("PQgetCancel", _void, [_void]),
    ("PQfreeCancel", None, [_void]),
    ("PQcancel", _int, [_void, _text, _int]),
    ("PQenterPipelineMode", _int, [_void]),
    ("PQexitPipelineMode", _int, [_void]),
    ("PQpipelineSync", _int, [_void]),
    ("PQsendFlushRequest", _int, [_void]),
):
    _function = getattr(_lib, _name)
    _function.restype, _function.argtypes = _result, _arguments

_notice_processor = ctypes.CFUNCTYPE(None, _void, _text)(lambda _, __: None)
_lib.PQsetNoticeProcessor.argtypes = [_void, _void, _void]

_open_connections = weakref.WeakSet()


def close_all():
    for conn in list(_open_connections):
        conn.close()


class Error(Exception):
    """A failed connection or query. `code` is the SQLSTATE, empty if there is none."""

    def __init__(self, text, code=""):
        super().__init__(f"{code} {text}".strip())
        self.text = text
        self.code = code


class Result:
    """A copy of a PGresult; values in binary are bytes, others text."""

    def __init__(self, handle):
        self.status = _lib.PQresultStatus(handle)
        self.tag = (_lib.PQcmdStatus(handle) or b"").decode()
        self.error = (_lib.PQresultErrorMessage(handle) or b"").decode(errors="replace").strip()
        self.code = (_lib.PQresultErrorField(handle, ord("C")) or b"").decode()
        self.rows = []
        columns = range(_lib.PQnfields(handle))
        for row in range(_lib.PQntuples(handle)):
            self.rows.append([self._value(handle, row, column) for column in columns])
        _lib.PQclear(handle)

    @staticmethod
    def _value(handle, row, column):
        if _lib.PQgetisnull(handle, row, column):
            return None
        size = _lib.PQgetlength(handle, row, column)
        data = ctypes.string_at(_lib.PQgetvalue(handle, row, column), size)
        return data if _lib.PQfformat(handle, column) else data.decode(errors="replace")

    def check(self):
        if self.status in (FATAL_ERROR, BAD_RESPONSE):
            raise Error(self.error, self.code)
        return self


def _texts_of(values):
    encoded = [None if v is None else str(v).encode() for v in values]
    return (ctypes.c_char_p * max(1, len(encoded)))(*encoded)


def _binaries_of(values):
    """Values, lengths and formats of parameters in binary: bytes or None."""
    ones = [1] * len(values)
    return (
        (ctypes.c_char_p * max(1, len(values)))(*values),
        _ints_of([len(v or b"") for v in values]),
        _ints_of(ones),
    )


def _ints_of(numbers):
    return (ctypes.c_int * max(1, len(numbers)))(*numbers)


class Conn:
    """A connection; `dsn` is a libpq connection string."""

    def __init__(self, dsn, timeout=20.0):
        self.timeout = timeout
        self._deadline = 0.0
        self._handle = _lib.PQconnectStart(dsn.encode())
        _lib.PQsetNoticeProcessor(self._handle, _notice_processor, None)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        _lib.PQsetnonblocking(self._handle, 1)
        _open_connections.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._handle:
            _lib.PQfinish(self._handle)
            self._handle = None

    def _arm(self, timeout=None):
        self._deadline = time.monotonic() + (timeout or self.timeout)

    def _wait(self, reading, writing):
        descriptor = _lib.PQsocket(self._handle)
        poll = select.poll()
        events = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
        poll.register(descriptor, events)
        left = self._deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(f"libpq: nothing within {self.timeout} s")

    def _fail(self):
        raise Error((_lib.PQerrorMessage(self._handle) or b"").decode(errors="replace").strip())

    def _connect(self):
        self._arm()
        if _lib.PQstatus(self._handle) == CONNECTION_BAD:
            self._fail()
        state = POLLING_WRITING
        while state != POLLING_OK:
            self._wait(state == POLLING_READING, state == POLLING_WRITING)
            state = _lib.PQconnectPoll(self._handle)
            if state == POLLING_FAILED:
                self._fail()

    def _flush(self):
        while True:
            left = _lib.PQflush(self._handle)
            if left == 0:
                return
            if left < 0:
                self._fail()
            self._wait(True, True)
            _lib.PQconsumeInput(self._handle)

    def _check(self, done):
        if not done:
            self._fail()

    @property
    def pid(self):
        return _lib.PQbackendPID(self._handle)

    @property
    def transaction_status(self):
        """0 idle, 1 active, 2 in transaction, 3 in error, 4 unknown."""
        return _lib.PQtransactionStatus(self._handle)

    def fileno(self):
        return _lib.PQsocket(self._handle)

    def parameter(self, name):
        value = _lib.PQparameterStatus(self._handle, name.encode())
        return None if value is None else value.decode()

    def get_result(self, timeout=None):
        """The next Result, or None."""
        self._arm(timeout)
        self._flush()
        while _lib.PQisBusy(self._handle):
            self._wait(True, False)
            if not _lib.PQconsumeInput(self._handle):
                break
        handle = _lib.PQgetResult(self._handle)
        return Result(handle) if handle else None

    def results(self, timeout=None):
        found = []
        while True:
            result = self.get_result(timeout)
            if result is None:
                return found
            found.append(result)
            if result.status in (COPY_IN, COPY_OUT, COPY_BOTH):
                return found

    def query(self, sql, timeout=None):
        """Result of a simple query; Error if it failed."""
        self.send_query(sql)
        found = self.results(timeout)
        for result in found:
            result.check()
        return found[-1]

    def value(self, sql):
        return self.query(sql).rows[0][0]

    def execute(self, sql, values=(), timeout=None):
        self.send_params(sql, values)
        return self._last_result(timeout)

    def execute_binary(self, sql, types=(), values=()):
        """Parameters, of types with these numbers, and result in binary: bytes or None."""
        self._check(
            _lib.PQsendQueryParams(
                self._handle, sql.encode(), len(values), _ints_of(types), *_binaries_of(values), 1
            )
        )
        return self._last_result()

    def _last_result(self, timeout=None):
        found = self.results(timeout)
        for result in found:
            result.check()
        return found[-1]

    def send_query(self, sql):
        self._check(_lib.PQsendQuery(self._handle, sql.encode()))
        self._arm()
        self._flush()

    def send_params(self, sql, values=()):
        array = _texts_of(values)
        self._check(
            _lib.PQsendQueryParams(
                self._handle, sql.encode(), len(values), None, array, None, None, 0
            )
        )
        self._arm()
        self._flush()

    def send_prepare(self, name, sql, types=()):
        self._check(
            _lib.PQsendPrepare(
                self._handle, name.encode(), sql.encode(), len(types), _ints_of(types)
            )
        )
        self._arm()
        self._flush()

    def send_prepared(self, name, values=()):
        array = _texts_of(values)
        self._check(
            _lib.PQsendQueryPrepared(
                self._handle, name.encode(), len(values), array, None, None, 0
            )
        )
        self._arm()
        self._flush()

    def prepare(self, name, sql, types=()):
        self.send_prepare(name, sql, types)
        for result in self.results():
            result.check()

    def execute_prepared(self, name, values=()):
        self.send_prepared(name, values)
        return self._last_result()

    def execute_prepared_binary(self, name, values=()):
        """As execute_binary."""
        self._check(
            _lib.PQsendQueryPrepared(
                self._handle, name.encode(), len(values), *_binaries_of(values), 1
            )
        )
        return self._last_result()

    def enter_pipeline(self):
        self._check(_lib.PQenterPipelineMode(self._handle))

    def exit_pipeline(self):
        self._check(_lib.PQexitPipelineMode(self._handle))

    def pipeline_sync(self):
        self._check(_lib.PQpipelineSync(self._handle))
        self._arm()
        self._flush()

    def flush_request(self):
        self._check(_lib.PQsendFlushRequest(self._handle))
        self._arm()
        self._flush()

    def put_copy(self, data):
        self._arm()
        while True:
            done = _lib.PQputCopyData(self._handle, data, len(data))
            if done == 1:
                return
            if done < 0:
                self._fail()
            self._wait(True, True)
            _lib.PQconsumeInput(self._handle)
            _lib.PQflush(self._handle)

    def end_copy(self, error=None):
        self._arm()
        while True:
            done = _lib.PQputCopyEnd(self._handle, None if error is None else error.encode())
            if done == 1:
                break
            if done < 0:
                self._fail()
            self._wait(True, True)
            _lib.PQconsumeInput(self._handle)
            _lib.PQflush(self._handle)
        return self.results()

    def get_copy(self):
        """The next piece of COPY OUT, or None at its end."""
        self._arm()
        while True:
            piece = _void()
            size = _lib.PQgetCopyData(self._handle, ctypes.byref(piece), 1)
            if size > 0:
                data = ctypes.string_at(piece, size)
                _lib.PQfreemem(piece)
                return data
            if size == -1:
                return None
            if size < -1:
                self._fail()
            self._wait(True, False)
            if not _lib.PQconsumeInput(self._handle):
                self._fail()

    def notifications(self):
        """Those that have come with what was read, and were not asked for yet: (process id, channel, payload)."""
        found = []
        while handle := _lib.PQnotifies(self._handle):
            got = handle.contents
            found.append((got.pid, got.channel.decode(), got.payload.decode()))
            _lib.PQfreemem(ctypes.cast(handle, _void))
        return found

    def wait_notifications(self, timeout=None):
        """As above, but at least one."""
        self._arm(timeout)
        while True:
            found = self.notifications()
            if found:
                return found
            self._wait(True, False)
            if not _lib.PQconsumeInput(self._handle):
                self._fail()

    def cancel(self):
        """Sends a cancel request for what runs now. Blocks until the peer has taken it."""
        handle = _lib.PQgetCancel(self._handle)
        text = ctypes.create_string_buffer(256)
        done = _lib.PQcancel(handle, ctypes.cast(text, _text), 256)
        _lib.PQfreeCancel(handle)
        if not done:
            raise Error(text.value.decode(errors="replace"))
