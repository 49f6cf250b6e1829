"""Judges the three banks from outside, when nothing moves: by their databases and the logs.

It knows the bank (examples/bank/bank.h) and believes nothing that Ferry says of itself: what was put is in
the ledgers, which a trigger wrote; what took effect is in the entries and the accounts; what was published
is in the logs, as `ferry consume` prints them. Of Ferry's own tables it demands that the inboxes' chains
have no hole and end where the logs end, that no saga is stuck, and that nothing was set aside.

    checker.py PLACES [--databases] [--set-back LETTERS]

PLACES is a file of JSON that says where to look (world.py writes it): `ferry`, `servers`, and for each bank
the file of its SQLite database or the command that takes a query. --databases leaves the logs out. --set-back
names banks whose database was restored from a backup: then only their messages are judged. The exit status
is 0 when all is right, and 1 when something is wrong.
"""
import argparse
import collections
import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field

LETTERS = "abc"
EVENTS = "bank.events"
DEBIT, FEE, CREDIT = range(3)
RUNNING, COMPENSATING, DONE, COMPENSATED = 1, 2, 3, 4
SHOWN = 3  # Examples of each complaint.
POSSIBLE_DUPLICATE = "ferry-possible-duplicate"


def opening_balance(account):
    """What examples/bank/accounts.c gave it."""
    if 2000 <= account < 2100:
        return 500 if account < 2005 else 100000
    return 0


@dataclass
class Bank:
    """What one database says."""
    letter: str
    accounts: dict = field(default_factory=dict)  # id: (balance, version)
    entries: list = field(default_factory=list)  # (saga, step, undo, account, amount, version)
    transfers: list = field(default_factory=list)  # (number, saga, kind, amount, fee, state)
    ledger: list = field(default_factory=list)  # (message id, topic)
    chains: list = field(default_factory=list)  # (group, topic id, partition, start, end)
    sagas: list = field(default_factory=list)  # (id, state)
    aside: int = 0  # Rows in the dead letters of outbox and inbox.


@dataclass
class Record:
    """One record of a log."""
    topic: str
    partition: int
    offset: int
    id: str
    key: str
    payload: str
    flagged: bool = False  # May be there twice, and says so.


@dataclass
class World:
    """All that is judged."""
    banks: dict  # letter: Bank
    records: list
    scheduled: list = field(default_factory=list)  # Ids of messages that brokers keep until later.
    set_back: frozenset = frozenset()  # Letters of banks whose database was set back in time.


class Verdict:
    """Complaints, by kind."""

    def __init__(self):
        self.complaints = collections.defaultdict(list)
        self.counts = {}

    def complain(self, kind, text):
        self.complaints[kind].append(text)

    def __bool__(self):
        return not self.complaints

    def report(self):
        lines = [f"{name}: {value}" for name, value in self.counts.items()]
        for kind, texts in self.complaints.items():
            lines.append(f"WRONG {kind}: {len(texts)}")
            lines += [f"    {text}" for text in texts[:SHOWN]]
        return "\n".join(lines)


# ---- What must hold

def check_money(world, verdict):
    """Not a cent more or less, no account below zero, and every change of one accounted for."""
    expected = sum(opening_balance(account) for bank in world.banks.values()
                   for account in bank.accounts)
    has = sum(balance for bank in world.banks.values() for balance, _ in bank.accounts.values())
    verdict.counts["money"] = has
    if has != expected:
        verdict.complain("money", f"{has} in the accounts, {expected} when the banks opened")
    for bank in world.banks.values():
        changes, versions = collections.Counter(), collections.defaultdict(list)
        for _, _, _, account, amount, version in bank.entries:
            changes[account] += amount
            versions[account].append(version)
        for account, (balance, version) in bank.accounts.items():
            name = f"{bank.letter}/{account}"
            if balance < 0:
                verdict.complain("negative balance", f"{name}: {balance}")
            if balance != opening_balance(account) + changes[account]:
                verdict.complain("balance", f"{name}: {balance}, by its entries "
                                 f"{opening_balance(account) + changes[account]}")
            if sorted(versions[account]) != list(range(1, version + 1)):
                verdict.complain("versions", f"{name}: version {version}, {len(versions[account])} "
                                 "entries")
        for account in set(changes) - set(bank.accounts):
            verdict.complain("balance", f"{bank.letter}/{account}: entries without an account")


def check_transfers(world, verdict):
    """Each has exactly its three effects, or none that was not taken back."""
    effects = collections.defaultdict(collections.Counter)
    for bank in world.banks.values():
        for saga, step, undo, _, amount, _ in bank.entries:
            effects[saga][(bank.letter, step, undo, amount)] += 1
    states = collections.Counter()
    for bank in world.banks.values():
        for number, saga, kind, amount, fee, state in bank.transfers:
            states[(kind, state)] += 1
            name = f"{bank.letter} {number} ({kind}, {saga})"
            why = judge_transfer(bank.letter, amount, fee, state, effects.pop(saga, {}))
            if why:
                verdict.complain("transfer", f"{name}: {why}")
    for saga, found in effects.items():
        verdict.complain("effect without a transfer", f"{saga}: {dict(found)}")
    verdict.counts["transfers"] = sum(states.values())
    verdict.counts["done"] = sum(n for (_, state), n in states.items() if state == DONE)
    verdict.counts["compensated"] = sum(n for (_, state), n in states.items()
                                        if state == COMPENSATED)


def judge_transfer(letter, amount, fee, state, effects):
    """Why it is wrong; None when it is right."""
    first = LETTERS.index(letter)
    where = [LETTERS[(first + step) % len(LETTERS)] for step in (DEBIT, FEE, CREDIT)]
    what = (-(amount + fee), fee, amount)
    done, undone = [0] * 3, [0] * 3
    for (bank, step, undo, moved), count in effects.items():
        if step not in (DEBIT, FEE, CREDIT) or bank != where[step] or \
                moved != (-what[step] if undo else what[step]):
            return f"an effect of nobody's: {(bank, step, undo, moved)}"
        (undone if undo else done)[step] += count
    if state == DONE:
        right = done == [1, 1, 1] and undone == [0, 0, 0]
    elif state == COMPENSATED:
        right = done == undone and max(done) <= 1
    else:
        return f"it is in state {state}, effects {done}, taken back {undone}"
    return None if right else f"state {state}, effects {done}, taken back {undone}"


def check_messages(world, verdict):
    """What was put is what was published: nothing missing, nothing extra, nothing twice."""
    put = collections.Counter()
    topics = {}
    for bank in world.banks.values():
        for message, topic in bank.ledger:
            put[message] += 1
            topics[message] = topic
    published = collections.Counter(record.id for record in world.records)
    flagged = {record.id for record in world.records if record.flagged}
    wrong_topic = [record for record in world.records
                   if record.id in topics and topics[record.id] != record.topic]
    waiting = collections.Counter(world.scheduled)
    verdict.counts["messages put"] = sum(put.values())
    verdict.counts["messages in the logs"] = sum(published.values())
    verdict.counts["messages kept for later"] = sum(waiting.values())
    for message, count in put.items():
        if count != 1:
            verdict.complain("put twice", message)
        found = published[message] + waiting[message]
        if found == 0:
            verdict.complain("missing message", f"{message} to {topics[message]}")
        elif found > 1 and message not in flagged:
            verdict.complain("duplicate message", f"{message} to {topics[message]}: {found} times")
    for message in set(published) | set(waiting):
        if message not in put and not world.set_back:
            verdict.complain("extra message", message)
    for record in wrong_topic:
        verdict.complain("wrong topic", f"{record.id}: {record.topic}")


def check_events(world, verdict):
    """Of each account, its versions in the log, in order, in one partition."""
    last, place = {}, {}
    for record in world.records:
        if record.topic != EVENTS:
            continue
        version = int(record.payload.split()[-1])
        if place.setdefault(record.key, record.partition) != record.partition:
            verdict.complain("event order", f"{record.key}: in two partitions")
        if version != last.get(record.key, 0) + 1:
            verdict.complain("event order", f"{record.key}: version {version} at offset "
                             f"{record.offset} comes after {last.get(record.key, 0)}")
        last[record.key] = version
    for bank in world.banks.values():
        for account, (_, version) in bank.accounts.items():
            told = last.get(f"{bank.letter}/{account}", 0)
            if told != version:
                verdict.complain("event order", f"{bank.letter}/{account}: version {version}, "
                                 f"events up to {told}")


def check_inboxes(world, verdict):
    """Chains without a hole, to the logs' ends."""
    ends = collections.Counter()
    for record in world.records:
        place = (record.topic, record.partition)
        ends[place] = max(ends[place], record.offset + 1)
    for bank in world.banks.values():
        chains = collections.defaultdict(list)
        for group, topic_id, partition, start, end in bank.chains:
            chains[(group, topic_id, partition)].append((start, end))
        reached = {}
        for (group, topic_id, partition), intervals in chains.items():
            intervals.sort()
            for (_, end), (start, _) in zip(intervals, intervals[1:]):
                if start != end:
                    verdict.complain("inbox chain", f"{bank.letter} {group}/{partition}: nothing "
                                     f"between {end} and {start}")
            if partition in reached:
                verdict.complain("inbox chain", f"{bank.letter} {group}/{partition}: two topics "
                                 f"({topic_id})")
            reached[partition] = intervals[-1][1]
        for (topic, partition), end in ends.items():
            if topic == f"bank.{bank.letter}" and reached.get(partition) != end:
                verdict.complain("inbox chain", f"{bank.letter}/{partition}: done up to "
                                 f"{reached.get(partition)}, the log ends at {end}")


def check_rest(world, verdict):
    """No saga that is not over, and nothing set aside: nothing was refused."""
    for bank in world.banks.values():
        states = dict(bank.sagas)
        for saga, state in bank.sagas:
            if state not in (DONE, COMPENSATED):
                verdict.complain("saga", f"{bank.letter} {saga}: state {state}")
        for number, saga, _, _, _, state in bank.transfers:
            if states.get(saga) != state:
                verdict.complain("saga", f"{bank.letter} {number}: the transfer says {state}, its "
                                 f"saga {states.get(saga)}")
        if bank.aside:
            verdict.complain("set aside", f"{bank.letter}: {bank.aside} dead letters")


def judge_databases(world, verdict):
    """What can be said without the logs."""
    check_money(world, verdict)
    check_transfers(world, verdict)
    check_rest(world, verdict)


def judge(world):
    verdict = Verdict()
    check_messages(world, verdict)
    if not world.set_back:
        judge_databases(world, verdict)
        check_events(world, verdict)
        check_inboxes(world, verdict)
    return verdict


# ---- Looking

TABLES = {  # How ids become 32 hex digits, and Ferry's tables.
    "a": {"hex": "lower(hex({}))", "prefix": "ferry_"},
    "b": {"hex": "replace({}::text, '-', '')", "prefix": "ferry."},
    "c": {"hex": "lower(hex({}))", "prefix": "ferry_"},
}


def look_at_bank(letter, sql, whole=True):
    """`sql` answers a query with rows of texts. Not whole: without the ledger."""
    how = TABLES[letter]
    prefix = how["prefix"]

    def ask(query):
        return [tuple(int(text) if text is not None and text.lstrip("-").isdigit() and len(text) < 19
                      else text for text in row) for row in sql(query)]

    def plain(saga):
        return str(saga).replace("-", "")

    bank = Bank(letter)
    bank.accounts = {row[0]: row[1:] for row in ask("SELECT id, balance, version FROM account")}
    bank.entries = [(plain(row[0]), *row[1:]) for row in
                    ask("SELECT saga, step, undone, account, amount, version FROM entry")]
    bank.transfers = [(row[0], plain(row[1]), *row[2:]) for row in
                      ask("SELECT number, saga, kind, amount, fee, state FROM transfer")]
    bank.sagas = ask(f"SELECT {how['hex'].format('saga_id')}, state FROM {prefix}saga")
    bank.chains = ask(f"SELECT grp, {how['hex'].format('topic_id')}, part, start_off, end_off "
                      f"FROM {prefix}inbox_chain")
    bank.aside = sum(ask(f"SELECT count(*) FROM {prefix}{table}")[0][0]
                     for table in ("outbox_dead", "inbox_dead"))
    if whole:
        bank.ledger = list(sql("SELECT msg_id, topic FROM ledger"))
    return bank


def _lines(*words):
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE) as process:
        yield from process.stdout
    if process.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: {process.returncode}")


def read_log(ferry, servers, topic):
    records = []
    for line in _lines(ferry, "--server", servers, "--json", "consume", topic, "--idle-exit", "1500ms",
                       "--quiet"):
        told = json.loads(line)
        records.append(Record(topic, told["partition"], told["offset"],
                              (told["id"] or "").replace("-", ""), told.get("key") or "",
                              told.get("payload") or "",
                              POSSIBLE_DUPLICATE in (told["headers"] or {})))
    records.sort(key=lambda record: (record.partition, record.offset))
    return records


def read_scheduled(ferry, servers, topic):
    """Ids of what the brokers keep until later."""
    out = b"".join(_lines(ferry, "--server", servers, "--json", "schedule", "list", topic, "--count",
                          1000000))
    return [row["id"].replace("-", "") for row in json.loads(out)["delayed"]]


def asker(place):
    """A function that answers a query with rows of texts."""
    if isinstance(place, str):
        def ask_file(query):
            connection = sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=10)
            try:
                return [tuple(None if value is None else str(value) for value in row)
                        for row in connection.execute(query)]
            finally:
                connection.close()
        return ask_file

    def ask_server(query):
        return [tuple(text.decode().rstrip("\n").split("\t")) for text in _lines(*place, query)]
    return ask_server


def look(places, databases_only, set_back):
    banks = {letter: look_at_bank(letter, asker(places[letter]), not databases_only)
             for letter in LETTERS}
    if databases_only:
        return World(banks, [])
    ferry, servers = places["ferry"], places["servers"]
    topics = [f"bank.{letter}" for letter in LETTERS] + [EVENTS]
    # What is due becomes a record while we look: the waiting ones first, then only those count that
    # are in no log.
    waiting = [one for topic in topics for one in read_scheduled(ferry, servers, topic)]
    records = [record for topic in topics for record in read_log(ferry, servers, topic)]
    published = {record.id for record in records}
    return World(banks, records, [one for one in waiting if one not in published],
                 frozenset(set_back))


def main():
    parser = argparse.ArgumentParser(usage="checker.py PLACES [--databases] [--set-back LETTERS]")
    parser.add_argument("places")
    parser.add_argument("--databases", action="store_true")
    parser.add_argument("--set-back", default="")
    words = parser.parse_args()
    with open(words.places, encoding="utf-8") as file:
        places = json.load(file)
    world = look(places, words.databases, words.set_back)
    if words.databases:
        verdict = Verdict()
        judge_databases(world, verdict)
    else:
        verdict = judge(world)
    print(verdict.report(), flush=True)
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
