# The page at `/`: one file, no third-party resources, nothing allowed that it does not need.
"""A chat box in plain HTML, CSS and JavaScript that streams from `/v1/chat/completions` on its own origin."""

from __future__ import annotations

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; --line: #767676; --me: #e7effa; --it: #f3f3f3; --ink: #1a1a1a; --paper: #fff;
  --accent: #0b57d0; --on-accent: #fff; }
@media (prefers-color-scheme: dark) { :root { --line: #8c8c8c; --me: #1f3350; --it: #2a2a2a; --ink: #ececec;
  --paper: #161616; --accent: #a8c7fa; --on-accent: #10233f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 46rem; height: 100vh; height: 100dvh; display: flex;
  flex-direction: column; gap: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { margin: 0; font-size: 1.4rem; }
p { margin: 0; }
main { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: .5rem; }
#log { flex: 1; min-height: 7rem; overflow-y: auto; display: flex; flex-direction: column; gap: .75rem; }
.said { flex: none; position: relative; max-width: 85%; padding: .6rem .9rem; border-radius: .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.user { align-self: flex-end; background: var(--me); }
.assistant { align-self: flex-start; background: var(--it); }
.who { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
form { display: grid; gap: .5rem; }
textarea, select, button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line);
  border-radius: .5rem; padding: .5rem .75rem; }
select option { color: CanvasText; background: Canvas; }
textarea { width: 100%; resize: vertical; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.row select { flex: 1; min-width: 6rem; }
button { cursor: pointer; min-width: 4.5rem; }
#status { min-height: 1.5em; }
button[type=submit] { background: var(--accent); color: var(--on-accent); border-color: var(--accent); }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""

_SCRIPT = """
const $ = id => document.getElementById(id);
const form = $('form'), prompt = $('prompt'), log = $('log'), status = $('status'), model = $('model');
const history = [];
let running = null;

function say(role, text) {
  const box = document.createElement('article');
  const who = document.createElement('h2');
  const body = document.createElement('div');
  box.className = 'said ' + role;
  who.className = 'who';
  who.textContent = role === 'user' ? 'You' : 'Answer';
  body.textContent = text;
  box.append(who, body);
  log.append(box);
  log.scrollTop = log.scrollHeight;
  return body;
}

// Who has scrolled up to read is left there.
function atEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split('\\n\\n');
    rest = blocks.pop();
    for (const block of blocks) {
      for (const line of block.split('\\n')) if (line.startsWith('data: ')) yield line.slice(6);
    }
  }
}

async function ask(text) {
  history.push({ role: 'user', content: text });
  say('user', text);
  const body = say('assistant', '');
  const began = performance.now();
  let answer = '', first = 0, complete = false;
  running = new AbortController();
  // Read out once, when it is whole: a screen reader cannot follow a text that grows word by word.
  log.setAttribute('aria-busy', 'true');
  status.textContent = 'Waiting for the answer…';
  try {
    const response = await fetch('/v1/chat/completions', {
      method: 'POST', signal: running.signal, headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: model.value, messages: history, stream: true }),
    });
    if (!response.ok) {
      const failure = await response.json().catch(() => null);
      throw new Error((failure && failure.error && failure.error.message) || 'HTTP ' + response.status);
    }
    for await (const data of events(response)) {
      if (data === '[DONE]') { complete = true; continue; }
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const piece = event.choices.length ? event.choices[0].delta.content : '';
      if (!piece) continue;
      first = first || performance.now();
      answer += piece;
      const follow = atEnd();
      body.textContent = answer;
      if (follow) log.scrollTop = log.scrollHeight;
      status.textContent = 'Answering…';
    }
    if (!complete) throw new Error('The answer broke off.');
    const ms = Math.round(performance.now() - began);
    status.textContent = 'Done after ' + ms + ' ms; the first word came after ' + Math.round(first - began) + ' ms.';
  } catch (error) {
    status.textContent = error.name === 'AbortError' ? 'Stopped.' : 'Failed: ' + error.message;
  } finally {
    running = null;
    log.setAttribute('aria-busy', 'false');
    if (answer) history.push({ role: 'assistant', content: answer });
    else { history.pop(); body.parentNode.remove(); }
  }
}

form.addEventListener('submit', async event => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = '';
  $('send').disabled = true;
  $('stop').disabled = false;
  await ask(text);
  $('send').disabled = false;
  $('stop').disabled = true;
  prompt.focus();
});
$('stop').addEventListener('click', () => running && running.abort());
prompt.addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
});
fetch('/v1/models').then(r => r.json()).then(list => {
  model.replaceChildren(...list.data.map(entry => new Option(entry.id, entry.id)));
}).catch(() => { status.textContent = 'The list of models could not be loaded.'; });
prompt.focus();
"""

HTML = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>edgeproxy demo</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>edgeproxy demo</h1>
<p>This chat runs through the edge: what you write goes over TLS to edgeproxy and from there to the backend.</p>
</header>
<main>
<div id="log" role="log" aria-live="polite" aria-label="Conversation" tabindex="0"></div>
<form id="form">
<label for="prompt">Your message</label>
<textarea id="prompt" rows="2" aria-describedby="keys" required></textarea>
<p id="keys">Enter sends, Shift and Enter start a new line.</p>
<div class="row">
<label for="model">Model</label>
<select id="model"><option>edge-demo</option></select>
<button id="send" type="submit">Send</button>
<button id="stop" type="button" disabled>Stop</button>
</div>
<p id="status" role="status"></p>
</form>
<noscript><p>The chat box needs JavaScript. curl does not: <code>POST /v1/chat/completions</code>.</p></noscript>
</main>
<script type="module">{_SCRIPT}</script>
</body>
</html>
"""


def _source(content: str) -> str:
    """The CSP source of one inline element (CSP3 §2.3.1): only exactly this text may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
