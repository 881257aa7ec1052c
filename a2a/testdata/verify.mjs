// The signed-message extension, version 1, written a second time: from
// docs/signed-message.md alone, in another language, with another crypto
// library. Reads the vectors of a folder and prints, for each, what it makes of
// it. It reads ProtoJSON in the form that ProtoJSON writes (camelCase, enum
// names); the few vectors in other forms are named in OTHER_FORMS.
import { createHash, createPublicKey, verify } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const URI = 'https://agenticraft.dev/a2a/ext/signed-message/v1';
const SKEW = 30, MAX_TTL = 300, MAX_DEPTH = 100;

class Refused extends Error { constructor(code, why) { super(why); this.code = code; } }
const refuse = (code, why) => { throw new Refused(code, why); };
const need = (is, code, why) => is || refuse(code, why);

// JSON, strictly: no member twice, no number that two readers would see
// differently, no lone surrogate, nothing behind the end.
function parse(text) {
  let at = 0;
  const bad = (why) => refuse('invalid_request', `${why} at ${at}`);
  const space = () => { while (' \t\r\n'.includes(text[at]) && at < text.length) at++; };
  const take = (re) => { re.lastIndex = at; const m = re.exec(text); if (!m) return null; at = re.lastIndex; return m[0]; };
  const string = () => {
    const raw = take(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y) ?? bad('no string');
    const s = JSON.parse(raw);
    if (!s.isWellFormed()) bad('lone surrogate');
    return s;
  };
  const value = (depth) => {
    if (depth > MAX_DEPTH) bad('nested too deep');
    space();
    const c = text[at];
    if (c === '"') return string();
    if (c === '{') {
      const out = new Map();
      at++; space();
      if (text[at] === '}') { at++; return out; }
      for (;;) {
        space();
        const name = string();
        if (out.has(name)) bad(`member ${name} twice`);
        space();
        if (text[at++] !== ':') bad('no colon');
        out.set(name, value(depth + 1));
        space();
        const next = text[at++];
        if (next === '}') return out;
        if (next !== ',') bad('no comma');
      }
    }
    if (c === '[') {
      const out = [];
      at++; space();
      if (text[at] === ']') { at++; return out; }
      for (;;) {
        out.push(value(depth + 1));
        space();
        const next = text[at++];
        if (next === ']') return out;
        if (next !== ',') bad('no comma');
      }
    }
    const word = take(/true|false|null/y);
    if (word) return JSON.parse(word);
    const number = take(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y) ?? bad('no value');
    const n = Number(number);
    if (!Number.isFinite(n) || Math.abs(n) > Number.MAX_SAFE_INTEGER) bad('number out of range');
    return n;
  };
  const out = value(0);
  space();
  if (at !== text.length) bad('something behind the end');
  return out;
}

// RFC 8785. Strings sort by UTF-16 units, as JavaScript's do.
function canonical(v) {
  if (v instanceof Map) return `{${[...v.keys()].sort().map((k) => `${JSON.stringify(k)}:${canonical(v.get(k))}`).join(',')}}`;
  if (Array.isArray(v)) return `[${v.map(canonical).join(',')}]`;
  return JSON.stringify(v);
}

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
function publicKey(did) {
  const m = /^did:key:z([1-9A-HJ-NP-Za-km-z]+)$/.exec(did) ?? refuse('signature_invalid', 'no did:key');
  let n = 0n;
  for (const c of m[1]) n = n * 58n + BigInt(ALPHABET.indexOf(c));
  const bytes = Buffer.from(n.toString(16).padStart(68, '0'), 'hex');
  need(bytes.length === 34 && bytes[0] === 0xed && bytes[1] === 0x01, 'signature_invalid', 'no Ed25519 key');
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: bytes.subarray(2).toString('base64url') }, format: 'jwk' });
}

function base64url(text) {
  const bytes = Buffer.from(text, 'base64url');
  need(bytes.toString('base64url') === text, 'signature_invalid', 'no base64url');
  return bytes;
}

const isMap = (v) => v instanceof Map;
const exactly = (v, names, code) => {
  need(isMap(v), code, 'no object');
  for (const k of v.keys()) need(names.includes(k), code, `unknown member ${k}`);
};
const text = (v) => typeof v === 'string' && v !== '' && Buffer.byteLength(v) <= 512;

function check(raw, now, audiences) {
  const request = parse(raw);
  need(isMap(request) && isMap(request.get('message')), 'invalid_request', 'no message');
  const message = request.get('message');
  need(['ROLE_USER', 'ROLE_AGENT'].includes(message.get('role')), 'invalid_request', 'no role');
  for (const part of message.get('parts') ?? []) {
    need(isMap(part) && ['text', 'raw', 'url', 'data'].some((k) => part.has(k)), 'invalid_request', 'empty part');
  }
  const metadata = message.get('metadata') ?? new Map();
  const carrier = metadata.get(URI);
  need(carrier !== undefined, 'signature_missing', 'not signed');
  need((message.get('extensions') ?? []).includes(URI), 'invalid_request', 'extension not named');
  metadata.delete(URI);
  for (const of of [request, message, ...(message.get('parts') ?? [])]) {
    if (of.get('metadata')?.size === 0) of.delete('metadata');
  }

  exactly(carrier, ['claims', 'signatures'], 'invalid_request');
  const claims = carrier.get('claims'), signatures = carrier.get('signatures');
  need(Array.isArray(signatures) && signatures.length === 1, 'invalid_request', 'not one signature');
  exactly(claims, ['iss', 'aud', 'iat', 'exp', 'jti', 'op', 'mandate'], 'invalid_request');
  const [iss, aud, iat, exp, jti, op] = ['iss', 'aud', 'iat', 'exp', 'jti', 'op'].map((k) => claims.get(k));
  need(text(iss) && text(aud), 'invalid_request', 'iss or aud');
  need(/^[0-9a-f]{32}$/.test(jti) || /^[A-Za-z0-9_-]{21}[AQgw]$/.test(jti), 'invalid_request', 'jti');
  need(Number.isInteger(iat) && Number.isInteger(exp) && iat > 0 && exp > iat && exp - iat <= MAX_TTL, 'invalid_request', 'iat and exp');
  const mandate = claims.get('mandate') ?? [];
  need(mandate.length <= 1, 'invalid_request', 'mandate');
  for (const block of mandate) {
    exactly(block, ['sub', 'tenant', 'via', 'roles', 'once'], 'invalid_request');
    need(text(block.get('sub')) && text(block.get('via')), 'invalid_request', 'mandate');
    const once = block.get('once') ?? '';
    need(once === '' || /^[0-9a-f]{32}$/.test(once) && !(block.get('tenant') ?? '').includes('\0'), 'invalid_request', 'once');
  }

  exactly(signatures[0], ['protected', 'signature'], 'invalid_request');
  const [protectedText, signature] = ['protected', 'signature'].map((k) => signatures[0].get(k));
  let header;
  try { header = parse(base64url(protectedText).toString()); } catch (e) { refuse('signature_invalid', e.message); }
  exactly(header, ['alg', 'typ', 'kid'], 'signature_invalid');
  need(['EdDSA', 'Ed25519'].includes(header.get('alg')), 'signature_invalid', 'alg');
  need(header.get('typ') === 'a2a-msg+jws', 'signature_invalid', 'typ');
  const [did, fragment, more] = String(header.get('kid')).split('#');
  need(more === undefined && did === `did:key:${fragment}`, 'signature_invalid', 'kid');
  need(did === iss, 'signature_invalid', 'kid is not of iss');
  const form = canonical(request);
  const payload = `{"claims":${canonical(claims)},"request":${form}}`;
  const input = `${protectedText}.${Buffer.from(payload).toString('base64url')}`;
  need(verify(null, Buffer.from(input), publicKey(did), base64url(signature)), 'signature_invalid', 'signature');

  need(op === 'SendMessage', 'invalid_request', 'op');
  need(audiences.includes(aud), 'wrong_audience', 'aud');
  need(now <= exp + SKEW, 'expired', 'exp');
  need(now >= iat - SKEW, 'not_yet_valid', 'iat');
  const sha256 = (s) => createHash('sha256').update(s).digest('hex');
  const by = mandate[0];
  const named = by?.get('once') ? `agenticraft once task v1\0${by.get('tenant') ?? ''}\0${by.get('sub')}\0${by.get('once')}` : `agenticraft task v1\0${iss}\0${jti}`;
  return { issuer: iss, jti, digest: sha256(form), task: sha256(named).slice(0, 32) };
}

for (const name of readdirSync(process.argv[2]).filter((n) => n.endsWith('.json'))) {
  const v = JSON.parse(readFileSync(join(process.argv[2], name), 'utf8'));
  let got;
  try {
    got = check(v.raw, v.now, v.audiences);
  } catch (e) {
    if (!(e instanceof Refused)) throw e;
    got = { code: e.code, why: e.message };
  }
  console.log(JSON.stringify({ name: name.slice(0, -5), ...got }));
}
