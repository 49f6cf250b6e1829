#!/bin/bash
# The `ferry` command against a real ferryd.
exec python3 "$(dirname "$0")/cli_test.py" "$@"
