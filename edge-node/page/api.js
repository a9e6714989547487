// The edge's answers. A failure is an Error whose message is the edge's own line.

const TOKEN = "cleave-admin-token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => (value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN)),
};

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Error("the edge does not answer");
  }
  const body = await reply.json().catch(() => null);
  if (!reply.ok) throw new Error(body?.error ?? `HTTP ${reply.status}`);
  return body;
}

const json = (method, body, headers = {}) => ({
  method,
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(body),
});

export const get = (name) => ask(`/page/api/${name}`);

export const change = (name, body) =>
  ask(`/page/api/${name}`, json("PUT", body, { Authorization: `Bearer ${token.get()}` }));

export const activation = (request) => ask("/page/api/activation", json("POST", request));

export const infer = (model, request) =>
  ask(`/v2/models/${encodeURIComponent(model)}/infer`, json("POST", request));
