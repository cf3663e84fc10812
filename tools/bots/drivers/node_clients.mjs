// One process per Node client, in a folder of its own with its packages: `node node_clients.mjs CLIENT BASE PLAN`.
// PLAN is a JSON file: a list of {variant, method, path, headers: [[name, value]] or null, body or null}; one request each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , name, base, planFile] = process.argv;
const require = createRequire(process.cwd() + "/");
const h2 = process.env.EDGE_HTTP !== "1";
const LIMIT = 15000;

const named = (step) => {
  const made = Object.fromEntries(step.headers ?? []);
  if (step.body && !made["content-type"]) made["content-type"] = "application/json";
  return made;
};
const init = (step) => ({ method: step.method, headers: named(step), body: step.body ?? undefined });

const CLIENTS = {
  fetch: async (step, url) => (await fetch(url, init(step))).text(),
  undici: async (step, url) => {
    const { Client } = require("undici");
    const client = new Client(new URL(url).origin, { allowH2: h2 });
    try {
      const answer = await client.request({ path: new URL(url).pathname, ...init(step) });
      await answer.body.text();
    } finally {
      await client.close();
    }
  },
  axios: async (step, url) =>
    require("axios").request({ url, method: step.method, headers: named(step), data: step.body ?? undefined, validateStatus: () => true }),
  got: async (step, url) => {
    const { got } = await import(require.resolve("got"));
    await got(url, { ...init(step), http2: h2, throwHttpErrors: false, retry: { limit: 0 } });
  },
  "got-scraping": async (step, url) => {
    const { gotScraping } = await import(`${process.cwd()}/node_modules/got-scraping/dist/index.js`);
    await gotScraping({ url, ...init(step), http2: h2, throwHttpErrors: false, retry: { limit: 0 }, https: { rejectUnauthorized: false } });
  },
  "node-fetch": async (step, url) => {
    const module = await import(require.resolve("node-fetch"));
    await (await module.default(url, init(step))).text();
  },
  superagent: async (step, url) => {
    const asked = require("superagent")(step.method, url).set(named(step)).ok(() => true);
    await (step.body ? asked.send(step.body) : asked);
  },
  needle: async (step, url) => require("needle")(step.method.toLowerCase(), url, step.body, { headers: named(step) }),
  ky: async (step, url) => {
    const module = await import(require.resolve("ky"));
    await module.default(url, { ...init(step), retry: 0, throwHttpErrors: false }).text();
  },
  http2: async (step, url) => {
    const http2 = await import("node:http2");
    const at = new URL(url);
    const session = http2.connect(at.origin);
    await new Promise((done, failed) => {
      session.on("error", failed);
      const stream = session.request({ ":method": step.method, ":path": at.pathname, ...named(step) });
      stream.on("error", failed).on("end", done).resume().end(step.body ?? undefined);
    });
    session.close();
  },
  "openai-node": async (step, url) => {
    if (step.variant !== "plain") return;
    const { OpenAI } = require("openai");
    const sdk = new OpenAI({ apiKey: "sk-x", baseURL: `${base}/c/openai-node/plain`, maxRetries: 0 });
    await (step.body ? sdk.chat.completions.create({ model: "m", messages: [{ role: "user", content: "hi" }] }) : sdk.models.list());
  },
  "impit-node": async (step, url) => {
    const { Impit } = require("impit");
    const client = new Impit({ browser: step.variant, ignoreTlsErrors: true, http3: process.env.EDGE_HTTP === "3" });
    await (await client.fetch(url, { ...init(step), ...(process.env.EDGE_HTTP === "3" ? { forceHttp3: true } : {}) })).text();
  },
  "wreq-js": async (step, url) => {
    const module = await import(require.resolve("wreq-js"));
    await (await module.fetch(url, { ...init(step), browser: step.variant, insecure: true, timeout: LIMIT })).text();
  },
};
const TARGETS = {
  "impit-node": () => ["chrome", "firefox", "chrome125", "chrome131", "chrome136", "chrome142", "firefox128", "firefox133", "firefox144"],
  "wreq-js": async () => {
    const module = await import(require.resolve("wreq-js"));
    return module.getProfiles();
  },
};

let plan = JSON.parse(readFileSync(planFile, "utf8"));
if (TARGETS[name]) {
  const all = await TARGETS[name]();
  const step = Math.max(1, Math.ceil(all.length / Number(process.env.EDGE_TARGETS ?? 60)));
  const honest = plan.filter((one) => one.variant === "plain");
  const fetching = plan.find((one) => one.variant === "fetching");
  plan = all
    .filter((_, at) => at % step === 0)
    .flatMap((target) => [...honest, fetching].map((one) => ({ ...one, variant: target })));
}
for (const step of plan.filter((one) => one.variant !== "fetching")) {
  const url = `${base}/c/${name}/${step.variant}/${step.path}`;
  try {
    const late = new Promise((_, failed) => setTimeout(failed, LIMIT, new Error("time-out")).unref());
    await Promise.race([CLIENTS[name](step, url), late]);
  } catch (e) {
    console.error(`${url}: ${String(e.cause ?? e).slice(0, 160)}`);
  }
}
process.exit(0);
