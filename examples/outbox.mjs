#!/usr/bin/env node
/* outbox: the transactional outbox from Node.js, on PostgreSQL. Each line of standard input is one sale: a
 * row of the business and the message about it, in one transaction, so that both are there or neither.
 *
 *     npm install pg                              # the driver; nothing else is needed
 *     ferry outbox init postgresql://USER@HOST/DATABASE
 *     node outbox.mjs postgresql://USER@HOST/DATABASE orders < lines
 *     ferry-outbox --db postgresql://USER@HOST/DATABASE    # publishes what was committed
 *
 * A line is KEY, a tab, and anything: messages of one key stay in order. A line "KEY<tab>refuse" is rolled
 * back, and no message of it is ever seen. */
import { createInterface } from "node:readline";

const [url, topic] = process.argv.slice(2);
if (url === undefined || topic === undefined) {
    console.error("usage: node outbox.mjs postgresql://USER@HOST/DATABASE TOPIC < lines");
    process.exit(2);
}

let pg;
try {
    pg = await import("pg");
} catch {
    console.error("The driver is missing. Install it here with: npm install pg");
    process.exit(1);
}

/* One transaction. True: it was committed. */
async function sell(client, customer, what) {
    let committed = false;
    await client.query("BEGIN");
    try {
        await client.query("INSERT INTO sale (customer, what) VALUES ($1, $2)", [customer, what]);
        // ferry.put takes text; for bytes insert into ferry.outbox (topic, mkey, payload, headers_json).
        await client.query("SELECT ferry.put($1, $2::text, $3::text, $4)", [
            topic,
            customer,
            JSON.stringify({ customer, what }),
            { "content-type": "application/json" },
        ]);
        committed = what !== "refuse";
    } finally {
        await client.query(committed ? "COMMIT" : "ROLLBACK");
    }
    return committed;
}

const client = new pg.default.Client({ connectionString: url });
await client.connect();
await client.query("CREATE TABLE IF NOT EXISTS sale (customer text NOT NULL, what text NOT NULL)");
let sold = 0;
let refused = 0;
for await (const line of createInterface({ input: process.stdin })) {
    const tab = line.indexOf("\t");
    const customer = tab < 0 ? line : line.slice(0, tab);
    if (await sell(client, customer, tab < 0 ? "" : line.slice(tab + 1))) {
        sold++;
    } else {
        refused++;
    }
}
await client.end();
console.log(`sold ${sold}, refused ${refused}`);
