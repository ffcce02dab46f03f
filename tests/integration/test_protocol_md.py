"""The transcripts of proto/PROTOCOL.md, replayed against the daemon: the document is a contract."""
import hashlib
import hmac
import os
import re
import socket
import struct
import unittest

import harness

DOCUMENT = os.path.join(harness.ROOT, 'proto', 'PROTOCOL.md')
KEY = 'abc'
KEYS_FILE = 'eye observer watch-only\n'  # as the document says
TOKEN = re.compile(r'\s*(?:"(?P<text>[^"]*)"|(?P<open>\{(?P<name>\w+):)|(?P<shut>\})|random\((?P<random>\d+)\)'
                   r'|(?P<mac>md5|sha256)\((?P<of>\w+)(?:, (?P<key>[\w-]+))?\)|(?P<hex>[0-9a-f]{2})(?![\w]))')


def transcripts():
    """(title, lines) of each transcript; the title is the paragraph above it."""
    with open(DOCUMENT, encoding='utf-8') as f:
        text = f.read()
    for match in re.finditer(r'([^\n]+)\n\n```transcript\n(.*?)```', text, re.DOTALL):
        yield match.group(1), match.group(2).splitlines()


class Line:
    """One line as parts: ('bytes', b), ('random', n), ('mac', digest, name, key), ('open', name), ('shut',)."""

    def __init__(self, text):
        self.side, rest = text[0], text[1:].strip()
        self.close = rest == 'close'
        self.parts = []
        at = 0
        while not self.close and at < len(rest):
            m = TOKEN.match(rest, at)
            if m is None:
                raise ValueError('cannot read %r of %r' % (rest[at:], text))
            at = m.end()
            if m.group('text') is not None:
                self.parts.append(('bytes', m.group('text').encode()))
            elif m.group('hex'):
                self.parts.append(('bytes', bytes.fromhex(m.group('hex'))))
            elif m.group('random'):
                self.parts.append(('random', int(m.group('random'))))
            elif m.group('mac'):
                self.parts.append(('mac', m.group('mac'), m.group('of'), m.group('key') or KEY))
            elif m.group('open'):
                self.parts.append(('open', m.group('name')))
            else:
                self.parts.append(('shut',))


class Replay:
    def __init__(self, port):
        self.kept = {}
        self.sock = socket.create_connection(('127.0.0.1', port), timeout=harness.DEADLINE_S)

    def mac(self, digest, name, key):
        return hmac.new(key.encode(), self.kept[name], getattr(hashlib, digest)).digest()

    def walk(self, line, take_random, take):
        names = []
        for part in line.parts:
            if part[0] == 'open':
                names.append(part[1])
                self.kept[part[1]] = b''
                continue
            if part[0] == 'shut':
                names.pop()
                continue
            got = take_random(part[1]) if part[0] == 'random' else take(
                self.mac(*part[1:]) if part[0] == 'mac' else part[1])
            for name in names:
                self.kept[name] += got

    def receive(self, n):
        data = b''
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise AssertionError('the connection ended after %r' % data)
            data += more
        return data

    def run(self, line):
        if line.close:
            try:
                rest = self.sock.recv(1)
            except ConnectionResetError:
                rest = b''
            if rest:
                raise AssertionError('expected the end, got %r' % rest)
            return
        if line.side == 'C':
            out = []

            def send(data):
                out.append(data)
                return data
            self.walk(line, lambda n: send(os.urandom(n)), send)
            self.sock.sendall(b''.join(out))
            return

        def expect(data):
            got = self.receive(len(data))
            if got != data:
                raise AssertionError('expected %r, got %r' % (data, got))
            return data
        self.walk(line, self.receive, expect)


class Transcripts(harness.ServerCase):
    def test_every_transcript_replays(self):
        count = 0
        folder = harness.TempDir()
        keys_file = os.path.join(folder.__enter__(), 'keys')
        self.addCleanup(folder.__exit__)
        with open(keys_file, 'w') as f:
            f.write(KEYS_FILE)
        for title, lines in transcripts():
            with self.subTest(title=title):
                master = self.start_master('--keys-file', keys_file, key=KEY)
                replay = Replay(master.port)
                for number, text in enumerate(lines):
                    try:
                        replay.run(Line(text))
                    except AssertionError as e:
                        raise AssertionError('line %d, %s: %s' % (number + 1, text, e))
                replay.sock.close()
                self.stop_master(master)
            count += 1
        self.assertGreaterEqual(count, 8)

    def test_a_wrong_byte_is_noticed(self):
        master = self.start_master(key=KEY)
        replay = Replay(master.port)
        with self.assertRaises(AssertionError):
            replay.run(Line('S 00 00 00 3c "#CHALLENGE#"'))
        replay.sock.close()

    def test_header_lengths_of_the_document_are_right(self):
        for title, lines in transcripts():
            for text in lines:
                line = Line(text)
                if line.close or text.endswith('7f ff ff ff'):
                    continue
                size = {'bytes': lambda p: len(p[1]), 'random': lambda p: p[1],
                        'mac': lambda p: 16 if p[1] == 'md5' else 32}
                total = sum(size[p[0]](p) for p in line.parts if p[0] in size)
                head = b''.join(p[1] for p in line.parts if p[0] == 'bytes')[:4]
                self.assertEqual(struct.unpack('>i', head)[0], total - 4, (title, text))


if __name__ == '__main__':
    unittest.main()
