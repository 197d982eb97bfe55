#!/usr/bin/env python3
"""Checks what the README promises: the commands of its shell blocks exist, the files it links to too, and the
commands under tools/ can be executed."""

import pathlib
import re
import shlex
import sys

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
SHELLS = {"sh", "bash", "shell", "console"}
PREFIXES = {"sudo", "time", "env", "exec", "nohup"}
# Commands that the build makes; their sources must be there.
BUILT = {
    "build/heliosproxy": "src/server/main.cc",
    "build/helios-bench": "bench/load/main.cc",
    "build/bench/micro/micro-bench": "bench/micro/main.cc",
    "build/bench/ring/ring-bench": "bench/ring/main.cc",
}


def commands_of(block, is_session):
    """Yields the first word of each command; of a console session only the lines behind a prompt."""
    block = re.sub(r"\\\n\s*", " ", block)
    for line in block.splitlines():
        line = line.strip()
        if is_session:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        for part in re.split(r"&&|\|\||;|\|", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            while words and (words[0] in PREFIXES or re.match(r"^\w+=", words[0])):
                words.pop(0)
            if words:
                yield words[0]


def exists(root, command):
    command = command.removeprefix("./")
    if command in BUILT:
        return (root / BUILT[command]).exists()
    if "/" in command and not command.startswith(("/", "~", "$")):
        path = root / command
        return path.is_file() and path.stat().st_mode & 0o111 != 0
    return True


def check(root):
    """Yields (what, is it so)."""
    readme = root / "README.md"
    yield "README.md exists", readme.is_file()
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for match in BLOCK.finditer(text):
        if match[1] not in SHELLS:
            continue
        for command in commands_of(match[2], match[1] == "console"):
            yield f"README.md: the command {command} exists", exists(root, command)
    for target in LINK.findall(BLOCK.sub("", text)):
        if not re.match(r"^[a-z]+:", target):
            yield f"README.md: the link {target} leads somewhere", (root / target).exists()
    for tool in sorted((root / "tools").iterdir()):
        if tool.is_file():
            yield f"tools/{tool.name} can be executed", tool.stat().st_mode & 0o111 != 0


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    passed = failed = 0
    for what, is_so in check(root):
        if is_so:
            passed += 1
        else:
            failed += 1
            print(f"not so: {what}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
