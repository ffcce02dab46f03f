"""Every reply that the master composes, loaded by every interpreter here: classes, arguments, values."""
import glob
import os
import subprocess
import sys
import unittest

import harness

REPLY_TOOL = os.path.join(harness.BUILD, "bin", "reply_tool")

# Runs in each interpreter, 2.7 included. Prints one line per pickle: name, class of the reply's value, value.
LOADER = r"""
import binascii, pickle, sys
for line in sys.stdin:
    name, data = line.split()
    if not name.startswith(tuple(sys.argv[1:])):
        continue
    value = pickle.loads(binascii.unhexlify(data))
    if not name.startswith("call:"):
        assert type(value) is tuple and len(value) == 2, (name, value)
        kind, value = value
    else:
        kind = "call"
    if isinstance(value, BaseException):
        shown = "%s %r" % (type(value).__name__, value.args)
    else:
        shown = ascii(value) if sys.version_info[0] > 2 else repr(value)
    print("%s %s %s" % (name, kind, shown))
"""

COMMON = {
    "none": "#RETURN None",
    "true": "#RETURN True",
    "false": "#RETURN False",
    "str:empty": "#RETURN ''",
    "str:text": r"#RETURN 'h\xe4\u20ac\U0001f40d'",
    "str:surrogate": r"#RETURN '\ud800'",
    "str:not-utf8": r"#RETURN 'a\ufffd\ufffd\ufffdz\ufffd\ufffd'",
    "created": "#RETURN ('7f46b78c5a90', ('empty', 'full', 'get'))",
    "names": "#RETURN ('empty', 'full')",
    "names:none": "#RETURN ()",
    "error:Empty": "#ERROR Empty ()",
    "error:Full": "#ERROR Full ()",
    "error:ValueError": "#ERROR ValueError ('the \"text\"\\n',)",
    "error:TypeError": "#ERROR TypeError ('the \"text\"\\n',)",
    "error:OverflowError": "#ERROR OverflowError ('the \"text\"\\n',)",
    "error:RuntimeError": "#ERROR RuntimeError ('the \"text\"\\n',)",
    "error:MemoryError": "#ERROR MemoryError ('the \"text\"\\n',)",
    "error:PermissionError": "#ERROR PermissionError ('the \"text\"\\n',)",
    "error:no-text": "#ERROR ValueError ()",
    "traceback": "#TRACEBACK \"KeyError: 'x'\"",
    "unserializable": "#UNSERIALIZABLE 'an object'",
    "call:dummy": "call (None, 'dummy', (), {})",
    "call:create": "call (None, 'create', ('get_task_queue', 'second'), {})",
    "call:get": "call ('7f46b78c5a90', 'get', (), {'timeout': 1.5})",
    "call:get-forever": "call ('7f46b78c5a90', 'get', (), {})",
    "call:put": "call ('7f46b78c5a90', 'put', ('3 * 3 = 9',), {})",
    "call:qsize": "call ('7f46b78c5a90', 'qsize', (), {})",
}
for number in (0, -1, 255, 256, 65535, 65536, -32769, 2**31 - 1, -2**31, 2**32, 2**63 - 1, -2**63):
    COMMON["int:%d" % number] = "#RETURN %d" % number


def interpreters():
    named = os.environ.get("TASKQ_PYTHONS")
    if named:
        return named.split(":")
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python"))
    return sorted(found) or [sys.executable]


def version(python):
    text = subprocess.check_output([python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"])
    return tuple(int(part) for part in text.split())


class RepliesLoad(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lines = subprocess.check_output([REPLY_TOOL])

    def load(self, python, *prefixes):
        out = subprocess.run([python, "-c", LOADER] + list(prefixes), input=self.lines, check=True,
                             stdout=subprocess.PIPE).stdout.decode()
        return dict(line.split(" ", 1) for line in out.splitlines())

    def test_every_reply_in_every_python_3(self):
        pythons = [p for p in interpreters() if version(p) >= (3, 6)]
        self.assertTrue(pythons)
        for python in pythons:
            with self.subTest(python=python):
                expected = dict(COMMON)
                # Where queue.ShutDown does not exist, the client sees Empty.
                name = "ShutDown" if version(python) >= (3, 13) else "Empty"
                expected["error:ShutDown"] = "#ERROR %s ()" % name
                self.assertEqual(self.load(python, ""), expected)

    def test_classes_are_the_real_ones(self):
        check = ("import pickle, queue, sys, binascii\n"
                 "loaded = {}\n"
                 "for line in sys.stdin:\n"
                 "    name, data = line.split()\n"
                 "    loaded[name] = pickle.loads(binascii.unhexlify(data))[1]\n"
                 "assert type(loaded['error:Empty']) is queue.Empty\n"
                 "assert type(loaded['error:Full']) is queue.Full\n"
                 "assert type(loaded['error:ShutDown']) is getattr(queue, 'ShutDown', queue.Empty)\n"
                 "assert type(loaded['error:ValueError']) is ValueError\n"
                 "assert type(loaded['error:PermissionError']) is PermissionError\n"
                 "print('checked')\n")
        for python in interpreters():
            if version(python) < (3, 6):
                continue
            with self.subTest(python=python):
                done = subprocess.run([python, "-c", check], input=self.lines, stdout=subprocess.PIPE)
                self.assertEqual((done.returncode, done.stdout), (0, b"checked\n"))

    def test_envelope_in_python_2(self):
        for python in interpreters():
            if version(python) >= (3, 0):
                continue
            with self.subTest(python=python):
                plain = self.load(python, "none", "true", "false", "int:", "created", "names", "traceback", "call:")
                self.assertEqual(plain["none"], "#RETURN None")
                self.assertEqual(plain["created"], "#RETURN (u'7f46b78c5a90', (u'empty', u'full', u'get'))")
                self.assertEqual(plain["traceback"], "#TRACEBACK u\"KeyError: 'x'\"")
                self.assertEqual(plain["call:get"], "call (u'7f46b78c5a90', u'get', (), {u'timeout': 1.5})")
                self.assertEqual(plain["int:-1"], "#RETURN -1")


if __name__ == "__main__":
    harness.main()
