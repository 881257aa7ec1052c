'use strict';
// The console. Whatever a node says is put on the page as text, never as markup:
// code, output and names are hostile.
const by = (id) => document.getElementById(id);
let key = '';      // the credential; nowhere else
let following;     // ends the stream of the log, if one is open
let older = '';    // cursor of older tasks

const make = (tag, text, ...inside) => {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = String(text);
  e.append(...inside);
  return e;
};
const link = (text, act) => {
  const b = make('button', text);
  b.type = 'button';
  b.addEventListener('click', () => { attempt(act); });
  return b;
};
const line = (cells) => make('tr', null, ...cells.map((c) => (c instanceof Node ? make('td', null, c) : make('td', c))));
const table = (heads, rows) => {
  const t = make('table', null, make('thead', null, make('tr', null, ...heads.map((h) => make('th', h)))));
  t.querySelectorAll('th').forEach((h) => { h.scope = 'col'; });
  t.append(make('tbody', null, ...rows.map(line)));
  const wide = make('div', null, t);
  wide.className = 'wide';
  return wide;
};
const pretty = (v) => make('pre', JSON.stringify(v, null, 2));

const ask = async (path, options = {}) => {
  const res = await fetch(path, {
    ...options, credentials: 'omit', cache: 'no-store', redirect: 'error',
    headers: { Authorization: `Bearer ${key}`, ...options.headers },
  });
  if (!res.ok) {
    let said = {};
    try { said = await res.json(); } catch { /* the status says it */ }
    throw new Error([said.detail ?? `the node answered with ${res.status}`, said.hint].filter(Boolean).join('; '));
  }
  return res;
};
const get = async (path) => (await ask(path)).json();

// attempt shows what went wrong where it can be seen and heard.
const attempt = async (act) => {
  by('problem').textContent = '';
  try { await act(); } catch (e) { if (e.name !== 'AbortError') by('problem').textContent = e.message; }
};

const stopFollowing = () => {
  following?.abort();
  following = undefined;
  by('follow').setAttribute('aria-pressed', 'false');
};

const views = {
  async status() {
    const [s, n] = await Promise.all([get('/v1/status'), get('/v1/nodes')]);
    const facts = { Node: s.id, Cluster: s.cluster, Version: s.version, Ready: s.ready ? 'yes' : `no: ${s.not_ready}`, Leader: s.leader || 'none', Quorum: `${s.quorum} of ${s.keepers.length} keepers`, Log: `${s.log_size} entries, ${s.checkpoint_size} under a quorum's checkpoint`, Root: s.log_root, Policy: s.policy, Busy: `${s.busy} of ${s.slots}` };
    by('facts').replaceChildren(...Object.entries(facts).flatMap(([k, v]) => [make('dt', k), make('dd', v)]));
    by('nodes').replaceChildren(table(['Node', 'Role', 'State', 'Busy', 'Sandboxes'], n.nodes.map((x) => [x.id, x.role, (x.self ? 'this node' : x.connected ? 'connected' : 'unreachable') + (x.leader ? ', leader' : ''), `${x.busy} of ${x.slots ?? 0}`, Object.keys(x.sandboxes ?? {}).join(', ')])));
  },
  async tasks() { await tasks(''); },
  async run() { by('code').focus(); },
  async log() { await entries(); },
  async threats() {
    const page = await get('/v1/audit/entries?kind=alert&order=newest&limit=100');
    by('alerts').replaceChildren(page.entries.length ? rows(page.entries) : make('p', 'The rules that read the log have raised no alert.'));
  },
  async policy() {
    const p = await get('/v1/policy');
    by('modules').replaceChildren(make('p', `Digest ${p.digest}`), ...Object.entries({ ...p.modules, ...p.added }).flatMap(([name, text]) => [make('h3', name), make('pre', text)]));
  },
};

const show = (name) => attempt(async () => {
  stopFollowing();
  for (const s of document.querySelectorAll('main > section')) s.hidden = s.id !== name;
  for (const b of by('nav').children) b.dataset.view === name ? b.setAttribute('aria-current', 'page') : b.removeAttribute('aria-current');
  await views[name]();
});

const tasks = async (cursor) => {
  const page = await get(`/v1/tasks?limit=50&cursor=${encodeURIComponent(cursor)}`);
  by('list').replaceChildren(table(['Task', 'Status', 'Updated'], page.tasks.map((t) => [link(t.task, () => task(t.task)), t.status, t.updated ?? ''])));
  by('task').replaceChildren();
  older = page.next;
  by('more').hidden = !older;
};

const outcome = (r) => [
  make('p', `${r.status}, exit code ${r.exit_code}${r.error ? `: ${r.error.message}` : ''}`), make('h4', 'Result'), pretty(r.result),
  ...(r.stdout ? [make('h4', 'Output'), make('pre', r.stdout)] : []), ...(r.stderr ? [make('h4', 'Errors'), make('pre', r.stderr)] : []),
];

const task = async (id) => {
  const at = encodeURIComponent(id);
  const parts = [make('h3', `Task ${id}`)];
  // Either may be denied or gone while the other is not.
  try { parts.push(...outcome(await get(`/v1/tasks/${at}`))); } catch (e) { parts.push(make('p', `The report: ${e.message}`)); }
  try { parts.push(make('h4', 'What the log has'), pretty(await get(`/v1/audit/tasks/${at}`))); } catch (e) { parts.push(make('p', e.message)); }
  by('task').replaceChildren(...parts);
  by('task').focus();
};

const rows = (list) => table(['Index', 'Time', 'Kind', 'Actor', 'Task'], list.map(row));
const row = (e) => [link(e.index, () => entry(e)), e.entry.time, e.entry.kind, e.entry.actor ?? '', e.entry.task ? link(e.entry.task, async () => { await show('tasks'); await task(e.entry.task); }) : ''];

const entry = async (e) => {
  const parts = [make('h3', `Entry ${e.index}`), pretty(e.entry)];
  try {
    const p = await get(`/v1/audit/proof/${encodeURIComponent(e.index)}`);
    parts.push(make('h4', 'Proof, under a checkpoint'), make('p', `Entry ${p.index} of ${p.size}. Any tool for C2SP tlog-proof checks this text.`), make('pre', p.tlog_proof));
  } catch (err) { parts.push(make('p', err.message)); }
  const at = by('log').hidden ? by('alerts') : by('entry');
  at === by('entry') ? at.replaceChildren(...parts) : at.append(...parts);
  parts[0].tabIndex = -1;
  parts[0].focus();
};

const query = () => {
  const q = new URLSearchParams();
  for (const [name, id] of [['kind', 'kind'], ['actor', 'actor'], ['task', 'of']]) if (by(id).value.trim()) q.set(name, by(id).value.trim());
  return q;
};
const entries = async () => {
  stopFollowing();
  const q = query();
  q.set('order', 'newest');
  q.set('limit', '100');
  const page = await get(`/v1/audit/entries?${q}`);
  by('entry').replaceChildren();
  by('entries').replaceChildren(rows(page.entries));
  return page.entries;
};

// follow puts entries on top as they come, until it is stopped.
const follow = async () => {
  if (following) { stopFollowing(); return; }
  // What is written while this asks is on the list, or comes behind it.
  const { log_size: size } = await get('/v1/status');
  const [newest] = await entries();
  const from = newest ? newest.index + 1 : size;
  const own = new AbortController();
  following = own;
  by('follow').setAttribute('aria-pressed', 'true');
  const q = query();
  q.set('from', from);
  try {
    const res = await ask(`/v1/audit/follow?${q}`, { signal: own.signal });
    const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (held + value).split('\n');
      held = lines.pop();
      for (const text of lines) {
        if (!text) continue;
        const body = by('entries').querySelector('tbody');
        body.prepend(line(row(JSON.parse(text))));
        while (body.rows.length > 500) body.deleteRow(-1);
      }
    }
  } finally { if (following === own) stopFollowing(); }
};

by('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt(async () => {
    key = by('key').value.trim();
    by('key').value = '';
    try {
      const me = await get('/v1/whoami');
      by('who').textContent = `${me.kind}:${me.name}, ${(me.roles ?? []).join(', ')}`;
    } catch (e) { key = ''; throw e; }
    by('enter').hidden = true;
    by('nav').hidden = by('leave').hidden = false;
    by('nav').firstElementChild.focus();
    await show('status');
  });
});
by('leave').addEventListener('click', () => { key = ''; location.reload(); });
by('nav').addEventListener('click', (event) => { if (event.target.dataset.view) show(event.target.dataset.view); });
by('more').addEventListener('click', () => { attempt(() => tasks(older)); });
by('filter').addEventListener('submit', (event) => { event.preventDefault(); attempt(entries); });
by('follow').addEventListener('click', () => { attempt(follow); });
by('program').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt(async () => {
    by('report').replaceChildren(make('p', 'It runs…'));
    try {
      const res = await ask('/v1/runs', { method: 'POST', body: JSON.stringify({ language: by('language').value, code: by('code').value }), headers: { 'Idempotency-Key': `"${crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4))).join('-')}"` } });
      const r = await res.json();
      by('report').replaceChildren(...outcome(r), link(`Task ${r.task}`, async () => { await show('tasks'); await task(r.task); }));
    } catch (e) { by('report').replaceChildren(); throw e; }
  });
});
