#!/usr/bin/env python3
"""Compiles each public header alone: whoever includes one needs to include nothing before it.

usage: headers.py ROOT COMPILER [ARGUMENT ...]   (the compiler of this build and the arguments that find libraries)
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys


def compiles(command, root, header):
    """Returns the compiler's complaint, or an empty string."""
    name = header.relative_to(root / "include")
    done = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", "-fno-rtti", "-Wall", "-Wextra", "-x", "c++",
         f"-I{root / 'include'}", f"-I{root / 'src'}", "-"],
        input=f'#include "{name}"\n#include "{name}"\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False)
    return done.stdout if done.returncode else ""


def main():
    root, command = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    # An object cache has nothing to give here and may be unable to write its own.
    command = [word for index, word in enumerate(command) if index or pathlib.Path(word).name != "ccache"]
    headers = sorted((root / "include").rglob("*.h"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = list(pool.map(lambda header: compiles(command, root, header), headers))
    failed = 0
    for header, complaint in zip(headers, complaints):
        if complaint:
            failed += 1
            print(f"{header.relative_to(root)} does not compile alone:\n{complaint}")
    print(f"{len(headers) - failed} passed, {failed} failed")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
