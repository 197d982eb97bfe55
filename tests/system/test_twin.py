#!/usr/bin/python3
"""Random scripts of messages, sent to PostgreSQL and through the proxy, are answered alike, frame by frame.

    ./test_twin.py                     the scripts that CI runs
    ./test_twin.py --scripts 10000     as many as you like, with --first N from another seed on
    ./test_twin.py --seed 42           one script (with those that run beside it), and what it says
"""

import random
import re
import select
import time

from harness import runner, scripts, wire

# Scripts that run at the same time, and the server connections that they share.
SIDE_BY_SIDE = 6
CONNECTIONS = 2
SILENCE = 20.0  # Seconds.
FAILURES_MAX = 3  # Then the rest is not played.
DATABASE = "app"

SEED = runner.option("--seed")
FIRST = int(runner.option("--first") or 1)
SCRIPTS = int(runner.option("--scripts") or runner.scaled(300, 60))


class Player:
    """Plays a script on one connection and keeps what comes back."""

    def __init__(self, conn, chance=None):
        self.conn = conn
        self.chance = chance  # Where messages are cut; None: nowhere.
        self.frames = []
        self.stale = []  # Ranges of frames that may say that a plan does not fit any more, and of which kind.
        self.end = ""  # Why it ended before the script did.
        self._rest = bytes(conn.buffer)
        self._base = 0  # Frames when nothing was owed.

    def play(self, script):
        for exchange in script.exchanges:
            if exchange.before:
                runner.cluster().run(exchange.before)
            begin = len(self.frames)
            self._play(exchange)
            if exchange.may_be_stale:
                self.stale.append((begin, len(self.frames), exchange.may_be_stale))
            if self.end:
                break
        return self.frames

    def _play(self, exchange):
        # What is answered with an error before all of it was sent is not tried again.
        pieces = [exchange.data] if exchange.may_be_stale else self._cut(exchange.data)
        sock = self.conn.socket
        sock.setblocking(False)
        deadline = time.monotonic() + SILENCE
        while pieces or not self._is_met(exchange.until):
            readable, writable, _ = select.select([sock], [sock] if pieces else [], [], 1)
            if readable:
                deadline = time.monotonic() + SILENCE
                if not self._receive(sock):
                    return
            if writable:
                self._send(sock, pieces)
            if not readable and not writable and time.monotonic() > deadline:
                self.end = f"silence, {len(self._rest)} bytes of a message"
                return
        if exchange.until[0] in ("Z", "row"):
            self._base = len(self.frames)

    def _cut(self, data):
        """Pieces in the reverse order."""
        if self.chance is None or not data or self.chance.random() < 0.3:
            return [data] if data else []
        size = self.chance.choice((1, 3, 20, 300, 5000))
        if len(data) / size > 300:
            size = len(data) // 300
        pieces = []
        while data:
            at = self.chance.randrange(1, 2 * size + 1)
            pieces.append(data[:at])
            data = data[at:]
        return pieces[::-1]

    def _receive(self, sock):
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except ConnectionError as error:
            self.end = f"{error}"
            return False
        if not data:
            self.end = "end of file" + (f" within a message: {self._rest[:40]!r}" if self._rest else "")
            return False
        found, self._rest = wire.split(self._rest + data)
        self.frames += found
        return True

    def _send(self, sock, pieces):
        piece = pieces.pop()
        try:
            sent = sock.send(piece)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            pieces.clear()  # What the peer said before is still to be read.
            return
        if sent < len(piece):
            pieces.append(piece[sent:])

    def _is_met(self, until):
        frames = self.frames
        kinds = "".join(f.kind for f in frames[self._base :])
        if until[0] == "Z":
            return kinds.count("Z") >= until[1]
        if until[0] == "some":
            return "E" in kinds or "Z" in kinds or sum(map(kinds.count, until[1])) >= until[2]
        if until[0] == "row":
            marked = [i for i, f in enumerate(frames) if f.kind == "D" and until[1].encode() in f.body]
            return bool(marked) and any(f.kind == "Z" for f in frames[marked[-1] :])
        return False


# Names that the proxy gives to statements.
OWN_NAME = re.compile(rb'statement "helios_[0-9a-f]{32}"')


def comparable(frame, other):
    """What must be equal of a frame of PostgreSQL and that of the proxy."""
    bodies = frame.body, other.body
    # In its last words the proxy does not name lines of PostgreSQL's source.
    if frame.kind == other.kind == "E" and frame.fields.get("S") == "FATAL":
        return [[each.fields.get(field) for field in "SCM"] for each in (frame, other)]
    # A Bind with a wrong number of parameters: the server tells the name that it knows.
    if frame.kind == other.kind == "E" and frame.fields.get("C") == "08P01" and OWN_NAME.search(other.body):
        name = re.search(rb'statement "[^"]+"', frame.body)
        bodies = frame.body, OWN_NAME.sub(lambda _: name[0] if name else b"none", other.body)
    # In a failed transaction the server refuses a statement that it would have to be given first, before it looks at
    # what is bound.
    if frame.kind == other.kind == "E" and other.fields.get("C") == "25P02":
        if frame.fields.get("C") == "25P02" or frame.fields.get("M", "").startswith("bind message supplies"):
            return ["E", frame.fields.get("S")], ["E", other.fields.get("S")]
    # Behind the process id of who notifies.
    if frame.kind == other.kind == "A":
        bodies = frame.body[4:], other.body[4:]
    return (frame.kind, bodies[0]), (other.kind, bodies[1])


def without_stale(direct, proxied):
    """Leaves out where PostgreSQL says, outside of a transaction, that a plan does not fit any more, and the proxy has
    prepared the statement anew. One of PREPARE is made anew only where it was not yet: that may fit later."""
    for (begin, end, kind), (other_begin, other_end, _) in reversed(list(zip(direct.stale, proxied.stale))):
        frames, others = direct.frames[begin:end], proxied.frames[other_begin:other_end]
        if not all(each[-1:] and each[-1].body == b"I" for each in (frames, others)):
            continue
        codes, other_codes = ([fields["C"] for fields in wire.errors(each)] for each in (frames, others))
        is_made_anew = codes == ["0A000"] and other_codes == [] and wire.kinds(others).endswith("CZ")
        is_of_before = kind == scripts.STALE_IN_SQL and codes == [] and other_codes == ["0A000"]
        if is_made_anew or is_of_before:
            del direct.frames[begin:end]
            del proxied.frames[other_begin:other_end]


def without_refused(direct, proxied):
    """Leaves out where PostgreSQL describes a statement in a failed transaction, and the proxy refuses that: the server
    would have to be given it first."""
    for number, (frame, other) in enumerate(zip(direct.frames, proxied.frames)):
        if frame.kind != "t" or other.kind != "E" or other.fields["C"] != "25P02":
            continue
        for frames in (direct.frames, proxied.frames):
            end = next((i for i in range(number, len(frames)) if frames[i].kind == "Z"), number)
            if frames[end].body == b"E":
                del frames[number:end]


def difference(direct, proxied):
    """The first frame that differs, in words; empty if none does."""
    without_stale(direct, proxied)
    without_refused(direct, proxied)
    for number, frame in enumerate(direct.frames):
        if number >= len(proxied.frames):
            return f"frame {number}: PostgreSQL says {frame}; the proxy nothing: {proxied.end}"
        other = proxied.frames[number]
        wanted, got = comparable(frame, other)
        if wanted != got:
            before = f"; before it {direct.frames[number - 1]}" if number else ""
            return f"frame {number}: PostgreSQL says {frame}; the proxy {other}{before}"
    if len(proxied.frames) > len(direct.frames):
        return f"the proxy says more: {proxied.frames[len(direct.frames)]}"
    if bool(direct.end) != bool(proxied.end):
        return f"PostgreSQL ends with {direct.end!r}; the proxy with {proxied.end!r}"
    return ""


def play(connect, script, chance=None):
    """The player of a script after it has played it, on a connection of its own."""
    runner.cluster().run(scripts.ROWS.format(t=script.table))
    conn = connect(**script.startup)
    try:
        player = Player(conn, chance)
        player.play(script)
        return player
    finally:
        conn.close()


def check(script, proxy):
    """Plays a script on both sides; what differs, in words."""
    direct = play(lambda **p: wire.Conn(runner.cluster().address).login("bench", DATABASE, **p), script)
    if direct.end and any(f.kind == "E" and f.fields["C"] == "XX000" for f in direct.frames):
        return ""  # PostgreSQL gives up for a mistake of its own (RELEASE in an implicit block): nothing to compare.
    assert not direct.end or script.exchanges[-1].until == ("end",), (
        f"seed {script.seed}: PostgreSQL itself: {direct.end}\n{script}\n{runner.cluster().log_tail(60)}"
    )
    proxied = play(lambda **p: proxy.client(database=DATABASE, **p), script, random.Random(script.seed))
    if direct.conn.parameters != proxied.conn.parameters:
        return f"reported parameters: {direct.conn.parameters} and {proxied.conn.parameters}"
    return difference(direct, proxied)


def run_seeds(proxy, seeds):
    """Plays the scripts of the seeds, some at a time."""
    for lane in range(SIDE_BY_SIDE):
        runner.cluster().run(scripts.TABLE.format(t=f"twin_{lane}"), DATABASE)
    seeds = list(seeds)
    failures = []

    def run_lane(lane):
        for seed in seeds:
            if seed % SIDE_BY_SIDE != lane or len(failures) >= FAILURES_MAX:
                continue
            script = scripts.Script(seed, f"twin_{lane}")
            found = check(script, proxy)
            if found:
                failures.append(f"seed {seed}: {found}\n{script}\nagain: test_twin.py --seed {seed}")

    runner.in_threads([lambda lane=lane: run_lane(lane) for lane in range(SIDE_BY_SIDE)], 60 + len(seeds))
    assert not failures, "\n\n".join(failures)


@runner.cases((1, "transaction"), (2, "transaction"), (2, "session"))
@runner.timeout(120 + SCRIPTS)
def test_twin(cores, mode):
    """Each reply to a random script is PostgreSQL's own, while clients take turns on fewer connections."""
    proxy = runner.proxy(cores=cores, mode=mode, max_connections=CONNECTIONS)
    if SEED is not None:
        first = int(SEED) // SIDE_BY_SIDE * SIDE_BY_SIDE
        return run_seeds(proxy, range(first, first + SIDE_BY_SIDE))
    part = (SCRIPTS + 2) // 3
    first = FIRST + part * ((cores - 1) + (mode == "session"))
    return run_seeds(proxy, range(first, first + part))


if __name__ == "__main__":
    runner.main()
