// The official TypeScript client, 2.x line, in the matrix of clients.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Provider, answered, main, shown, told } from "../repl.mjs";

const provider = new Provider();
// This line takes the whole answer of the log-in: it checks `iss`.
provider.whole = true;
let client;
let transport;

async function connect() {
  transport = new StreamableHTTPClientTransport(new URL(told.url), { authProvider: provider });
  client = new Client(
    { name: told.name, version: "1" },
    { capabilities: { elicitation: { form: {}, url: {} } } },
  );
  client.setRequestHandler("elicitation/create", (request) => answered(request.params));
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
    const call = () => client.callTool({ name, arguments: args }, { onprogress });
    return shown(await provider.loggedIn(() => transport, call), progress);
  },
});
