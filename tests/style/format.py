#!/usr/bin/env python3
"""Checks that the sources are formatted as .clang-format says, with the version whose output is agreed on."""

import pathlib
import re
import shutil
import subprocess
import sys

FORMATTER = "clang-format-14"
SKIPPED = 77  # Meson's exit status for a test that could not run.


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    if not shutil.which(FORMATTER):
        print(f"skipped: {FORMATTER} is not installed (tools/setup --with-clang)")
        return SKIPPED
    files = sorted(path for top in ("include", "src", "tests", "bench") for path in (root / top).rglob("*")
                   if path.suffix in {".h", ".cc"})
    # Starting the formatter costs more than reading a file: all at once.
    done = subprocess.run([FORMATTER, "--dry-run", "-Werror", *map(str, files)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    named = {match[1] for match in re.finditer(r"^(.+?):\d+:\d+: ", done.stdout, re.MULTILINE)}
    wrong = [path for path in files if str(path) in named]
    if done.returncode and not wrong:
        print(done.stdout)
        wrong = files
    if wrong:
        print("cure:", FORMATTER, "-i", *(str(path.relative_to(root)) for path in wrong))
    print(f"{len(files) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
