"""Items without a server: what every version of Python puts, in every protocol, is re-emitted by our code
and loaded by every version; and `<` of two items is what Python says."""
import os
import re
import struct
import subprocess
import sys
import unittest

import harness
from harness import TempDir, clean_env, expand, interpreters, main, per_interpreter, run_parallel

sys.path.insert(0, os.path.join(harness.HERE, 'fidelity'))
from driver import read_fields, write_record  # noqa: E402

ITEM_TOOL = os.path.join(harness.BUILD, 'bin', 'item_tool')
DRIVER = os.path.join(harness.HERE, 'fidelity', 'driver.py')


def run_driver(interpreter, *args):
    out = subprocess.run([interpreter.path, DRIVER] + [str(a) for a in args], env=clean_env(**interpreter.env),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if out.returncode:
        raise AssertionError('%s: %s' % (interpreter, out.stderr.decode()[-2000:]))
    return out.stdout.decode()


def run_tool(mode, source):
    """The tool's output: a file with pairs of letter and bytes."""
    with TempFileNear(source) as out:
        with open(source, 'rb') as f:
            result = subprocess.run([ITEM_TOOL, mode], stdin=f, stdout=out, stderr=subprocess.PIPE)
        if result.returncode:
            raise AssertionError('item_tool: %s' % result.stderr.decode()[-4000:])
        out.seek(0)
        while True:
            head = out.read(5)
            if not head:
                return
            n, = struct.unpack('!I', head[1:])
            yield head[:1].decode(), out.read(n)


class TempFileNear:
    """A file beside another one, for reading and writing."""

    def __init__(self, path):
        self.path = path + '.out'

    def __enter__(self):
        self.file = open(self.path, 'w+b')
        return self.file

    def __exit__(self, *_):
        self.file.close()


def records(path, count):
    with open(path, 'rb') as f:
        while True:
            fields = read_fields(f, count)
            if fields is None:
                return
            yield fields


@expand
class FidelityTest(unittest.TestCase):

    @per_interpreter(interpreters)
    def test_put_here_loaded_everywhere(self, dumper):
        with TempDir() as folder:
            dumped, requests, both = [os.path.join(folder, name) for name in ('dumped', 'requests', 'both')]
            run_driver(dumper, 'dump', dumped)
            with open(requests, 'wb') as f:
                for _, request in records(dumped, 2):
                    write_record(f, request)
            count = 0
            replies = run_tool('items', requests)
            with open(both, 'wb') as f:
                for label, request in records(dumped, 2):
                    letter, reply = next(replies)
                    self.assertEqual(letter, 'R', (label, reply))
                    self.assertEqual(reply[:1], b'\x80')
                    self.assertLessEqual(reply[1], 4, label)
                    write_record(f, label, request, reply)
                    count += 1
            self.assertEqual(list(replies), [])
            self.assertGreater(count, 2000)

            def load(loader):
                said = run_driver(loader, 'check', both)
                numbers = re.search(r'compared (\d+) through-older (\d+) unloadable (\d+) wrong (\d+)', said)
                compared, through_older, unloadable, wrong = map(int, numbers.groups())
                self.assertEqual(wrong, 0, '%s -> %s: %s' % (dumper, loader, said))
                self.assertEqual(compared + unloadable, count)
                # Names that do not travel between versions; none that this version cannot load from itself.
                self.assertLess(unloadable, count // 20 if loader is not dumper else 1, said)
                if loader.version < (3, 8) <= dumper.version:
                    self.assertGreater(through_older, 500)
            run_parallel([lambda loader=loader: load(loader) for loader in interpreters()], at_once=2)


@expand
class LessTest(unittest.TestCase):

    @per_interpreter(interpreters)
    def test_random_pairs(self, interpreter):
        with TempDir() as folder:
            pairs, requests = [os.path.join(folder, name) for name in ('pairs', 'requests')]
            # A seed of its own for each version, the same in every run.
            run_driver(interpreter, 'pairs', pairs, interpreter.version[1], 4000)
            with open(requests, 'wb') as f:
                for a, b, _, _ in records(pairs, 4):
                    write_record(f, a, b)
            seen = {}
            answers = run_tool('less', requests)
            for a, b, said, shown in records(pairs, 4):
                letter, text = next(answers)
                self.assertEqual(letter + text.decode(), said.decode(), shown.decode())
                seen[letter] = seen.get(letter, 0) + 1
            self.assertEqual(list(answers), [])
            for letter in '<-T':
                self.assertGreater(seen.get(letter, 0), 400, seen)


if __name__ == '__main__':
    main()
