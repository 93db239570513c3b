// What the TypeScript clients share: commands and results are lines of JSON.

import readline from "node:readline";

export const told = JSON.parse(process.argv[2]);
export const NAME = "Ada";
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

export async function ask(line) {
  say(line);
  return (await lines.next()).value;
}

// The application's half of OAuth: it keeps what the SDK gives it, and shows its person a URL.
export class Provider {
  kept = {};
  waiting = undefined;

  get redirectUrl() {
    return told.redirect_uri;
  }

  get clientMetadata() {
    return {
      client_name: told.name,
      redirect_uris: [told.redirect_uri],
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
    this.waiting = String(url);
  }

  saveCodeVerifier(verifier) {
    this.kept.verifier = verifier;
  }

  codeVerifier() {
    return this.kept.verifier;
  }

  // Do something; where the SDK wants a log-in for it, let the person log in and do it again.
  async loggedIn(transport, something, before = () => {}) {
    try {
      return await something();
    } catch (error) {
      if (this.waiting === undefined) throw error;
      const url = this.waiting;
      this.waiting = undefined;
      const came = new URL(await ask({ open: url })).searchParams;
      if (came.get("error")) {
        throw new Error(`${came.get("error")}: ${came.get("error_description")}`);
      }
      if (came.get("state") !== this.kept.state) throw new Error("state");
      await transport().finishAuth(this.whole ? came : came.get("code"));
      await before();
      return something();
    }
  }
}

// What is answered to a question of the server, or of the gateway.
export async function answered(params) {
  if (params.mode === "url") {
    await ask({ visit: params.url });
    return { action: "accept" };
  }
  return { action: "accept", content: { name: NAME } };
}

export function shown(result, progress) {
  const text = result.content.map((part) => part.text ?? "").join("");
  return { text, is_error: result.isError ?? false, progress };
}

function failed(error) {
  const links = (error.elicitations ?? error.data?.elicitations ?? []).map((each) => each.url);
  return { error: `${error.name}: ${error.message}`, code: error.code, links };
}

export async function main(client) {
  for await (const line of lines) {
    const command = JSON.parse(line);
    let result;
    try {
      if (command.do === "connect") {
        await client.connect();
        result = { ok: true };
      } else if (command.do === "list") {
        result = { tools: await client.list() };
      } else {
        result = await client.call(command.tool, command.arguments);
      }
    } catch (error) {
      result = failed(error);
    }
    say({ result });
  }
  process.exit(0);
}
