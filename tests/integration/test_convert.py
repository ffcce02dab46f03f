"""Bodies across the dialects, without a server: what every version of Python puts, in every protocol, becomes
msgpack that another library reads as the same; what is made of it, and of what a native peer may send, is
loaded by every version. Objects that only Python can read keep their structure."""
import os
import re
import struct
import subprocess
import unittest

import harness
from harness import TempDir, clean_env, expand, interpreters, main, per_interpreter, run_parallel

CONVERT_TOOL = os.path.join(harness.BUILD, 'bin', 'convert_tool')
FOLDER = os.path.join(harness.HERE, 'convert')


def run(argv, env=None, **kwargs):
    out = subprocess.run([str(a) for a in argv], env=env or clean_env(), stdout=kwargs.pop('stdout', subprocess.PIPE),
                         stderr=subprocess.PIPE, **kwargs)
    if out.returncode:
        raise AssertionError('%s: %s' % (argv, out.stderr.decode()[-4000:]))
    return out.stdout.decode() if out.stdout else ''


def run_bodies(interpreter, *args):
    return run([interpreter.path, os.path.join(FOLDER, 'bodies.py')] + list(args), clean_env(**interpreter.env))


def python_with_msgpack():
    """The first interpreter on the PATH that has the package."""
    for folder in os.environ.get('PATH', os.defpath).split(os.pathsep):
        path = os.path.join(folder, 'python3')
        if os.access(path, os.X_OK):
            out = subprocess.run([path, '-c', 'import msgpack; msgpack.Timestamp'], env=clean_env(),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if out.returncode == 0:
                return path
    raise RuntimeError('no python3 on the PATH has the package msgpack: install python3-msgpack')


def run_library(*args):
    return run([python_with_msgpack(), os.path.join(FOLDER, 'library.py')] + list(args))


def write(f, *fields):
    for field in fields:
        f.write(struct.pack('!I', len(field)) + field)


def read(path, count):
    with open(path, 'rb') as f:
        while True:
            fields = []
            for _ in range(count):
                head = f.read(4)
                if not head:
                    return
                fields.append(f.read(struct.unpack('!I', head)[0]))
            yield fields


def run_tool(mode, source):
    """The tool's output: pairs of letter and bytes."""
    with open(source, 'rb') as f, open(source + '.out', 'w+b') as out:
        run([CONVERT_TOOL, mode], stdin=f, stdout=out)
        out.seek(0)
        while True:
            head = out.read(5)
            if not head:
                return
            yield head[:1].decode(), out.read(struct.unpack('!I', head[1:])[0])


def counts(said):
    return [int(n) for n in re.search(r'plain (\d+) opaque (\d+) unloadable (\d+) wrong (\d+)', said).groups()]


@expand
class ItemsTest(unittest.TestCase):

    @per_interpreter(interpreters)
    def test_put_here_read_everywhere(self, dumper):
        with TempDir() as folder:
            dumped, requests, packed, unpacked, all_of_it = [
                os.path.join(folder, name) for name in ('dumped', 'requests', 'packed', 'unpacked', 'all')]
            run_bodies(dumper, 'dump', dumped, dumper.version[1])
            with open(requests, 'wb') as f:
                for _, request in read(dumped, 2):
                    write(f, request)
            answers = []
            for letter, data in run_tool('items', requests):
                self.assertIn(letter, 'VR', data)
                answers.append(data)
            with open(packed, 'wb') as f:
                for value in answers[::2]:
                    write(f, value)
            run_library('unpack', packed, unpacked)
            count = 0
            with open(all_of_it, 'wb') as f:
                for (label, request), value, reply, (other,) in zip(read(dumped, 2), answers[::2], answers[1::2],
                                                                    read(unpacked, 1)):
                    write(f, label, request, value, reply, other)
                    count += 1
            self.assertEqual(count * 2, len(answers))
            self.assertGreater(count, 1800)

            def load(loader):
                said = run_bodies(loader, 'items', all_of_it)
                plain, opaque, unloadable, wrong = counts(said)
                self.assertEqual(wrong, 0, '%s -> %s: %s' % (dumper, loader, said))
                self.assertEqual(plain + opaque + unloadable, count)
                if loader.version >= (3, 8) or dumper.version < (3, 8):  # else there is protocol 5
                    # Names that do not travel between versions; none that this version has itself.
                    self.assertLess(unloadable, count // 20 if loader is not dumper else 1, said)
                self.assertGreater(plain, 1000, said)
                self.assertGreater(opaque, 400, said)
            run_parallel([lambda loader=loader: load(loader) for loader in interpreters()], at_once=2)


@expand
class ValuesTest(unittest.TestCase):

    @per_interpreter(interpreters)
    def test_native_values(self, loader):
        with TempDir() as folder:
            generated, values, all_of_it = [os.path.join(folder, name) for name in ('generated', 'values', 'all')]
            run_library('values', generated, loader.version[1], 1500)
            with open(values, 'wb') as f:
                for _, value, _ in read(generated, 3):
                    write(f, value)
            answers = run_tool('values', values)
            count = 0
            with open(all_of_it, 'wb') as f:
                for label, value, wanted in read(generated, 3):
                    letter, reply = next(answers)
                    self.assertEqual(letter, 'R', (label, value[:100], reply))
                    self.assertLessEqual(reply[1], 4, label)
                    write(f, label, wanted, reply)
                    count += 1
            self.assertEqual(list(answers), [])
            said = run_bodies(loader, 'values', all_of_it)
            loaded, _, unloadable, wrong = counts(said)
            self.assertEqual(wrong, 0, said)
            self.assertEqual((loaded, unloadable), (count, 0), said)


if __name__ == '__main__':
    main()
