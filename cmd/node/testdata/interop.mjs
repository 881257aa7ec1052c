// The official JavaScript SDK against a node, on every binding it has. Prints one line for each thing that it saw.
import assert from 'node:assert/strict';
import * as grpc from '@grpc/grpc-js';
import { Role, TaskState, verifyAgentCardSignature } from '@a2a-js/sdk';
import { ClientFactory, ClientFactoryOptions, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } from '@a2a-js/sdk/client';
import { GrpcTransportFactory } from '@a2a-js/sdk/client/grpc';

const { BASE, KEY, JWK, KID } = process.env;
const fetchImpl = (url, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set('Authorization', `Bearer ${KEY}`);
  return fetch(url, { ...init, headers });
};

await new DefaultAgentCardResolver().resolve(BASE);
// The verifier wants the card as it was served: it cannot read its own classes.
const card = await (await fetch(`${BASE}/.well-known/agent-card.json`)).json();
const verify = verifyAgentCardSignature(async (kid) => {
  assert.ok(kid.startsWith(KID), `kid ${kid}`);
  return JSON.parse(JWK);
});
await verify(card);
await assert.rejects(verify({ ...card, name: 'Somebody else' }));
console.log('card verified');

// Errors of the SDK are told apart by name.
const is = (e, name) => {
  assert.match(`${e.constructor.name} ${e.name} ${e.reason ?? ''}`, new RegExp(name.replace('Error', '')));
  return true;
};

let count = 0;
const message = (code) => ({
  tenant: '',
  configuration: undefined,
  metadata: undefined,
  message: {
    messageId: `js-${process.pid}-${count++}`,
    contextId: '', taskId: '', role: Role.ROLE_USER,
    parts: [{ content: { $case: 'text', value: '```starlark\n' + code + '\n```' }, metadata: undefined, filename: '', mediaType: '' }],
    metadata: undefined, extensions: [], referenceTaskIds: [],
  },
});

const proved = (options, next) => new grpc.InterceptingCall(next(options), {
  start(metadata, listener, go) {
    metadata.set('authorization', `Bearer ${KEY}`);
    go(metadata, listener);
  },
});

for (const [name, transport] of [
  ['JSONRPC', new JsonRpcTransportFactory({ fetchImpl })],
  ['HTTP+JSON', new RestTransportFactory({ fetchImpl })],
  ['GRPC', new GrpcTransportFactory({ grpcCallOptions: { interceptors: [proved] } })],
]) {
  const factory = new ClientFactory({ ...ClientFactoryOptions.default, transports: [transport], preferredTransports: [name] });
  const client = await factory.createFromUrl(BASE);

  const sent = await client.sendMessage(message('result = 6 * 7'));
  const task = sent.payload?.value ?? sent;
  assert.equal(task.status.state, TaskState.TASK_STATE_COMPLETED);
  const report = task.artifacts.find((a) => a.artifactId === 'report').parts[0].content.value;
  assert.equal(report.result, 42);
  console.log(name, 'send');

  const kinds = [];
  for await (const event of client.sendMessageStream(message('print("hello")'))) kinds.push(event.payload.$case);
  assert.equal(kinds[0], 'task');
  assert.equal(kinds.at(-1), 'statusUpdate');
  console.log(name, 'stream');

  const got = await client.getTask({ tenant: '', id: task.id });
  assert.equal(got.id, task.id);
  console.log(name, 'get');

  const list = await client.listTasks({ tenant: '', contextId: task.contextId, status: TaskState.TASK_STATE_UNSPECIFIED, pageToken: '', statusTimestampAfter: undefined });
  assert.equal(list.tasks[0].id, task.id);
  console.log(name, 'list');

  await assert.rejects(client.getTask({ tenant: '', id: 'nothing' }), (e) => is(e, 'TaskNotFoundError'));
  await assert.rejects(client.cancelTask({ tenant: '', id: task.id, metadata: undefined }), (e) => is(e, 'TaskNotCancelableError'));
  await assert.rejects(async () => {
    for await (const _ of client.resubscribeTask({ tenant: '', id: task.id })) assert.fail('an event of an ended task');
  }, /has ended/);
  console.log(name, 'errors');
}
