"""The outbox on PostgreSQL, MariaDB and SQLite, beside other relays: the goals G1 to G15.

fsync is on everywhere, in the databases and the brokers. Rows have 200 B of payload and one of 1,000 keys.
Everything runs on this machine: databases, brokers, relay and client share its cores. Ratios are of rounds
in which all take their turn; peers run at the best of a few settings, each tried first. What G11 asks for
half an hour and G12 for ten minutes is measured for a minute unless --long is given, which also makes the
backlog of G13 ten million rows.

--write keeps what each case found in figures.json, as soon as it is through, and makes the section of RESULTS.md
of all that is there: cases may be measured one at a time, on different days.

pg-transactional-outbox is fetched with npm; without npm, or without a network, leave `null` out.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import world  # Beside this file; finds the folders of the others.

import bench  # pylint: disable=wrong-import-order
import results  # pylint: disable=wrong-import-order
from bench import Place, Table  # pylint: disable=wrong-import-order
from cases import CASES, ONCE, Sizes  # pylint: disable=wrong-import-order
from cluster import Cluster  # pylint: disable=wrong-import-order

RESULTS = """## The outbox

Goals G1 to G15 are numbered as in the design. fsync is on everywhere; rows of 200 B and 1,000 keys; databases, brokers,
relay and client share the cores. Medians, with the least and the greatest of the rounds in brackets.

{machine}

{table}

Made by `tests/bench/run.sh --outbox --write`, case by case:

{sources}
"""

FIGURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "figures.json")


class Bench:
    def __init__(self, options, made):
        self.world, self.table = made, Table("ratio")
        self.sizes = Sizes(options.smoke, options.long)
        self.runs = options.runs or self.sizes.runs


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("FERRY_BIN", os.path.join(bench.SOURCE, "build"))
    parser.add_argument("--bin", default=build, help="the build folder (default: $FERRY_BIN, build)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where files are made: on a disk")
    parser.add_argument("--runs", type=int, help="rounds of each case (default 5)")
    parser.add_argument("--only", default=",".join(CASES), help=f"which of {','.join(CASES)}")
    parser.add_argument("--long", action="store_true", help="half an hour for G11, G12; 10 M rows")
    parser.add_argument("--smoke", action="store_true",
                        help="a little of everything, in seconds: figures that say nothing")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def machine_facts(b):
    with Cluster(b.world.place, 1) as cluster:
        cluster.create("facts", 1)
        found = bench.facts(b.world.place.bench(cluster, "produce", "--topic", "facts", "--records", 100))
    version = b.world.server("postgresql").sql("SHOW server_version")[0][0]
    maria = b.world.server("mariadb").sql("SELECT version()")[0][0]
    return [*found, f"PostgreSQL {version}, MariaDB {maria}"]


def measure(options, made):
    """What each case found, by its name."""
    b, found = Bench(options, made), {}
    facts = machine_facts(b)
    for name in options.only.split(","):
        before, first = results.load(), len(b.table.rows)
        CASES[name](b)
        words = results.shown_command([w for w in sys.argv[1:] if w != "--write"])
        found[name] = {"command": words, "rounds": 1 if name in ONCE else b.runs, "date": time.strftime("%Y-%m-%d"),
                       "load": before, "machine": facts, "rows": b.table.rows[first:]}
        if options.write:
            keep(name, found[name])
    return b, found


def kept():
    if not os.path.exists(FIGURES):
        return {}
    with open(FIGURES, encoding="utf-8") as file:
        return json.load(file)


def keep(name, figures):
    every = {**kept(), name: figures}
    with open(FIGURES, "w", encoding="utf-8") as file:
        json.dump(every, file, indent=1)
        file.write("\n")
    results.write("the outbox", text_of(every))


def text_of(figures):
    table, facts, sources = Table("ratio"), [], []
    for name in [name for name in CASES if name in figures]:
        one = figures[name]
        table.rows += one["rows"]
        facts += [fact for fact in one["machine"] if fact not in facts]
        sources.append(f"- {name}: `{one['command']}`, {one['rounds']} round{'s' if one['rounds'] > 1 else ''}, "
                       f"{one['date']}, {one['load']} before")
    return RESULTS.format(machine="\n".join("- " + fact for fact in facts), table=table.text(),
                          sources="\n".join(sources))


def main():
    options = parse_options()
    lacking = world.databases.missing()
    if lacking:
        sys.exit(f"outbox bench: install {' '.join(lacking)} first")
    with world.World(Place(options)) as made:
        b, found = measure(options, made)
    print(text_of(found))
    return 1 if not options.smoke and any(row[4] == "MISS" for row in b.table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
