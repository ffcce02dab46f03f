"""The cases of conformance/*.json (its README.md tells the format), run against the daemon with the client that was
written from the page."""
import glob
import json
import os
import re
import socket
import struct
import time
import unittest

import harness
from native import msgpack  # first: finds it for interpreters that have none
import taskq_native

FOLDER = os.path.join(harness.HERE, 'conformance')
ABSENT = object()


class CaseClient(taskq_native.Client):
    """Keeps what answers no call of its own."""

    def __init__(self, *args, **kwargs):
        self.others = taskq_native.queue.Queue()
        super().__init__(*args, **kwargs)

    def _message(self, message):
        known = isinstance(message, list) and len(message) == 4 and message[0] == 1 and message[1] in self._calls
        if known or (message[0] == 2 and message[1] in ('lost', 'bye')):
            super()._message(message)
        else:
            self.others.put(message)


def ext(kind, data):
    if kind == -1:
        return msgpack.Timestamp.from_bytes(data)
    return taskq_native.PythonItem(data) if kind == taskq_native.PYTHON_ITEM else msgpack.ExtType(kind, data)


class Mismatch(AssertionError):
    pass


class Case:
    def __init__(self, test, spec):
        self.test = test
        self.kept = {}
        self.clocks = {}
        self.clients = {}
        self.calls = {}
        options = list(spec.get('options', ()))
        if 'keys' in spec:
            folder = harness.TempDir()
            path = os.path.join(folder.__enter__(), 'keys')
            test.addCleanup(folder.__exit__)
            with open(path, 'w') as f:
                f.write('\n'.join(spec['keys']) + '\n')
            os.chmod(path, 0o600)
            options += ['--keys-file', path]
        self.master = test.start_master(*options, queues=spec.get('queues', ()))
        self.secrets = {line.split()[0]: line.split()[2] for line in spec.get('keys', ())}

    # -- values --

    def value(self, v):
        if isinstance(v, str) and v.startswith('$'):
            return self.kept[v]
        if isinstance(v, list):
            return [self.value(x) for x in v]
        if not isinstance(v, dict):
            return v
        if len(v) != 1 or not next(iter(v)).startswith('$'):
            return {k: self.value(x) for k, x in v.items()}
        [(what, arg)] = v.items()
        if what == '$bin':
            return bytes.fromhex(arg)
        if what == '$ext':
            return ext(arg[0], bytes.fromhex(arg[1]))
        if what == '$text':
            return arg[0] * arg[1]
        if what == '$list':
            return [self.value(arg[1])] * arg[0]
        if what == '$plus':
            return self.value(arg[0]) + arg[1]
        if what == '$map':
            return {self.value(k): self.value(x) for k, x in arg}
        if what == '$deep':
            nested = []
            for _ in range(arg - 1):
                nested = [nested]
            return nested
        raise ValueError('no value %s' % what)

    # -- expectations --

    def match(self, want, got, where):
        def differs():
            raise Mismatch('%s: expected %s, got %r' % (where, json.dumps(want), got))

        if want == '*':
            return
        if isinstance(want, str) and want.startswith('$'):
            if want not in self.kept:
                self.kept[want] = got
            elif self.kept[want] != got:
                raise Mismatch('%s: expected %s = %r, got %r' % (where, want, self.kept[want], got))
        elif isinstance(want, list):
            if not isinstance(got, list) or len(got) != len(want):
                differs()
            for n, (w, g) in enumerate(zip(want, got)):
                self.match(w, g, '%s[%d]' % (where, n))
        elif isinstance(want, dict) and len(want) == 1 and next(iter(want)).startswith('$'):
            self.match_special(want, got, where, differs)
        elif isinstance(want, dict):
            if not isinstance(got, dict):
                differs()
            for key, w in want.items():
                if key == '...':
                    continue
                if w == {'$none': True}:
                    if key in got:
                        raise Mismatch('%s: %s is there: %r' % (where, key, got))
                elif key not in got:
                    raise Mismatch('%s: no %s in %r' % (where, key, got))
                else:
                    self.match(w, got[key], '%s.%s' % (where, key))
            more = set(got) - set(want)
            if '...' not in want and more:
                raise Mismatch('%s: also %s in %r' % (where, ', '.join(map(str, more)), got))
        elif type(want) is not type(got) or want != got:
            differs()

    def match_special(self, want, got, where, differs):
        [(what, arg)] = want.items()
        if what == '$int':
            if type(got) is not int or not arg[0] <= got <= arg[1]:
                differs()
        elif what == '$match':
            if not isinstance(got, str) or not re.search(arg, got):
                differs()
        elif what == '$above':
            if type(got) is not int or got <= self.value(arg):
                differs()
        elif what == '$all':
            if not isinstance(got, list):
                differs()
            for n, g in enumerate(got):
                self.match(arg, g, '%s[%d]' % (where, n))
        elif what == '$any':
            problems = []
            for w in arg:
                kept = dict(self.kept)
                try:
                    return self.match(w, got, where)
                except Mismatch as error:
                    self.kept = kept
                    problems.append(str(error))
            raise Mismatch(' / '.join(problems))
        else:
            value = self.value(want)
            if type(value) is not type(got) or value != got:
                differs()

    def reply(self, call, want, where):
        code, text = None, None
        if isinstance(want, str) and want.startswith('!'):
            code = want[1:]
        elif isinstance(want, list) and want and isinstance(want[0], str) and want[0].startswith('!'):
            code, text = want[0][1:], want[1]
        try:
            got = call.result()
        except taskq_native.Error as error:
            if code != error.code or (text and not re.search(text, error.text)):
                raise Mismatch('%s: expected %s, got %s' % (where, json.dumps(want), error)) from None
            if not error.text:
                raise Mismatch('%s: %s without a text' % (where, error.code)) from None
            return
        except taskq_native.Closed as error:
            raise Mismatch('%s: expected %s, but %s' % (where, json.dumps(want), error)) from None
        if code is not None:
            raise Mismatch('%s: expected %s, got %r' % (where, json.dumps(want), got))
        self.match(want, got, where)

    # -- steps --

    def run(self, steps):
        for number, step in enumerate(steps):
            try:
                self.step(step, json.dumps(step)[:120])
            except Mismatch as error:
                raise AssertionError('step %d %s\n%s' % (number + 1, json.dumps(step)[:400], error)) from None

    def step(self, step, where):
        name, what = step[0], self.value(step[1])
        if name == 'clock':
            self.clocks[what] = time.monotonic()
        elif name == 'since':
            passed = (time.monotonic() - self.clocks[what]) * 1000
            if not step[2] - 1 <= passed <= step[3]:  # the master's clock ticks in milliseconds
                raise Mismatch('%.3f ms have passed' % passed)
        elif name == 'repeat':
            for n in range(what):
                self.kept['$n'] = n
                self.run(step[2])
        elif what in ('connect', 'open'):
            self.open(name, what, step[2:], where)
        elif what.startswith(('start:', 'finish:', 'waits:')):
            what, label = what.split(':')
            if what == 'start':
                self.calls[label] = self.clients[name].start(step[2], **self.value(step[3]))
            elif what == 'finish':
                self.reply(self.calls.pop(label), step[2], where)
            else:
                self.clients[name].ping()
                if self.calls[label].answered():
                    raise Mismatch('it is answered')
        else:
            self.act(self.clients[name], name, what, step[2:], where)

    def open(self, name, what, args, where):
        params, want, key = {}, '*', None
        if what == 'open' and args:
            params, want, key = (list(args) + [None])[:3]
        elif args:
            key = args[0]
        secret = self.secrets[key] if key else self.master.key
        client = CaseClient((self.master.host, self.master.port), secret.encode(), say_hello=False)
        self.test.addCleanup(client.close)
        self.clients[name] = client
        if what == 'open':
            self.reply(client.start('hello', **dict({'version': 1}, **self.value(params))), want, where)

    def act(self, client, name, what, args, where):
        if what == 'notify':
            client.notify(args[0], **self.value(args[1]))
        elif what == 'notice':
            method, params = client.notice()
            if method != args[0]:
                raise Mismatch('a notification %r %r' % (method, params))
            self.match(args[1], params, where)
        elif what == 'send':
            value = self.value(args[0])
            client.frames.send(value if isinstance(value, bytes) else taskq_native.pack(value))
        elif what == 'receive':
            try:
                got = client.others.get(timeout=harness.DEADLINE_S)
            except taskq_native.queue.Empty:
                raise Mismatch('nothing came') from None
            self.match(args[0], got, where)
        elif what == 'close':
            client.close()
        elif what == 'reset':
            client.frames.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            client.frames.sock.close()
            client.close()
        elif what == 'ended':
            if not client.ended.wait(harness.DEADLINE_S):
                raise Mismatch('still open')
        else:
            self.reply(client.start(what, **self.value(args[0])), args[1], where)


class ConformanceTest(harness.ServerCase):
    """One test for each case."""


def add_cases():
    for path in sorted(glob.glob(os.path.join(FOLDER, '*.json'))):
        with open(path, encoding='utf-8') as f:
            content = json.load(f)
        for spec in content['cases']:
            def test(self, spec=spec):
                Case(self, spec).run(spec['steps'])
            test.__doc__ = None
            name = 'test_%s_%s' % (os.path.basename(path)[:-5], re.sub(r'\W+', '_', spec['name']).strip('_'))
            if hasattr(ConformanceTest, name):
                raise ValueError('two cases are called %s' % name)
            setattr(ConformanceTest, name, test)


add_cases()

if __name__ == '__main__':
    unittest.main()
