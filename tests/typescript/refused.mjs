// The official TypeScript client calls a tool three times in one session, and says what it was told.
//
// Arguments: URL, port of 127.0.0.1, access token, tool. Waits for a line before each call,
// and prints a line of JSON after it.

import readline from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Agent, buildConnector, fetch as undiciFetch } from "undici";

const [url, port, token, tool] = process.argv.slice(2);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const connect = buildConnector({ rejectUnauthorized: false });
const dispatcher = new Agent({
  connect: (options, callback) => connect({ ...options, hostname: "127.0.0.1", port }, callback),
});
const transport = new StreamableHTTPClientTransport(new URL(url), {
  fetch: (where, init) => undiciFetch(where, { ...init, dispatcher }),
  requestInit: { headers: { authorization: `Bearer ${token}` } },
});
const client = new Client({ name: "refused", version: "1" });
await client.connect(transport);
console.log('"ready"');
for (let call = 0; call < 3; call += 1) {
  await lines.next();
  try {
    const result = await client.callTool({ name: tool, arguments: {} });
    console.log(JSON.stringify({ error: result.isError ?? false, text: result.content[0].text }));
  } catch (error) {
    console.log(JSON.stringify({ raised: `${error.name}: ${error.message}` }));
  }
}
process.exit(0);
