"""The outbox on PostgreSQL, MariaDB and SQLite, beside other relays: the goals G1 to G15.

fsync is on everywhere, in the databases and the brokers. Rows have 200 B of payload and one of 1,000 keys.
Everything runs on this machine: databases, brokers, relay and client share its cores. Ratios are of rounds
in which all take their turn; peers run at the best of a few settings, each tried first. What G11 and G12
ask for half an hour is measured for a minute unless --long is given, which also makes the backlog of G13 ten
million rows.

pg-transactional-outbox is fetched with npm; without npm, or without a network, leave `null` out.
"""

import argparse
import os
import sys
import tempfile
import time

import world  # Beside this file; finds the folders of the others.

import bench  # pylint: disable=wrong-import-order
import results  # pylint: disable=wrong-import-order
from bench import Place, Table  # pylint: disable=wrong-import-order
from cases import CASES, Sizes  # pylint: disable=wrong-import-order
from cluster import Cluster  # pylint: disable=wrong-import-order

RESULTS = """## The outbox

Medians of {runs} rounds, least and greatest in brackets. Goals G1 to G15 are numbered as in the design.
Made by `tests/bench/run.sh --outbox{command}` on {date}.

{machine}

{table}
"""


class Bench:
    def __init__(self, options, made):
        self.world, self.table = made, Table()
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
    b = Bench(options, made)
    before = results.load()
    facts = machine_facts(b)
    for name in options.only.split(","):
        CASES[name](b)
    facts.append(f"{before} before, {results.load()} after")
    words = results.shown_command()
    return b, RESULTS.format(runs=b.runs, command=" " + words if words else "",
                             date=time.strftime("%Y-%m-%d"),
                             machine="\n".join("- " + fact for fact in facts), table=b.table.text())


def main():
    options = parse_options()
    lacking = world.databases.missing()
    if lacking:
        sys.exit(f"outbox bench: install {' '.join(lacking)} first")
    with world.World(Place(options)) as made:
        b, text = measure(options, made)
    print(text)
    if options.write:
        results.write("the outbox", text)
    return 1 if not options.smoke and any(row[4] == "MISS" for row in b.table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
