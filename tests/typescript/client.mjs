// The official TypeScript client, run by tests/e2e/test_typescript.py.
//
// Law: the client is the official one, unchanged. What is ours is what an application gives it: a
// place for its tokens, and a person, who is asked by a line of JSON and answers by a line.
//
// Argument, as JSON: url, port (of 127.0.0.1, where the URL's name is), redirectUri, name, tool,
// arguments; optional: document (URL of its client id metadata document), key (PKCS #8,
// PEM, by which it authenticates), elicits, refreshes, kept
// (what it kept of an earlier time: client, tokens).

import readline from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { createPrivateKeyJwtAuth } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";
import { Agent, buildConnector, fetch as undiciFetch } from "undici";

const told = JSON.parse(process.argv[2]);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function ask(line) {
  say(line);
  return (await answers.next()).value;
}

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

class Provider {
  kept = told.kept ?? {};
  opened = [];
  clientMetadataUrl = told.document;

  get redirectUrl() {
    return told.redirectUri;
  }

  get clientMetadata() {
    return {
      client_name: told.name,
      redirect_uris: [told.redirectUri],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    };
  }

  state() {
    this.kept.state = crypto.randomUUID();
    return this.kept.state;
  }

  clientInformation() {
    return this.kept.client;
  }

  saveClientInformation(client) {
    this.kept.client = client;
  }

  tokens() {
    return this.kept.tokens;
  }

  saveTokens(tokens) {
    this.kept.tokens = tokens;
  }

  redirectToAuthorization(url) {
    this.opened.push(String(url));
  }

  saveCodeVerifier(verifier) {
    this.kept.verifier = verifier;
  }

  codeVerifier() {
    return this.kept.verifier;
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
  const options = { authProvider: provider, fetch };
  const capabilities = told.elicits ? { elicitation: { url: {} } } : {};
  const client = new Client({ name: told.name, version: "1" }, { capabilities });
  const transport = new StreamableHTTPClientTransport(new URL(told.url), options);
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  const came = new URL(await ask({ open: provider.opened.at(-1) })).searchParams;
  if (came.get("error")) throw new Error(came.get("error"));
  if (came.get("state") !== provider.kept.state) throw new Error("state");
  await transport.finishAuth(came.get("code"));
  const again = new Client({ name: told.name, version: "1" }, { capabilities });
  await again.connect(new StreamableHTTPClientTransport(new URL(told.url), options));
  return again;
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
  say({ ...found, opened: provider.opened.length, seen });
  await client.close();
} catch (error) {
  say({ failed: `${error.name}: ${error.message}`, opened: provider.opened.length, seen });
}
process.exit(0);
