// The official TypeScript client does operations, run by tests/support/older_clients.py; prints how
// each one ended, as JSON. A list ends with its names.
//
// Arguments: URL, port (of 127.0.0.1, where the URL's name is), token, the member of a refused
// tool's `_meta`, and as JSON a list of method, name and arguments.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Agent, buildConnector, fetch as undiciFetch } from "undici";

const [url, port, token, refusal, told] = process.argv.slice(2);
const connect = buildConnector({ rejectUnauthorized: false });
const dispatcher = new Agent({
  connect: (options, callback) =>
    connect(
      { ...options, hostname: "127.0.0.1", port, servername: options.hostname },
      callback,
    ),
});
const fetch = (where, init) => undiciFetch(where, { ...init, dispatcher });
const requestInit = { headers: { authorization: `Bearer ${token}` } };
const client = new Client({ name: "operations", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch, requestInit }));

const reference = (name) =>
  name.includes(":") ? { type: "ref/resource", uri: name } : { type: "ref/prompt", name };
const operations = {
  "tools/list": () => client.listTools(),
  "tools/call": (name, args) => client.callTool({ name, arguments: args }),
  "prompts/get": (name, args) => client.getPrompt({ name, arguments: args }),
  "resources/read": (uri) => client.readResource({ uri }),
  "resources/subscribe": (uri) => client.subscribeResource({ uri }),
  "completion/complete": (name) =>
    client.complete({ ref: reference(name), argument: { name: "tone", value: "p" } }),
};
const ended = [];
for (const [method, name, args] of JSON.parse(told)) {
  try {
    const result = await operations[method](name, args);
    const names = result.tools?.map((tool) => tool.name).sort().join(" ");
    ended.push(names ?? result._meta?.[refusal]?.reason ?? "allowed");
  } catch (error) {
    ended.push(error.data?.reason ?? `${error.code}`);
  }
}
console.log(JSON.stringify(ended));
process.exit(0);
