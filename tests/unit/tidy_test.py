#!/usr/bin/env python3
"""What a machine can check of the style: layers, banned calls, leftovers, shape, formatting."""
import os
import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("FERRY_SOURCE", Path(__file__).parents[2]))
FOLDERS = ("broker", "outbox", "sdk", "examples", "tests")
VISIBLE = {"broker", "outbox", "sdk", "examples", "tests", "conf", "CMakeLists.txt", "README.md"}
LINES_MAX = 1000
LONG = ("sdk/include/ferry.h",)  # The one public header: what is not in it does not exist.

# A foreign header and the only places that may include it.
DOORS = {
    "zmq.h": r"sdk/net/",
    "msgpack.h": r"sdk/wire/",
    "msgpack/": r"sdk/wire/",
    "lmdb.h": r"broker/store/",
    "sqlite3.h": r"outbox/sqlite/|examples/|tests/",
    "libpq-fe.h": r"outbox/postgresql/|examples/|tests/",
    "mysql.h": r"outbox/mariadb/|examples/|tests/",
    "microhttpd.h": r"outbox/relay/http\.c",
    "xxhash.h": r"sdk/base/",
    "ini.h": r"sdk/base/",
    "jansson.h": r"sdk/cli/|broker/server/shard_status\.c",
}

# A folder and the layers whose headers it may include ("server/x.h"); its own always.
BASE = {"base"}
WIRE = BASE | {"wire"}
BROKER_BELOW = WIRE | {"raft", "store"}
LAYERS = {
    "sdk/base": BASE,
    "sdk/ring": BASE,
    "sdk/wire": BASE,
    "sdk/net": BASE,
    "sdk/client": WIRE | {"net", "ring"},
    "sdk/cli": WIRE | {"outbox"},
    "broker/raft": BASE,
    "broker/store": BASE,
    "broker/partition": BROKER_BELOW,
    "broker/cluster": BROKER_BELOW | {"partition", "ring"},
    "broker/server": BROKER_BELOW | {"partition", "cluster", "ring", "net"},
    "broker/embed": BASE | {"server"},
    "outbox/app": WIRE | {"outbox"},
    "outbox/relay": WIRE | {"outbox"},
    "outbox/sqlite": WIRE | {"outbox"},
    "outbox/postgresql": WIRE | {"outbox"},
    "outbox/mariadb": WIRE | {"outbox"},
    "examples": set(),
}

# Calls that have a better sibling, and which.
BANNED = {
    "strcpy": "snprintf or memcpy",
    "strcat": "snprintf or base/buf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "rand": "base/prng",
    "srand": "base/prng",
    "random": "base/prng",
    "strtok": "strcspn",
    "alloca": "base/mem",
}
ALLOCATIONS = ("malloc", "calloc", "realloc", "strdup")
CLOCKS = ("time", "clock_gettime", "gettimeofday", "clock")
LEFTOVERS = r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b"


def sources(*folders, suffixes=(".c", ".h")):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path, path.relative_to(ROOT).as_posix()


def code_of(text):
    """The source without comments and string literals; lines stay where they are."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def calls(path, names):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    for number, line in enumerate(code_of(path.read_text()).split("\n"), 1):
        for match in pattern.finditer(line):
            yield number, match.group(1)


class Tidy(unittest.TestCase):
    def check(self, problems):
        self.assertFalse(problems, "\n" + "\n".join(problems))

    def test_foreign_headers_come_in_by_one_door(self):
        problems = []
        for path, name in sources("sdk", "broker", "outbox", "examples"):
            for header in re.findall(r"^#include <([^>]+)>", path.read_text(), re.M):
                for foreign, door in DOORS.items():
                    inside = header == foreign or (foreign.endswith("/") and
                                                   header.startswith(foreign))
                    if inside and not re.match(door, name):
                        problems.append(f"{name} includes <{header}>: only {door} may")
        self.check(problems)

    def test_includes_point_down(self):
        layer_names = {folder.split("/")[-1] for folder in LAYERS}
        problems = []
        for folder, below in LAYERS.items():
            own = folder.split("/")[-1]
            for path, name in sources(folder):
                for header in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
                    layer = header.split("/")[0]
                    if "/" in header and layer in layer_names and layer not in below | {own}:
                        problems.append(f"{name} includes {header}: {folder} is not above it")
        self.check(problems)

    def test_banned_calls_are_not_made(self):
        problems = [f"{name}:{number}: {call}: use {BANNED[call]}"
                    for path, name in sources(*FOLDERS)
                    for number, call in calls(path, BANNED)]
        self.check(problems)

    def test_memory_comes_from_one_place(self):
        """So that a test can fail the n-th allocation. The command line and examples are programs."""
        problems = [f"{name}:{number}: {call}: use base/mem.h"
                    for path, name in sources("sdk", "broker", "outbox")
                    if name != "sdk/base/mem.c" and not name.startswith("sdk/cli/")
                    for number, call in calls(path, ALLOCATIONS)]
        self.check(problems)

    def test_the_core_and_what_applies_entries_read_no_clock(self):
        problems = [f"{name}:{number}: {call}: time comes in events and entries"
                    for path, name in sources("broker/raft", "broker/partition", "broker/cluster")
                    for number, call in calls(path, CLOCKS + ("clock_monotonic_us",
                                                              "clock_wall_ms"))]
        self.check(problems)

    def test_nothing_is_left_over(self):
        problems = []
        for path, name in sources(*FOLDERS, "conf", suffixes=(".c", ".h", ".py", ".sh", ".sql",
                                                              ".md", ".conf", ".txt")):
            for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
                if re.search(LEFTOVERS, line):
                    problems.append(f"{name}:{number}: {line.strip()}")
        self.check(problems)

    def test_files_tell_one_story(self):
        problems = [f"{name}: {count} lines"
                    for path, name in sources(*FOLDERS, suffixes=(".c", ".h", ".py", ".sh"))
                    if (count := path.read_text().count("\n")) > LINES_MAX and
                    name not in LONG]
        self.check(problems)

    def test_headers_are_guarded_and_end_with_a_newline(self):
        problems = []
        for path, name in sources(*FOLDERS):
            text = path.read_text()
            if name.endswith(".h") and not re.search(r"^#ifndef FERRY_\w+\n#define FERRY_\w+\n",
                                                     text, re.M):
                problems.append(f"{name}: no include guard FERRY_…")
            if not text.endswith("\n") or "\t" in text or re.search(r"[ \r]+$", text, re.M):
                problems.append(f"{name}: tabs, blanks at a line's end, or no newline at the end")
        self.check(problems)

    def test_the_top_shows_only_what_it_should(self):
        found = {entry.name for entry in ROOT.iterdir()
                 if not entry.name.startswith(".") and not entry.name.startswith("build")}
        self.check([f"{name} does not belong at the top" for name in sorted(found - VISIBLE)])

    def test_clang_format_agrees(self):
        files = [str(path) for path, _ in sources(*FOLDERS)]
        result = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", "-Werror", *files],
                                cwd=ROOT, capture_output=True, text=True, check=False)
        problems = sorted({line.split(":")[0] for line in result.stderr.split("\n")
                           if "error:" in line})
        self.check([f"{os.path.relpath(name, ROOT)}: run clang-format -i" for name in problems])
        self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    unittest.main()
