// The official TypeScript client, 1.x line, in the matrix of clients (tests/clients).

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Provider, answered, main, shown, told } from "../clients/repl.mjs";

const provider = new Provider();
let client;
let transport;

async function connect() {
  transport = new StreamableHTTPClientTransport(new URL(told.url), { authProvider: provider });
  client = new Client(
    { name: told.name, version: "1" },
    { capabilities: { elicitation: { form: {}, url: {} } } },
  );
  client.setRequestHandler(ElicitRequestSchema, (request) => answered(request.params));
  await client.connect(transport);
}

main({
  connect: () => provider.loggedIn(() => transport, connect),
  list: async () => (await client.listTools()).tools.map((tool) => tool.name),
  call: async (name, args) => {
    let progress = 0;
    const onprogress = () => {
      progress += 1;
    };
    const call = () => client.callTool({ name, arguments: args }, undefined, { onprogress });
    return shown(await provider.loggedIn(() => transport, call), progress);
  },
});
