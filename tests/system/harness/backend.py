"""Starts the canned server (helios-bench backend) and stops it."""

import os
import re
import signal
import subprocess
import tempfile

from . import libpq, wire
from .cluster import die_with_parent


def executable():
    path = os.environ.get("HELIOS_BENCH", "")
    if not path or not os.path.exists(path):
        raise RuntimeError(f"HELIOS_BENCH does not name the program: {path!r}")
    return path


def run_once(arguments, timeout=30):
    """Runs the command to its end: (exit code, output, error output)."""
    done = subprocess.run(
        [executable(), "backend", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


class Backend:
    """A running canned server, on a free port unless `listen` says otherwise."""

    def __init__(self, *options, listen=("127.0.0.1:0",)):
        words = [word for address in listen for word in ("--listen", address)]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [executable(), "backend", *words, *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=die_with_parent,
        )
        self.addresses = []
        for _ in listen:
            line = self.process.stdout.readline()
            if not line.startswith("listening on "):
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"the backend says {line!r}; {self.errors()}")
            self.addresses.append(line.removeprefix("listening on ").strip())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None and self.process.returncode is None:
            self.stop()
        elif self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def errors(self):
        self.log.seek(0)
        return self.log.read()

    @property
    def port(self):
        return int(self.addresses[0].rpartition(":")[2])

    def client(self, **parameters):
        """A raw connection, logged in."""
        version = parameters.pop("version", wire.PROTOCOL_3_0)
        conn = wire.Conn(("127.0.0.1", self.port))
        return conn.login("bench", "bench", version=version, **parameters)

    def libpq(self):
        return libpq.Conn(f"host=127.0.0.1 port={self.port} user=bench dbname=bench")

    def peak_rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) * 1024

    def stop(self, number=signal.SIGTERM):
        """Proves a clean end: (connections, queries) of the last line."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, (self.process.returncode, self.errors())
        assert not self.errors(), self.errors()
        found = re.fullmatch(r"done: (\d+) connections, (\d+) queries\n", rest)
        assert found, rest
        return int(found[1]), int(found[2])
