"""The checker finds every kind of wrong that it is there for: a right world, tampered with."""
import copy
import unittest

import checker

LETTERS = checker.LETTERS
PAYER, PAYEE, COLLECTOR = 2010, 3010, 1010


def saga_of(number):
    return f"{number:032x}"


class Builder:
    """Makes a world as the banks would, one effect after another."""

    def __init__(self):
        accounts = [*range(1000, 1100), *range(2000, 2100), *range(3000, 3100)]
        self.banks = {letter: checker.Bank(letter, {one: (checker.opening_balance(one), 0)
                                                    for one in accounts}) for letter in LETTERS}
        self.records = []
        self.messages = 0

    def publish(self, bank, topic, partition, key, payload):
        self.messages += 1
        message = f"{0xabc000 + self.messages:032x}"
        bank.ledger.append((message, topic))
        offset = sum(record.topic == topic and record.partition == partition
                     for record in self.records)
        self.records.append(checker.Record(topic, partition, offset, message, key, payload))

    def effect(self, letter, saga, step, undo, account, amount):
        bank = self.banks[letter]
        balance, version = bank.accounts[account]
        bank.accounts[account] = (balance + amount, version + 1)
        bank.entries.append((saga, step, undo, account, amount, version + 1))
        self.publish(bank, checker.EVENTS, account % 4, f"{letter}/{account}",
                     f"{saga} {step} {undo} {amount} {version + 1}")
        self.publish(bank, f"bank.{letter}", 0, "", "an answer")

    def transfer(self, letter, number, done):
        """One that is done, or one whose credit was refused."""
        first = LETTERS.index(letter)
        banks = [LETTERS[(first + step) % 3] for step in range(3)]
        saga = saga_of(first * 1000 + number)
        self.effect(banks[0], saga, 0, 0, PAYER, -51)
        self.effect(banks[1], saga, 1, 0, COLLECTOR, 1)
        if done:
            self.effect(banks[2], saga, 2, 0, PAYEE, 50)
        else:
            self.effect(banks[1], saga, 1, 1, COLLECTOR, -1)
            self.effect(banks[0], saga, 0, 1, PAYER, 51)
        state = checker.DONE if done else checker.COMPENSATED
        self.banks[letter].transfers.append((number, saga, "o", 50, 1, state))
        self.banks[letter].sagas.append((saga, state))

    def world(self):
        for letter in LETTERS:
            self.transfer(letter, 1, True)
            self.transfer(letter, 2, False)
            self.transfer(letter, 3, True)
        for letter, bank in self.banks.items():
            end = sum(record.topic == f"bank.{letter}" for record in self.records)
            bank.chains = [("clerks", "1" * 32, 0, -1, 2), ("clerks", "1" * 32, 0, 2, end)]
        return checker.World(self.banks, self.records)


class CheckerTest(unittest.TestCase):
    def setUp(self):
        self.world = Builder().world()
        self.bank = self.world.banks["b"]

    def finds(self, *kinds):
        verdict = checker.judge(self.world)
        self.assertEqual(set(kinds) - set(verdict.complaints), set(), verdict.report())

    def test_a_right_world_is_right(self):
        verdict = checker.judge(self.world)
        self.assertTrue(verdict, verdict.report())
        self.assertEqual(verdict.counts["transfers"], 9)
        self.assertEqual(verdict.counts["compensated"], 3)

    def test_a_message_kept_for_later_is_neither_missing_nor_extra(self):
        self.bank.ledger.append(("f" * 32, "bank.b"))
        self.finds("missing message")
        self.world.scheduled.append("f" * 32)
        self.assertTrue(checker.judge(self.world))

    def test_a_lost_message_is_missing(self):
        self.world.records.pop(0)
        self.finds("missing message")

    def test_a_message_published_twice(self):
        self.world.records.append(copy.copy(self.world.records[0]))
        self.finds("duplicate message")

    def test_a_message_published_twice_that_says_so_is_right(self):
        again = copy.copy(next(one for one in self.world.records if one.topic == "bank.b"))
        again.offset = sum(one.topic == "bank.b" for one in self.world.records)
        again.flagged = True
        self.world.records.append(again)
        self.bank.chains.append(("clerks", "1" * 32, 0, again.offset, again.offset + 1))
        self.assertTrue(checker.judge(self.world))

    def test_a_message_that_nobody_put(self):
        self.bank.ledger.pop()
        self.finds("extra message")
        self.world.set_back = frozenset("b")  # Its database has forgotten it.
        self.assertTrue(checker.judge(self.world))

    def test_a_message_in_the_wrong_topic(self):
        message, _ = self.bank.ledger[0]
        self.bank.ledger[0] = (message, "bank.c")
        self.finds("wrong topic")

    def test_an_effect_twice(self):
        saga, step, undo, account, amount, _ = self.bank.entries[0]
        balance, version = self.bank.accounts[account]
        self.bank.entries.append((saga, step, undo, account, amount, version + 1))
        self.bank.accounts[account] = (balance + amount, version + 1)
        self.finds("money", "transfer", "event order")

    def test_an_effect_that_is_not_there(self):
        self.bank.entries.pop(0)
        self.finds("transfer", "balance", "versions")

    def test_a_compensation_without_its_effect(self):
        undo = next(one for one in self.bank.entries if one[2] == 1)
        self.bank.entries = [one for one in self.bank.entries
                             if one[0] != undo[0] or one[1] != undo[1] or one[2] == 1]
        self.finds("transfer")

    def test_money_made_of_nothing(self):
        balance, version = self.bank.accounts[PAYER]
        self.bank.accounts[PAYER] = (balance + 1, version)
        self.finds("money", "balance")

    def test_a_negative_balance(self):
        _, version = self.bank.accounts[2003]
        self.bank.accounts[2003] = (-1, version)
        self.finds("negative balance")

    def test_a_transfer_that_is_not_over(self):
        number, saga, kind, amount, fee, _ = self.bank.transfers[0]
        self.bank.transfers[0] = (number, saga, kind, amount, fee, checker.RUNNING)
        self.finds("transfer", "saga")

    def test_a_saga_that_is_stuck(self):
        self.bank.sagas[0] = (self.bank.sagas[0][0], 5)
        self.finds("saga")

    def test_an_effect_of_no_transfer(self):
        self.bank.transfers.pop()
        self.finds("effect without a transfer")

    def test_an_effect_in_the_wrong_bank(self):
        self.world.banks["c"].entries.append(self.bank.entries.pop(0))
        self.finds("transfer")

    def test_events_out_of_order(self):
        some = [one for one in self.world.records if one.key == f"b/{PAYER}"]
        some[0].payload, some[1].payload = some[1].payload, some[0].payload
        self.finds("event order")

    def test_a_hole_in_a_chain(self):
        group, topic, partition, _, end = self.bank.chains[1]
        self.bank.chains[1] = (group, topic, partition, 3, end)
        self.finds("inbox chain")

    def test_a_chain_that_ends_early(self):
        self.bank.chains.pop()
        self.finds("inbox chain")

    def test_what_was_set_aside(self):
        self.bank.aside = 1
        self.finds("set aside")

    def test_after_a_restore_what_the_database_holds_is_not_lost(self):
        self.world.set_back = frozenset("b")
        message, _ = self.bank.ledger[0]
        self.world.records = [one for one in self.world.records if one.id != message]
        self.finds("missing message")


if __name__ == "__main__":
    unittest.main()
