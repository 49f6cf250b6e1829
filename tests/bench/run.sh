#!/bin/bash
# Ferry beside its limit, on the same work, in turns, in one go.
#
#   tests/bench/run.sh                     one broker: five rounds, a table on standard output
#   tests/bench/run.sh --big 10            also: how soon a broker with 10 GB of log is ready
#   tests/bench/run.sh --cluster           three brokers: produce, partitions, failover
#   tests/bench/run.sh --queue             a work queue: produce, hand out, ack; one broker and three
#   tests/bench/run.sh --outbox            PostgreSQL, MariaDB, SQLite to brokers, beside other relays
#   tests/bench/run.sh --peers             beside NATS JetStream, RabbitMQ and beanstalkd: installs them
#
# Each with --write for its section of RESULTS.md, and --help for the rest. The programs are found in
# $FERRY_BIN, or in the folder given with --bin, or in ./build.
here=$(dirname "$0")
case ${1-} in
--cluster) shift && exec python3 "$here/cluster_bench.py" "$@" ;;
--queue) shift && exec python3 "$here/queue_cases.py" "$@" ;;
--outbox) shift && exec python3 "$here/outbox/outbox_bench.py" "$@" ;;
--peers) shift && exec python3 "$here/peers/peers_bench.py" "$@" ;;
*) exec python3 "$here/bench.py" "$@" ;;
esac
