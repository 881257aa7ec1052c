// Runs one program as if it were started as a script, then sends the value of
// its variable "result" as JSON. Two descriptors, which may be one, are the node:
// frames of a 32-bit length, a letter and a payload go out; the program comes in.
// The text is a function, which is called with the descriptors.
((inlet, outlet) => {
  'use strict';
  const { readSync, writeSync, closeSync } = require('fs');
  const vm = require('vm');
  const { createRequire } = require('module');
  const { inspect } = require('util');
  const { stringify, parse } = JSON;
  const { isFinite } = Number;

  function send(kind, payload) {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(payload.length + 1);
    head.write(kind, 4);
    const frame = Buffer.concat([head, payload]);
    for (let at = 0; at < frame.length;) at += writeSync(outlet, frame, at);
  }
  function receive(n) {
    const out = Buffer.alloc(n);
    for (let at = 0; at < n;) {
      const got = readSync(inlet, out, at, n - at, null);
      if (got === 0) process.reallyExit(0);
      at += got;
    }
    return out;
  }

  let told = false;
  function tell(code, text) {
    if (told) return;
    told = true;
    if (text.length > 500) text = text.slice(0, 500) + '...';
    send('E', Buffer.from(code + '\n' + text));
  }

  function check(key, value) {
    switch (typeof value) {
      case 'number':
        if (!isFinite(value)) throw new TypeError('NaN and Infinity do not exist in JSON');
        break;
      case 'bigint': throw new TypeError('it has a BigInt; use Number(...) or String(...)');
      case 'function': throw new TypeError('it has a function');
      case 'symbol': throw new TypeError('it has a symbol');
      case 'object':
        if (value instanceof Map) throw new TypeError('it has a Map; use Object.fromEntries(...)');
        if (value instanceof Set) throw new TypeError('it has a Set; use Array.from(...)');
    }
    return value;
  }
  function answer(value, most) {
    let text;
    try {
      text = stringify(value, check);
    } catch (e) {
      let why;
      try {
        why = e instanceof Error ? String(e.message) : 'it throws ' + inspect(e);
      } catch {
        why = 'it throws what cannot be shown';
      }
      if (e instanceof RangeError && why === 'Invalid string length') {
        tell('result_too_large', `result takes more than ${most} bytes as JSON`);
        return false;
      }
      if (e instanceof RangeError) why = 'it is nested too deeply';
      else if (why.startsWith('Converting circular')) why = 'it contains itself';
      tell('result_not_json', 'result cannot be JSON: ' + why);
      return false;
    }
    if (text === undefined) return true; // it was never set
    const payload = Buffer.from(text);
    if (payload.length > most) {
      tell('result_too_large', `result takes ${payload.length} bytes as JSON, more than ${most}`);
      return false;
    }
    told = true;
    send('R', payload);
    return true;
  }

  send('H', Buffer.alloc(0));
  const head = receive(12);
  const most = head.readUInt32BE(4);
  const code = receive(head.readUInt32BE(0)).toString('utf8');
  const args = parse(receive(head.readUInt32BE(8)).toString('utf8'));
  if (inlet !== outlet) closeSync(inlet);

  const name = 'main.js';
  process.argv = [process.argv[0], '/work/' + name, ...args];
  process.execArgv = [];
  globalThis.require = createRequire('/work/');

  function describe(error) {
    let stack;
    try {
      stack = error instanceof Error && error.stack ? String(error.stack) : 'Uncaught ' + inspect(error);
    } catch {
      stack = 'Uncaught error that cannot be shown';
    }
    return stack.split('\n').filter((line) => !/^\s+at .*(\(node:|node:|\[eval\])/.test(line)).join('\n');
  }
  function brief(error) {
    const lines = describe(error).split('\n');
    const first = lines.find((line) => /^\w*(Error|Exception|Uncaught)\b/.test(line)) || lines[0];
    const place = lines.join('\n').match(/main\.js:\d+/);
    return first + (place ? ` (${place[0]})` : '');
  }
  let failed; // the error that ends the program, in a box
  function fail(error) {
    if (error instanceof RangeError && /Array buffer allocation failed/.test(error.message)) {
      tell('out_of_memory', error.message);
    } else {
      tell('language_error', brief(error));
    }
    writeSync(2, describe(error) + '\n');
    process.reallyExit(1);
  }
  process.on('uncaughtExceptionMonitor', (error) => { failed = { error }; });

  const dynamic = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  const options = { filename: name, importModuleDynamically: dynamic || ((what) => import(what)) };
  const look = 'typeof result === "undefined" ? undefined : result';
  let script, wrapped = false;
  try {
    script = new vm.Script(code, options);
  } catch (error) {
    // With await at the top it is the body of a function.
    try {
      script = new vm.Script(`(async () => {${code}\n;return ${look}})()`, options);
      wrapped = true;
    } catch {
      fail(error);
    }
  }
  const lookAt = new vm.Script(look);
  let pending = false, settled; // settled is a box
  process.on('beforeExit', () => {
    if (told || settled || pending) return;
    const value = wrapped ? body : lookAt.runInThisContext();
    if (value === null || typeof value !== 'object' || typeof value.then !== 'function') return;
    pending = true;
    Promise.resolve(value).then((v) => { settled = { value: v }; }, fail);
  });
  process.on('exit', (status) => {
    if (told) return;
    if (failed && status !== 0) {
      tell('language_error', brief(failed.error));
      return;
    }
    if (pending && !settled) {
      tell('result_not_json', 'result is a promise that nothing fulfils');
      process.exitCode = status || 1;
      return;
    }
    let value;
    try {
      value = settled ? settled.value : wrapped ? undefined : lookAt.runInThisContext();
    } catch {
      return; // it was never reached
    }
    if (!answer(value, most) && status === 0) process.exitCode = 1;
  });
  let body;
  try {
    body = script.runInThisContext();
    if (wrapped) body.then((v) => { settled = { value: v }; }, fail);
  } catch (error) {
    fail(error);
  }
})
