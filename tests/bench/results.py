"""RESULTS.md beside this file: a section for each bench, which writes its own and keeps the others."""

import os
import re
import sys

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "RESULTS.md")


def section(name, text):
    return f"<!-- {name}: begin -->\n{text.strip()}\n<!-- {name}: end -->\n"


def replaced(whole, name, text):
    """`whole` with the section replaced, or added at the end."""
    found = re.search(rf"<!-- {name}: begin -->.*<!-- {name}: end -->\n", whole, re.S)
    if found is None:
        return whole.rstrip("\n") + "\n\n" + section(name, text)
    return whole[:found.start()] + section(name, text) + whole[found.end():]


def write(name, text):
    with open(PATH, encoding="utf-8") as results:
        whole = results.read()
    with open(PATH, "w", encoding="utf-8") as results:
        results.write(replaced(whole, name, text))


def shown_command(words=None):
    """The options as given, without those that name places of one machine."""
    words = sys.argv[1:] if words is None else words
    shown, places = [], ("--bin", "--dir", "--data")
    for at, word in enumerate(words):
        if word.split("=")[0] not in places and (at == 0 or words[at - 1] not in places):
            shown.append(word)
    return " ".join(shown)


def load():
    """How busy the machine is: the averages of 1, 5 and 15 minutes, and its cores."""
    return "load " + ", ".join(f"{n:.1f}" for n in os.getloadavg()) + f" on {os.cpu_count()} cores"
