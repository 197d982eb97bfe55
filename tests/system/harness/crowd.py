"""Clients of the mix-up test: each knows what its own session must look like, and reads nothing unchecked.

Each connection has a tag, and each thing that it does a number: whatever row comes back must begin with both. Beside
that a connection keeps a model of its session: what it has set, who it is, which statements it has prepared.
"""

import asyncio
import collections
import random
import struct

from . import wire
from .wire import query

SILENCE = 60
# What a client may hear when its backend was terminated: as its last word, or as an error behind which it goes on.
LOST = ("57P01", "08006")
CANCELLED = "canceling statement due to user request"
# What clients set; empty: not set. What a client finds when it has set nothing, and in which way it is shown.
DEFAULTS = {
    "application_name": "",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "work_mem": "4MB",
    "search_path": '"$user", public',
    "bytea_output": "hex",
    "mix.tag": "",
    "mix.note": "",
}
# Parameters that the server reports, in its spelling.
REPORTED = {"application_name": "application_name", "TimeZone": "timezone", "DateStyle": "datestyle"}


class Lost(Exception):
    """The backend was terminated under the client, and its connection has ended with it."""


class Gone(Exception):
    """The client has closed its connection, as it meant to."""


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


class Crowd:
    """What all clients share."""

    def __init__(self, address, user, seed):
        self.address = address
        self.user = user
        self.chance = random.Random(seed)
        self.is_over = False
        self.lives = {}  # Client number -> its connection now.
        self.listeners = {}  # Channel -> the connection that listens;
        self.waiting = {}  # of those that wait for somebody else to notify them.
        self.processes = set()  # Of the server, that served them.
        self.kills = 0
        self.counts = collections.Counter()
        self.done = collections.defaultdict(collections.Counter)  # By kind of work: done, cancelled, lost...

    def forget_listener(self, life):
        """Nobody begins to notify it any more."""
        self.listeners.pop(life.channel, None)
        self.waiting.pop(life.channel, None)

    def table(self):
        """What was done, a line for each kind of work."""
        columns = ("done", "cancelled", "lost", "lost, went on")
        lines = [f"{'':22}" + "".join(f"{c:>15}" for c in columns)]
        for what in sorted(self.done):
            lines.append(f"{what:22}" + "".join(f"{self.done[what][c]:15}" for c in columns))
        lines += [f"{what:22}{count:15}" for what, count in sorted(self.counts.items())]
        lines.append(f"{'backends terminated':22}{self.kills:15}")
        return "\n".join("    " + line for line in lines)


class Life:
    """One connection of a client, from login to end."""

    def __init__(self, crowd, number, reader, writer):
        self.crowd = crowd
        self.chance = crowd.chance
        self.number = number
        self.tag = f"c{number}.{crowd.chance.randrange(1 << 40):x}"
        self.reader = reader
        self.writer = writer
        self.pid, self.key = 0, b""
        self.doing = "login"
        self.cancels = 0  # Requests that were sent for this connection.
        self.losses = 0  # Backends that were lost without the connection.
        self.turn = 0
        self.rows = 0  # In the table, of this tag.
        self.served_by = ""  # A process of the server.
        self.table_at = None  # It has a temporary table since so many losses.
        self.held = "\0"  # What rows of an earlier turn begin with that are still to come.
        self.defaults = dict(DEFAULTS)
        self.settings = dict(DEFAULTS)
        self.role, self.authorization = "", ""
        self.is_settled = True  # The model of the settings is not in doubt.
        self.reported = {}
        self.statements = {}  # Name -> its own text.
        self.channel, self.heard, self.heard_of_others = None, [], 0
        self.sent = {}  # What others notify it of -> a future: the server has said that it is done.
        self.history = collections.deque(maxlen=12)  # What was sent and heard last, for who has to find out.
        self._rest = b""
        self._found = collections.deque()

    async def login(self):
        startup = {"user": self.crowd.user, "database": "app"}
        if self.chance.random() < 0.5:
            self.defaults["application_name"] = startup["application_name"] = f"first of {self.tag}"
        if self.chance.random() < 0.3:
            self.defaults["timezone"] = startup["TimeZone"] = "Asia/Kolkata"
        self.settings = dict(self.defaults)
        self.writer.write(wire.startup(startup))
        for got in await self.receive(1):
            if got.kind == "K":
                self.pid, self.key = struct.unpack_from("!I", got.body)[0], got.body[4:]
        self.crowd.counts["logins"] += 1

    # Talking.

    def word(self, rest=""):
        """What every answer of this turn begins with."""
        return f"{self.tag}:{self.turn}:{rest}"

    async def next(self):
        while not self._found:
            data = await asyncio.wait_for(self.reader.read(1 << 18), SILENCE)
            if not data:
                raise EOFError(f"{self.tag}: end of file while it was in {self.doing}")
            found, self._rest = wire.split(self._rest + data)
            self._found.extend(found)
        got = self._found.popleft()
        if got.kind == "A":
            self._on_notification(got)
        elif got.kind == "S":
            self.reported[got.pair[0]] = got.pair[1]
        return got

    async def receive(self, count):
        """Messages up to the `count`th ReadyForQuery, but for notifications, which come when they like."""
        found = []
        while count:
            got = await self.next()
            if got.kind == "A":
                continue
            found.append(got)
            count -= got.kind == "Z"
            if got.kind == "E" and got.fields["S"] == "FATAL" and got.fields["C"] in LOST:
                raise Lost
            self.expect(got.kind != "E" or got.fields["S"] == "ERROR", got)
        return found

    async def ask(self, *messages, count=1):
        """Sends, and returns the answers; None if the work was cancelled or lost. No row may be another's."""
        self.turn += 1
        data = b"".join(m(self) if callable(m) else m for m in messages)
        self.history.append(f"{self.turn} {self.doing} sends {data[:300]!r}")
        self.writer.write(data)
        found = await self.receive(count)
        self.history.append(f"{self.turn} hears {str(found)[:600]}")
        for got in found:
            if got.kind == "D":
                self.expect(got.row[0].startswith((self.word(), self.held)), got.row[0])
            elif got.kind == "d":
                self.expect(got.body.decode().startswith(self.word()), got.body)
            elif got.kind == "N" and self.tag not in got.fields["M"]:
                # There is no transaction, or no such table.
                self.expect(got.fields["C"] in ("25P01", "25001", "00000"), got.fields)
        errors = wire.errors(found)
        if CANCELLED in [f["M"] for f in errors]:
            self.expect(self.cancels > 0, "a cancel that nobody asked for")
            self._count("cancelled")
        elif any(f["C"] in LOST for f in errors):
            self.losses += 1
            self._count("lost, went on")
        else:
            return found
        await self._come_back(found[-1].body)
        return None

    async def ask_surely(self, *messages, count=1):
        """Asks until it is neither cancelled nor lost. For what may be done twice."""
        while True:
            found = await self.ask(*messages, count=count)
            if found is not None:
                return found

    def _count(self, what):
        self.crowd.done[self.doing][what] += 1

    async def _come_back(self, status):
        """After a cancel or a loss: out of the transaction, and with everything that is known to be its own."""
        if status != b"I":
            await self.ask(query("rollback"))
        # It may have been done before that.
        self.rows = await self.count_rows()
        if self.is_settled:
            await self.check_settings()

    def expect(self, is_so, what):
        past = "".join(f"\n    {line}" for line in self.history)
        assert is_so, f"{self.tag}, turn {self.turn}, {self.doing}: {what}; before that:{past}"

    def expect_rows(self, found, wanted):
        got = [m.row for m in found if m.kind == "D"]
        self.expect(got == wanted, f"{got[:3]} instead of {wanted[:3]}")

    def expect_kinds(self, found, wanted):
        self.expect(wire.kinds(found) == wanted, f"{found} instead of {wanted}")

    async def count_rows(self):
        found = await self.ask_surely(
            lambda s: query(f"select '{s.word()}', count(*) from mixup where owner = '{s.tag}'")
        )
        return int(next(m for m in found if m.kind == "D").row[1])

    # Notifications.

    def _on_notification(self, got):
        """One for a channel that this connection listens to, and what was meant for it."""
        channel, payload = got.body[4:].decode().split("\0")[:2]
        self.expect(channel == self.channel, f"{channel} in place of {self.channel}")
        tag, _, sender = payload.partition(" from ")
        self.expect(tag == self.tag, payload)
        self.expect(payload not in self.heard, f"twice: {payload}")
        self.heard.append(payload)
        self.heard_of_others += not sender.startswith(self.tag)

    async def hear(self, is_heard, seconds):
        """Waits for a notification; whether it has come."""
        try:
            async with asyncio.timeout(seconds):
                while not is_heard():
                    got = await self.next()
                    if got.kind == "E" and got.fields["S"] == "FATAL" and got.fields["C"] in LOST:
                        raise Lost
                    self.expect(got.kind in "AN", got)
        except TimeoutError:
            return False
        return True

    # The model of its settings.

    def who(self):
        session = self.authorization or self.crowd.user
        return [session, self.role or session]

    async def check_settings(self):
        names = list(self.settings)
        shown = "".join(f", coalesce(current_setting('{name}', true), '')" for name in names)
        found = await self.ask(lambda s: query(f"select '{s.word()}', session_user, current_user{shown}"))
        if found is None:
            return
        self.expect_rows(found, [[self.word(), *self.who(), *(self.settings[n] for n in names)]])
        for spelling, name in REPORTED.items():
            said = self.reported.get(spelling)
            self.expect(said == self.settings[name], f"{spelling} was reported as {said}, is {self.settings[name]}")
        said = self.reported.get("session_authorization")
        self.expect(said == self.who()[0], f"session_authorization was reported as {said}, is {self.who()[0]}")

    @staticmethod
    def set_text(name, value, local=""):
        """A statement that sets it. A path is a list, not a text."""
        return f"set {local}{name} = {value if name == 'search_path' else quoted(value)}"

    async def establish(self, settings):
        """Sets all of these, whatever was before, and knows it."""
        self.is_settled = False
        await self.ask_surely(query("; ".join(self.set_text(n, v) for n, v in settings.items())))
        self.settings.update(settings)
        self.is_settled = True
