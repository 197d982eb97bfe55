#!/usr/bin/env python3
"""Checks the direction of every #include between the layers.

Nothing points back: a layer includes itself and the layers below it, as the table says. Includes are written from the
root ("helios/pool/slice.h" for what other layers use, "pool/x.h" for what lives beside its source), and a header that
lives beside its source belongs to its layer alone.
"""

import pathlib
import re
import sys

BELOW = {
    "base": set(),
    "wire": {"base"},
    "runtime": {"base"},
    "net": {"base", "runtime"},
    "config": {"base"},
    "pool": {"base", "wire", "runtime", "net"},
    "session": {"base", "wire", "runtime", "net", "pool"},
    "admin": {"base", "wire", "runtime", "net", "pool", "session"},
    "server": {"base", "wire", "runtime", "net", "config", "pool", "session", "admin"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
SOURCES = {".h", ".cc"}


def files_of(root):
    """Yields (path, layer, is_public) of each source file."""
    for top, is_public in (("include/helios", True), ("src", False)):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCES:
                yield path, path.relative_to(root / top).parts[0], is_public


def problem_of(root, layer, is_public, quote, name):
    """Says what is wrong with one #include, or returns None."""
    parts = name.split("/")
    is_ours = parts[0] == "helios" or (root / "src" / parts[0]).is_dir() and len(parts) > 1
    if quote == "<":
        # The system has directories of the same names (<net/if.h>).
        exists = (root / "include" / name).is_file() or (root / "src" / name).is_file()
        return f"<{name}> is ours: use quotes" if exists else None
    if not is_ours:
        return f'"{name}" is not written from the root'
    if parts[0] == "helios":
        target = parts[1]
        if not (root / "include" / name).is_file():
            return f'"{name}" does not exist'
    else:
        target = parts[0]
        if not (root / "src" / name).is_file():
            return f'"{name}" does not exist'
        if is_public:
            return f'a public header includes "{name}", which lives beside its source'
        if target != layer:
            return f'"{name}" belongs to {target} alone'
    if target != layer and target not in BELOW[layer]:
        return f'{layer} may not include {target} ("{name}")'
    return None


def check(root):
    problems = []
    count = 0
    for path, layer, is_public in files_of(root):
        shown = path.relative_to(root)
        count += 1
        if layer not in BELOW:
            problems.append(f"{shown}: {layer} is not a layer")
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".h" and "#pragma once" not in text:
            problems.append(f"{shown}: no #pragma once")
        for number, line in enumerate(text.splitlines(), 1):
            match = INCLUDE.match(line)
            problem = match and problem_of(root, layer, is_public, *match.groups())
            if problem:
                problems.append(f"{shown}:{number}: {problem}")
    return count, problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    count, problems = check(root)
    for problem in problems:
        print(problem)
    if not count:
        print(f"{root}: no sources found")
    is_good = count > 0 and not problems
    print("1 passed, 0 failed" if is_good else "0 passed, 1 failed")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
