#!/usr/bin/env python3
"""Checks that the sources are formatted as .clang-format says, with the version whose output is agreed on."""

import pathlib
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
    wrong = []
    for path in files:
        done = subprocess.run([FORMATTER, "--dry-run", "-Werror", "--ferror-limit=1", str(path)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            wrong.append(path)
            print(done.stdout.strip() or f"{path}: {FORMATTER} failed")
    if wrong:
        print("cure:", FORMATTER, "-i", *(str(path.relative_to(root)) for path in wrong))
    print(f"{len(files) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
