"""The transcripts of proto/PROTOCOL.md, replayed against the daemon: the document is a contract."""
import hashlib
import hmac
import os
import re
import socket
import struct
import unittest

import harness
import wire

DOCUMENT = os.path.join(harness.ROOT, 'proto', 'PROTOCOL.md')
KEY = 'abc'
KEYS_FILE = 'eye observer watch-only\n'  # as the document says
TOKEN = re.compile(r'\s*(?:"(?P<text>[^"]*)"|(?P<open>\{(?P<name>\w+):)|(?P<shut>\})|random\((?P<random>\d+)\)'
                   r'|(?P<mac>md5|sha256)\((?P<of>\w+)(?:, (?P<key>[\w-]+))?\)|(?P<hex>[0-9a-f]{2})(?![\w]))')


VALUE = re.compile(r'\s*(?:(?P<mark>(?:array16)?\[|(?:map16)?\{|[\]},:])|"(?P<text>(?:[^"\\]|\\")*)"|(?P<int>-?\d+)|(?P<word>nil|true|false|time)\b'
                   r'|bin\((?P<bin>[0-9a-f]*)\)|ext\((?P<type>\d+), (?P<data>[0-9a-f]*)\)'
                   r'|(?P<some>token|same)\((?P<name>\w+)\))\s*')


def transcripts(kind='transcript'):
    """(title, lines) of each transcript; the title is the paragraph above it."""
    with open(DOCUMENT, encoding='utf-8') as f:
        text = f.read()
    for match in re.finditer(r'([^\n]+)\n\n```%s\n(.*?)```' % kind, text, re.DOTALL):
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


def msgpack_int(n):
    """In its shortest form."""
    if -32 <= n < 128:
        return struct.pack('b', n) if n < 0 else bytes([n])
    for head, code in (((0xcc, 'B'), (0xcd, 'H'), (0xce, 'I'), (0xcf, 'Q')) if n > 0 else
                       ((0xd0, 'b'), (0xd1, 'h'), (0xd2, 'i'), (0xd3, 'q'))):
        try:
            return bytes([head]) + struct.pack('>' + code, n)
        except struct.error:
            continue
    raise ValueError(n)


def sized(n, small, small_max, *heads):
    """The header of a text, a container...: (code, format) for what is too large for the small form."""
    if n <= small_max:
        return bytes([small | n])
    for head, code in heads:
        if n < 256 ** struct.calcsize(code):
            return bytes([head]) + struct.pack('>' + code, n)
    raise ValueError(n)


class Value:
    """The notation of native messages as parts: ('bytes', b), ('random', n), ('open', name), ('shut',), ('same', name)."""

    def __init__(self, text):
        self.parts = []
        self.text, self.at = text, 0
        self.value(self.token())
        if self.at != len(text):
            raise ValueError('more behind the value: %r' % text[self.at:])

    def token(self):
        m = VALUE.match(self.text, self.at)
        if m is None:
            raise ValueError('cannot read %r' % self.text[self.at:])
        self.at = m.end()
        return m

    def add(self, data):
        self.parts.append(('bytes', data))

    def value(self, m):
        if (m.group('mark') or '')[-1:] in ('[', '{'):
            self.container(m.group('mark'))
        elif m.group('text') is not None:
            data = m.group('text').replace('\\"', '"').encode()
            self.add(sized(len(data), 0xa0, 31, (0xd9, 'B'), (0xda, 'H')) + data)
        elif m.group('int'):
            self.add(msgpack_int(int(m.group('int'))))
        elif m.group('word') == 'time':
            self.add(b'\xcf')
            self.parts.append(('random', 8))
        elif m.group('word'):
            self.add({'nil': b'\xc0', 'false': b'\xc2', 'true': b'\xc3'}[m.group('word')])
        elif m.group('bin') is not None:
            data = bytes.fromhex(m.group('bin'))
            self.add(b'\xc4' + bytes([len(data)]) + data)
        elif m.group('type'):
            data = bytes.fromhex(m.group('data'))
            fixed = {1: 0xd4, 2: 0xd5, 4: 0xd6, 8: 0xd7, 16: 0xd8}
            self.add((bytes([fixed[len(data)]]) if len(data) in fixed else bytes([0xc7, len(data)])) +
                     bytes([int(m.group('type'))]) + data)
        elif m.group('some'):
            self.add(b'\xc4\x10')
            self.parts += ([('open', m.group('name')), ('random', 16), ('shut',)] if m.group('some') == 'token' else
                           [('same', m.group('name'))])
        else:
            raise ValueError('not here: %r' % m.group())

    def container(self, mark):
        first, count, shut = len(self.parts), 0, {'[': ']', '{': '}'}[mark[-1]]
        m = self.token()
        while m.group('mark') != shut:
            if count:
                if m.group('mark') != ',':
                    raise ValueError('no comma: %r' % self.text[:self.at])
                m = self.token()
            self.value(m)
            if mark[-1] == '{':
                if self.token().group('mark') != ':':
                    raise ValueError('no colon: %r' % self.text[:self.at])
                self.value(self.token())
            count += 1
            m = self.token()
        small, head = (0x80, 0xde) if mark[-1] == '{' else (0x90, 0xdc)
        self.parts.insert(first, ('bytes', sized(count, small, 15 if len(mark) == 1 else -1, (head, 'H'))))

    def length(self):
        return sum({'bytes': lambda p: len(p[1]), 'random': lambda p: p[1], 'same': lambda p: 16}[p[0]](p)
                   for p in self.parts if p[0] not in ('open', 'shut'))


class NativeLine:
    """C or S, and a number if it is not the first connection; then a message, or close."""

    def __init__(self, text):
        side, rest = text.split(None, 1)
        self.side, self.connection = side[0], side[1:] or '1'
        self.close = rest == 'close'
        self.parts = []
        if not self.close:
            value = Value(rest)
            self.parts = [('bytes', struct.pack('>i', value.length()))] + value.parts


class NativeReplay:
    """Any number of connections that have shaken hands; each begins with its first line."""

    def __init__(self, master):
        self.master = master
        self.kept = {}
        self.replays = {}

    def run(self, line):
        if line.connection not in self.replays:
            conn = wire.Wire(self.master)
            conn.handshake('modern')
            replay = Replay.__new__(Replay)
            replay.sock, replay.kept, replay.conn = conn.sock, self.kept, conn
            self.replays[line.connection] = replay
        replay = self.replays[line.connection]
        if line.close and line.side == 'C':
            replay.sock.close()
            return
        line.parts = [('bytes', self.kept[p[1]]) if p[0] == 'same' else p for p in line.parts]
        replay.run(line)

    def close(self):
        for replay in self.replays.values():
            replay.sock.close()


class Transcripts(harness.ServerCase):
    def test_every_native_transcript_replays(self):
        count = 0
        for title, lines in transcripts('native'):
            with self.subTest(title=title):
                master = self.start_master(key=KEY)
                replay = NativeReplay(master)
                for number, text in enumerate(lines):
                    try:
                        replay.run(NativeLine(text))
                    except AssertionError as e:
                        raise AssertionError('line %d, %s: %s' % (number + 1, text, e))
                replay.close()
                self.stop_master(master)
            count += 1
        self.assertGreaterEqual(count, 8)

    def test_native_notation_is_exact(self):
        for text, data in (('[0, 127, 128, 255, 256, 65536, 4294967296]', '97007fcc80ccffcd0100ce00010000cf0000000100000000'),
                           ('[-1, -32, -33, -129]', '94ffe0d0dfd1ff7f'), ('{"a": nil, "b": [true, false]}', '82a161c0a16292c3c2'),
                           ('bin(00ff)', 'c40200ff'), ('ext(80, 80024e2e)', 'd65080024e2e'), ('""', 'a0'), ('[]', '90'),
                           ('"%s"' % ('x' * 32), 'd920' + '78' * 32), ('[%s]' % ', '.join('1' * 16), 'dc0010' + '01' * 16), ('array16[1]', 'dc000101'), ('map16{1: 2}', 'de00010102')):
            self.assertEqual(b''.join(p[1] for p in Value(text).parts).hex(), data)
        for bad in ('[1 2]', '{"a" 1}', '[1', 'what', '1 1', '{1: 2, }'):
            with self.assertRaises(ValueError):
                Value(bad)

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
