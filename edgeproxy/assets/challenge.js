// One script, three places: in a worker it solves puzzles; on the challenge's page it runs that page; on any other page it
// wraps fetch, so that a request that is answered with a challenge solves it and is sent once more.
"use strict";
(() => {
  const SLICE = 4096; // tries between two looks at whether somebody waits
  const words = (fraction) => (fraction - Math.floor(fraction)) * 4294967296 | 0;
  const K = new Int32Array(64), H = new Int32Array(8);
  for (let number = 2, found = 0; found < 64; number++) {
    let prime = true;
    for (let by = 2; by * by <= number; by++) prime = prime && number % by > 0;
    if (!prime) continue;
    if (found < 8) H[found] = words(Math.sqrt(number));
    K[found++] = words(Math.cbrt(number));
  }

  // SHA-256 (FIPS 180-4) of seed (32 bytes), index (1) and nonce (4): one block, of which the seed's rounds are done once.
  const W = new Int32Array(64), S = new Int32Array(8), START = new Int32Array(8);
  function rounds(from, to) {
    let a = S[0], b = S[1], c = S[2], d = S[3], e = S[4], f = S[5], g = S[6], h = S[7];
    for (let t = from; t < to; t++) {
      const s = h + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + (e & f ^ ~e & g) + K[t] + W[t] | 0;
      const m = ((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + (a & b ^ a & c ^ b & c) | 0;
      h = g; g = f; f = e; e = d + s | 0; d = c; c = b; b = a; a = s + m | 0;
    }
    S[0] = a; S[1] = b; S[2] = c; S[3] = d; S[4] = e; S[5] = f; S[6] = g; S[7] = h;
  }
  function tries(index, nonce, bits) { // whether it begins with so many zeros
    W[8] = index << 24 | nonce >>> 8;
    W[9] = nonce << 24 | 0x800000;
    for (let t = 16; t < 64; t++) {
      const x = W[t - 15], y = W[t - 2];
      W[t] = W[t - 16] + W[t - 7] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3)
        + ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10) | 0;
    }
    S.set(START);
    rounds(8, 64);
    return (S[0] + H[0] | 0) >>> 32 - bits === 0;
  }

  // The nonces of some parts of a puzzle, one after the other; between slices it lets others run.
  function* search(seed, bits, indices) {
    W.fill(0);
    for (let i = 0; i < 8; i++) W[i] = parseInt(seed.slice(8 * i, 8 * i + 8), 16) | 0;
    W[15] = 37 * 8;
    S.set(H);
    rounds(0, 8);
    START.set(S);
    for (const index of indices) {
      let nonce = 0;
      while (!tries(index, nonce, bits)) if (++nonce % SLICE === 0) yield null;
      yield [index, nonce];
    }
  }

  if (typeof document === "undefined") {
    onmessage = ({data: {seed, bits, indices}}) => {
      for (const found of search(seed, bits, indices)) if (found) postMessage(found);
    };
    return;
  }

  const own = document.currentScript;
  function worker() {
    // An inline script has no address; its text is the same.
    const address = own.src || URL.createObjectURL(new Blob([own.textContent], {type: "text/javascript"}));
    return new Worker(address);
  }

  // All nonces of a puzzle, as the edge wants them: 4 bytes each, base64url.
  function solve({seed, bits, count}, progress) {
    return new Promise((done) => {
      const nonces = new DataView(new ArrayBuffer(4 * count)), workers = [];
      let left = count;
      const take = ([index, nonce]) => {
        nonces.setUint32(4 * index, nonce);
        left--;
        progress?.(1 - left / count);
        if (left) return;
        for (const each of workers) each.terminate();
        const text = String.fromCharCode(...new Uint8Array(nonces.buffer));
        done(btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""));
      };
      const all = [...Array(count).keys()];
      let stopped = false;
      const here = () => { // no worker to be had: in small steps, so that the page stays alive
        if (stopped) return;
        stopped = true;
        for (const each of workers) each.terminate();
        left = count;
        const run = search(seed, bits, all);
        const step = () => {
          const {value, done: over} = run.next();
          if (value) take(value);
          if (!over) setTimeout(step);
        };
        step();
      };
      try {
        const many = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1, count));
        for (let n = 0; n < many; n++) {
          const each = worker();
          workers.push(each);
          each.onmessage = ({data}) => stopped || take(data);
          each.onerror = here;
          each.postMessage({seed, bits, indices: all.filter((index) => index % many === n)});
        }
      } catch {
        here();
      }
    });
  }

  const send = fetch.bind(window);
  // Solves and hands in. The connection may have changed in between (HTTP/2 to HTTP/3), and with it what a puzzle is bound to:
  // then the edge sends another one. Returns whether it was passed.
  async function pass(challenge, progress) {
    for (let turn = 0; turn < 3 && challenge; turn++) {
      const solution = await solve(challenge, progress);
      const answer = await send(challenge.path, {
        method: "POST",
        headers: {accept: "application/json", "content-type": "application/x-www-form-urlencoded"},
        body: new URLSearchParams({token: challenge.token, solution}).toString(),
        credentials: "same-origin",
      });
      if (answer.ok) return true;
      challenge = answer.status === 403 ? (await answer.json()).edge_challenge : null;
    }
    return false;
  }

  const page = document.getElementById("edge-challenge");
  if (!page) {
    let passing = null;
    window.fetch = async (input, init) => {
      const request = new Request(input, init);
      if (new URL(request.url).origin !== location.origin) return send(request);
      const again = request.clone(), answer = await send(request);
      if (answer.status !== 401 || answer.headers.get("edge-mitigated") !== "challenge") return answer;
      try {
        const {edge_challenge: challenge} = await answer.clone().json();
        passing ??= pass(challenge).finally(() => { passing = null; });
        return await passing ? send(again) : answer;
      } catch {
        return answer;
      }
    };
    return;
  }

  const text = JSON.parse(page.dataset.text), challenge = JSON.parse(page.dataset.challenge);
  const status = document.getElementById("status"), bar = document.getElementById("bar"), go = document.getElementById("go");
  const turns = () => { // how often this page came back in the last minute although it was passed: who keeps no cookies
    try {
      const [count, since] = JSON.parse(sessionStorage.getItem("edge-challenge") || "[0,0]");
      const next = Date.now() - since < 60000 ? [count + 1, since] : [1, Date.now()];
      sessionStorage.setItem("edge-challenge", JSON.stringify(next));
      return next[0];
    } catch {
      return 1;
    }
  };
  const offer = (label, action) => {
    bar.hidden = true;
    go.hidden = false;
    go.textContent = label;
    go.onclick = action;
  };
  const again = () => location.reload();
  async function run() {
    go.hidden = true;
    bar.hidden = false;
    status.textContent = text.working;
    let passed = false;
    try {
      passed = await pass(challenge, (share) => { bar.value = share; });
    } catch { /* the network: the button tries again */ }
    if (!passed) {
      status.textContent = text.failed;
      offer(text.again, again);
    } else if (page.dataset.sent) {
      status.textContent = text.resend;
      offer(text.send, again);
    } else if (turns() > 3) {
      status.textContent = text.loop;
      offer(text.again, again);
    } else {
      status.textContent = text.passed;
      again();
    }
  }
  if (!navigator.cookieEnabled) {
    status.textContent = text.cookies;
    offer(text.again, again);
  } else if (page.dataset.press) {
    status.textContent = text.press;
    offer(text.begin, run);
  } else {
    run();
  }
})();
