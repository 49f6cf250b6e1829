// pg-transactional-outbox in front of a sink that counts: how fast it drains, how soon it sees a commit.
//
//   node pto.mjs setup polling|replication          makes its table, roles and slot, prints nothing
//   node pto.mjs fill ROWS BYTES                     a backlog
//   node pto.mjs drain polling|replication ROWS      until the sink has ROWS messages; prints JSON
//   node pto.mjs latency polling|replication COUNT   one transaction at a time; prints JSON
//
// The server is named by PGHOST, PGPORT, PGUSER and PGDATABASE; the user is a superuser. Settings that the
// bench searches come from PTO_BATCH, PTO_INTERVAL_MS, PTO_CONCURRENCY and PTO_POOL.
import pg from 'pg';
import * as pto from 'pg-transactional-outbox';

const SCHEMA = 'pto';
const TABLE = 'outbox';
const SLOT = 'pto_slot';
const PUBLICATION = 'pto_pub';
const KEYS = 1000;
const FILL_BATCH = 10000;

const connection = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT ?? 5432),
  user: process.env.PGUSER,
  database: process.env.PGDATABASE,
};

function number(name, otherwise) {
  return Number(process.env[name] ?? otherwise);
}

const none = () => {};
const quiet = {level: 'error', fatal: console.error, error: console.error, warn: none, info: none, debug: none,
  trace: none, silent: none};

async function withClient(use) {
  const client = new pg.Client(connection);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

function setupConfig() {
  return {
    outboxOrInbox: 'outbox', database: connection.database, schema: SCHEMA, table: TABLE,
    listenerRole: connection.user, handlerRole: connection.user,
    publication: PUBLICATION, replicationSlot: SLOT,
    nextMessagesSchema: SCHEMA, nextMessagesName: 'next_messages',
  };
}

async function setup(mode) {
  const s = pto.DatabaseSetup;
  const config = setupConfig();
  await withClient(async client => {
    await client.query(`CREATE SCHEMA IF NOT EXISTS ${SCHEMA}`);
    await client.query(s.dropAndCreateTable(config));
    if (mode === 'polling') {
      await client.query(s.createPollingFunction(config));
      await client.query(s.setupPollingIndexes(config));
    } else {
      await client.query(`DROP PUBLICATION IF EXISTS ${PUBLICATION}`);
      await client.query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE ${SCHEMA}.${TABLE} WITH (publish = 'insert')`);
      await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [SLOT]);
      await client.query('SELECT pg_create_logical_replication_slot($1, $2)', [SLOT, 'pgoutput']);
    }
  });
}

const insert = `INSERT INTO ${SCHEMA}.${TABLE}
  (id, aggregate_type, aggregate_id, message_type, payload, concurrency, created_at)
  SELECT gen_random_uuid(), 'bench', 'key-' || (n % ${KEYS}), 'event', json_build_object('x', repeat('x', $3::int)), 'parallel', clock_timestamp()
  FROM generate_series($1::int, $2::int) n`;

async function fill(rows, bytes) {
  await withClient(async client => {
    for (let n = 0; n < rows; n += FILL_BATCH) {
      await client.query(insert, [n, Math.min(n + FILL_BATCH, rows) - 1, bytes]);
    }
    await client.query(`VACUUM ANALYZE ${SCHEMA}.${TABLE}`);
  });
}

function listenerSettings() {
  return {
    dbSchema: SCHEMA, dbTable: TABLE,
    enableMaxAttemptsProtection: false, enablePoisonousMessageProtection: false,
  };
}

function start(mode, handle) {
  const handlerPool = {...connection, max: number('PTO_POOL', 20)};
  const base = {outboxOrInbox: 'outbox', dbHandlerConfig: handlerPool, dbListenerConfig: {...connection}};
  const handler = {handle};
  if (mode === 'polling') {
    const settings = {
      ...listenerSettings(), nextMessagesFunctionSchema: SCHEMA, nextMessagesFunctionName: 'next_messages',
      nextMessagesBatchSize: number('PTO_BATCH', 100), nextMessagesLockInMs: 60000,
      nextMessagesPollingIntervalInMs: number('PTO_INTERVAL_MS', 10),
    };
    const size = number('PTO_BATCH', 100);
    return pto.initializePollingMessageListener({...base, settings}, handler, quiet,
      {batchSizeStrategy: async () => size});
  }
  const settings = {...listenerSettings(), dbPublication: PUBLICATION, dbReplicationSlot: SLOT};
  return pto.initializeReplicationMessageListener({...base, settings}, handler, quiet,
    {concurrencyStrategy: pto.createReplicationSemaphoreConcurrencyController(number('PTO_CONCURRENCY', 20))});
}

// A backlog of a slot that has been read is confirmed at the end: the process ends by itself.
async function drain(mode, rows) {
  let count = 0;
  let began = 0;
  let reached;
  const all = new Promise(resolve => { reached = resolve; });
  start(mode, async () => {
    began ||= performance.now();
    count += 1;
    if (count === rows) {
      reached();
    }
  });
  await all;
  const seconds = (performance.now() - began) / 1000;
  console.log(JSON.stringify({peer: `pto ${mode}`, rows, seconds, rows_per_second: rows / seconds,
    cpu_us_per_row: (process.cpuUsage().user + process.cpuUsage().system) / rows}));
  process.exit(0);
}

async function latency(mode, count) {
  const took = [];
  let arrived = () => {};
  start(mode, async () => arrived());
  await withClient(async client => {
    for (let n = 0; n <= count; n++) {
      const here = new Promise(resolve => { arrived = () => resolve(performance.now()); });
      await client.query(insert, [n, n, 180]);
      const began = performance.now();
      const at = await here;
      if (n > 0) {
        took.push(at - began);
      }
      await new Promise(resolve => setTimeout(resolve, 2 + (n * 7919) % 18));
    }
  });
  took.sort((a, b) => a - b);
  const at = share => took[Math.floor((took.length - 1) * share)] * 1000;
  console.log(JSON.stringify({peer: `pto ${mode}`, count, latency_us: {p50: at(0.5), p99: at(0.99)}}));
  process.exit(0);
}

const [command, first, second] = process.argv.slice(2);
const commands = {
  setup: () => setup(first),
  fill: () => fill(Number(first), Number(second)),
  drain: () => drain(first, Number(second)),
  latency: () => latency(first, Number(second)),
};
if (!(command in commands)) {
  console.error('usage: node pto.mjs setup|fill|drain|latency …; see the top of the file');
  process.exit(2);
}
await commands[command]();
