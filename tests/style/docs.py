#!/usr/bin/env python3
"""Checks what the README, docs/ and the results of the benchmarks promise: the commands of their shell blocks exist and
the files of the project that these name, what they link to is there (files and headings), no line of text is wider than
agreed on, and the commands under tools/ can be executed."""

import pathlib
import re
import shlex
import sys

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
WIDTH = 120
SHELLS = {"sh", "bash", "shell", "console"}
PREFIXES = {"sudo", "time", "env", "exec", "nohup"}
# What is in the source, so that a command may name it.
TOPS = ("bench/", "conf/", "docs/", "include/", "src/", "tests/", "tools/")
# Commands that the build makes; their sources must be there.
BUILT = {
    "build/heliosproxy": "src/server/main.cc",
    "build/helios-bench": "bench/load/main.cc",
    "build/bench/micro/micro-bench": "bench/micro/main.cc",
    "build/bench/ring/ring-bench": "bench/ring/main.cc",
}


def commands_of(block, is_session):
    """Yields the words of each command; of a console session only the lines behind a prompt."""
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
                yield words


def exists(root, command):
    command = command.removeprefix("./")
    if command in BUILT:
        return (root / BUILT[command]).exists()
    if "/" in command and not command.startswith(("/", "~", "$")):
        path = root / command
        return path.is_file() and path.stat().st_mode & 0o111 != 0
    return True


def anchor(heading):
    """What a link to this heading is called, as GitHub and others make it."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def anchors_of(path):
    return {anchor(heading) for heading in HEADING.findall(BLOCK.sub("", path.read_text(encoding="utf-8")))}


def leads_somewhere(document, target):
    name, _, heading = target.partition("#")
    path = document.parent / name if name else document
    if not path.exists():
        return False
    return not heading or (path.suffix == ".md" and heading in anchors_of(path))


def wide_lines(text):
    """Numbers of lines that could be broken and are not: in tables, and in what is quoted, they cannot."""
    kept = BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [number for number, line in enumerate(kept.splitlines(), 1)
            if len(line) > WIDTH and " " in line.strip() and not line.startswith("|")]


def check_document(root, document):
    """Yields (what, is it so)."""
    shown = document.relative_to(root)
    text = document.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match[1] not in SHELLS:
            continue
        for words in commands_of(match[2], match[1] == "console"):
            yield f"{shown}: the command {words[0]} exists", exists(root, words[0])
            for word in words[1:]:
                if word.startswith(TOPS) and f"build/{word}" not in BUILT:
                    yield f"{shown}: the file {word} exists", (root / word).exists()
    for target in LINK.findall(CODE.sub("", BLOCK.sub("", text))):
        if not re.match(r"^[a-z]+:", target):
            yield f"{shown}: the link {target} leads somewhere", leads_somewhere(document, target)
    wide = ", ".join(map(str, wide_lines(text)))
    yield f"{shown}: no line is wider than {WIDTH} columns" + (f" (lines {wide})" if wide else ""), not wide


def check(root):
    """Yields (what, is it so)."""
    readme = root / "README.md"
    yield "README.md exists", readme.is_file()
    for document in [readme, root / "bench" / "RESULTS.md", *sorted((root / "docs").glob("*.md"))]:
        if document.is_file():
            yield from check_document(root, document)
    for path in sorted((root / "conf").rglob("*")):
        if path.is_file():
            wide = wide_lines(path.read_text(encoding="utf-8"))
            yield f"{path.relative_to(root)}: no line is wider than {WIDTH} columns", not wide
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
