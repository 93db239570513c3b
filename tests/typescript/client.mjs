// The official TypeScript client, run by tests/e2e/test_typescript.py.
//
// The client is the official one, unchanged. Ours is what an application gives it: a place for its
// tokens, and a person, who is asked by a line of JSON and answers by a line.
//
// Argument, as JSON: url, port (of 127.0.0.1, where the URL's name is), redirect_uri, name, tool,
// arguments; optional: document (URL of its client id metadata document), key (PKCS #8,
// PEM, by which it authenticates), elicits, refreshes, kept
// (what it kept of an earlier time: client, tokens).

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { createPrivateKeyJwtAuth } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";
import { Agent, buildConnector, fetch as undiciFetch } from "undici";
import { Provider as Kept, ask, say, told } from "../clients/repl.mjs";

// Every name is this machine, at one port; the certificate is checked for the name.
const connect = buildConnector({});
const dispatcher = new Agent({
  connect: (options, callback) =>
    connect(
      { ...options, hostname: "127.0.0.1", port: told.port, servername: options.servername ?? options.hostname },
      callback,
    ),
});
const seen = [];
async function fetch(url, init) {
  const response = await undiciFetch(url, { ...init, dispatcher });
  seen.push(`${response.status} ${new URL(url).pathname}`);
  // The SDK tells OAuth errors by `instanceof Response`, the platform's own and not undici's.
  const { status, statusText, headers } = response;
  const body = [101, 204, 205, 304].includes(status) ? null : response.body;
  return new Response(body, { status, statusText, headers: [...headers] });
}

// Besides what every client keeps: it may have been here before, and forgets what is no good.
class Provider extends Kept {
  kept = told.kept ?? {};
  opened = 0;
  clientMetadataUrl = told.document;

  redirectToAuthorization(url) {
    this.opened += 1;
    super.redirectToAuthorization(url);
  }

  invalidateCredentials(scope) {
    if (scope === "all" || scope === "client") delete this.kept.client;
    if (scope === "all" || scope === "tokens") delete this.kept.tokens;
  }
}

const provider = new Provider();
if (told.key) {
  provider.addClientAuthentication = createPrivateKeyJwtAuth({
    issuer: told.document,
    subject: told.document,
    privateKey: told.key,
    alg: "ES256",
  });
}

async function connected() {
  const capabilities = told.elicits ? { elicitation: { url: {} } } : {};
  let client;
  let transport;
  await provider.loggedIn(
    () => transport,
    () => {
      const options = { authProvider: provider, fetch };
      transport = new StreamableHTTPClientTransport(new URL(told.url), options);
      client = new Client({ name: told.name, version: "1" }, { capabilities });
      return client.connect(transport);
    },
  );
  return client;
}

// A call that is admitted while the log-in is young, until it is not.
async function refused(client) {
  const end = Date.now() + 30000;
  while (Date.now() < end) {
    try {
      await client.callTool({ name: told.elicits, arguments: { name: "none" } });
    } catch (error) {
      return error;
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error("it was never refused");
}

async function steppedUp(client) {
  const error = await refused(client);
  if (!(error instanceof UrlElicitationRequiredError)) throw error;
  await ask({ visit: error.elicitations[0].url });
  return client.callTool({ name: told.elicits, arguments: { name: "none" } });
}

try {
  const client = await connected();
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  const result = await client.callTool({ name: told.tool, arguments: told.arguments ?? {} });
  const found = { tools, told: result.structuredContent, error: result.isError ?? false };
  found.text = result.content?.[0]?.text;
  if (told.refreshes) {
    const before = provider.kept.tokens.access_token;
    provider.kept.tokens = { ...provider.kept.tokens, access_token: `${before.slice(0, -8)}AAAAAAAA` };
    const later = await client.callTool({ name: told.tool, arguments: told.arguments ?? {} });
    found.refreshed = provider.kept.tokens.access_token !== before && !(later.isError ?? false);
  }
  if (told.elicits) found.after = (await steppedUp(client)).content[0].text;
  say({ ...found, opened: provider.opened, seen });
  await client.close();
} catch (error) {
  say({ failed: `${error.name}: ${error.message}`, opened: provider.opened, seen });
}
process.exit(0);
