// The official TypeScript client lists tools, run by tests/e2e/test_lists.py; prints their names.
//
// Argument, as JSON: url, port (of 127.0.0.1, where the URL's name is), token.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Agent, buildConnector, fetch as undiciFetch } from "undici";

const told = JSON.parse(process.argv[2]);
const connect = buildConnector({ rejectUnauthorized: false });
const dispatcher = new Agent({
  connect: (options, callback) =>
    connect(
      { ...options, hostname: "127.0.0.1", port: told.port, servername: options.hostname },
      callback,
    ),
});
const fetch = (url, init) => undiciFetch(url, { ...init, dispatcher });
const requestInit = { headers: { authorization: `Bearer ${told.token}` } };
const transport = new StreamableHTTPClientTransport(new URL(told.url), { fetch, requestInit });
const client = new Client({ name: "lists", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
console.log(JSON.stringify(tools.map((tool) => tool.name)));
process.exit(0);
