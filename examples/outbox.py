#!/usr/bin/env python3
"""outbox: the transactional outbox from Python, with nothing but the database's own driver. Each line of
standard input is one sale: a row of the business and the message about it, in one transaction, so that
both are there or neither.

    ferry outbox init sqlite:shop.db        # or postgresql://USER@HOST/DATABASE, or mariadb://…
    python3 outbox.py sqlite:shop.db orders < lines
    ferry-outbox --db sqlite:shop.db        # publishes what was committed

A line is KEY, a tab, and anything: messages of one key stay in order. A line "KEY<tab>refuse" is rolled
back, and no message of it is ever seen. Drivers: apt install python3-psycopg2 for PostgreSQL, python3-pymysql
for MariaDB.
"""
import json
import sqlite3
import sys
from urllib.parse import unquote, urlsplit


class SQLite:
    BUSINESS = "INSERT INTO sale (customer, what) VALUES (?, ?)"
    OUTBOX = "INSERT INTO ferry_outbox (topic, mkey, payload, headers) VALUES (?, ?, ?, ?)"

    def __init__(self, path):
        # The driver must not begin transactions of its own: BEGIN IMMEDIATE waits for other writers.
        self.connection = sqlite3.connect(path, timeout=5, isolation_level=None)

    def begin(self):
        self.connection.execute("BEGIN IMMEDIATE")

    def execute(self, sql, values=()):
        self.connection.execute(sql, values)

    def end(self, how):
        self.connection.execute(how)


class PostgreSQL:
    BUSINESS = "INSERT INTO sale (customer, what) VALUES (%s, %s)"
    # Headers from SQL go into headers_json; payload and key are bytes.
    OUTBOX = "INSERT INTO ferry.outbox (topic, mkey, payload, headers_json) VALUES (%s, %s, %s, %s)"

    def __init__(self, url):
        import psycopg2

        self.connection = psycopg2.connect(url)
        self.cursor = self.connection.cursor()

    def begin(self):
        pass  # The driver begins with the first statement.

    def execute(self, sql, values=()):
        self.cursor.execute(sql, values)

    def end(self, how):
        self.connection.commit() if how == "COMMIT" else self.connection.rollback()


class MariaDB:
    BUSINESS = "INSERT INTO sale (customer, what) VALUES (%s, %s)"
    OUTBOX = "INSERT INTO ferry_outbox (topic, mkey, payload, headers) VALUES (%s, %s, %s, %s)"

    def __init__(self, url):
        import pymysql

        at = urlsplit(url)
        self.connection = pymysql.connect(host=at.hostname or "localhost", port=at.port or 3306,
                                          user=unquote(at.username or ""),
                                          password=unquote(at.password or ""),
                                          database=unquote(at.path[1:]), charset="utf8mb4")
        self.cursor = self.connection.cursor()

    def begin(self):
        self.connection.begin()

    def execute(self, sql, values=()):
        self.cursor.execute(sql, values)

    def end(self, how):
        self.connection.commit() if how == "COMMIT" else self.connection.rollback()


DATABASES = {"sqlite": SQLite, "postgresql": PostgreSQL, "mariadb": MariaDB}


def sell(database, topic, customer, what):
    """One transaction. True: it was committed."""
    message = json.dumps({"customer": customer, "what": what}).encode()
    headers = json.dumps({"content-type": "application/json"})
    how = "ROLLBACK"
    database.begin()
    try:
        database.execute(database.BUSINESS, (customer, what))
        database.execute(database.OUTBOX, (topic, customer.encode(), message, headers))
        if what != "refuse":
            how = "COMMIT"
    finally:
        database.end(how)
    return how == "COMMIT"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    url, topic = sys.argv[1:]
    scheme, _, rest = url.partition(":")
    if scheme not in DATABASES:
        sys.exit(__doc__)
    database = DATABASES[scheme](rest if scheme == "sqlite" else url)
    database.begin()
    database.execute("CREATE TABLE IF NOT EXISTS sale (customer TEXT NOT NULL, what TEXT NOT NULL)")
    database.end("COMMIT")
    sold = refused = 0
    for line in sys.stdin:
        customer, _, what = line.rstrip("\n").partition("\t")
        if sell(database, topic, customer, what):
            sold += 1
        else:
            refused += 1
    print(f"sold {sold}, refused {refused}")


if __name__ == "__main__":
    main()
