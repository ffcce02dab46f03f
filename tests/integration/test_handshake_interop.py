"""Handshakes of our session with multiprocessing.connection of every interpreter here, both directions."""
import os
import subprocess
import threading
import unittest

import harness

AUTH_TOOL = os.path.join(harness.BUILD, "bin", "auth_tool")
LIMIT_S = 120

ABC = b"abc".hex()
OTHER = b"other".hex()
LONG = bytes(range(256)).hex() + "00ff" * 50
EMPTY = ""

# Runs in each interpreter. One argument for each connection: WORD,KEY where WORD is "plain" or "rhel" (the
# patch that Red Hat's builds carry). Clients take PORT,WORD,KEY. The manual exchange is what managers do, and
# the only way to an authenticated connection with an empty key.
PEER = r"""
import binascii, hmac, sys
from multiprocessing import connection
from multiprocessing.context import AuthenticationError

stock_new = hmac.new

def patched_new(key, msg=None, digestmod=""):
    return stock_new(key, msg, "sha256" if digestmod == "md5" else digestmod)

def show(*words):
    print(" ".join(str(word) for word in words))
    sys.stdout.flush()

def client(port, key):
    if key:
        c = connection.Client(("127.0.0.1", port), authkey=key)
    else:
        c = connection.Client(("127.0.0.1", port))
        connection.answer_challenge(c, key)
        connection.deliver_challenge(c, key)
    values = [("hello", 1, None), b"x" * 200000, {"a": [1.5]}]
    for value in values:
        c.send(value)
        assert c.recv() == value
    c.close()
    return "served"

def listener(listener, key):
    c = listener.accept()
    if not key:
        connection.deliver_challenge(c, key)
        connection.answer_challenge(c, key)
    frames = 0
    try:
        while True:
            c.send_bytes(c.recv_bytes())
            frames += 1
    except EOFError:
        return "served %d" % frames

for word in sys.argv[2:]:
    parts = word.split(",")
    key = binascii.unhexlify(parts[-1])
    hmac.new = patched_new if parts[-2] == "rhel" else stock_new
    try:
        if sys.argv[1] == "client":
            show(client(int(parts[0]), key))
        else:
            with connection.Listener(("127.0.0.1", 0), authkey=key or None) as l:
                show("port", l.address[1])
                show(listener(l, key))
    except AuthenticationError as e:
        show("AuthenticationError:", e)
"""


class Child:
    """A program whose lines are read one by one; killed at the end of the time limit."""

    def __init__(self, *args):
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, universal_newlines=True)
        self.timer = threading.Timer(LIMIT_S, self.process.kill)
        self.timer.start()

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def port(self):
        word, number = self.line().split()
        assert word == "port", word
        return number

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0] is not None:
            self.process.kill()
        self.process.stdout.close()
        status = self.process.wait()
        self.timer.cancel()
        if exc[0] is None and status != 0:
            raise AssertionError("exit status %d" % status)


def is_old(python):
    """Python up to 3.11: MD5 without a name."""
    return python.version < (3, 12)


REJECTED = "AuthenticationError: digest sent was rejected"
OUR_EAUTH = "fail authentication failed: the keys differ"


class TheirClient(unittest.TestCase):
    """connection.Client of an interpreter against our server side."""

    def cases(self, python):
        own = "legacy" if is_old(python) else "modern"
        # server's options and keys; the client's word and key; the client's line, the server's line
        yield [ABC], "plain", ABC, "served", "open %s 0 3" % own
        yield [OTHER, ABC, LONG], "plain", ABC, "served", "open %s 1 3" % own
        yield [OTHER, ABC, LONG], "plain", LONG, "served", "open %s 2 3" % own
        yield [EMPTY], "plain", EMPTY, "served", "open %s 0 3" % own
        yield [ABC], "plain", OTHER, REJECTED, OUR_EAUTH
        yield [ABC], "plain", EMPTY, REJECTED, OUR_EAUTH
        yield [EMPTY], "plain", ABC, REJECTED, OUR_EAUTH
        if is_old(python):
            yield [ABC], "rhel", ABC, "served", "open rhel 0 3"
            yield [ABC], "rhel", OTHER, REJECTED, OUR_EAUTH
            yield ["--md5-refused", ABC], "rhel", ABC, "served", "open rhel 0 3"
            yield ["--md5-refused", ABC], "plain", ABC, REJECTED, OUR_EAUTH
        else:
            yield ["--md5-refused", ABC], "plain", ABC, "served", "open modern 0 3"

    def test_every_version(self):
        for python in harness.interpreters():
            cases = list(self.cases(python))
            servers = [Child(AUTH_TOOL, "serve", "1", *case[0]) for case in cases]
            words = ["%s,%s,%s" % (s.port(), case[1], case[2]) for s, case in zip(servers, cases)]
            with Child(python.path, "-c", PEER, "client", *words) as peer:
                for case, server in zip(cases, servers):
                    with self.subTest(python=python, case=case), server:
                        self.assertEqual(peer.line(), case[3])
                        self.assertEqual(server.line(), case[4])


class TheirListener(unittest.TestCase):
    """Our client side against connection.Listener of an interpreter."""

    def cases(self, python):
        own = "legacy" if is_old(python) else "modern"
        wrong = "AuthenticationError: digest received was wrong"
        # the listener's word and key; our options and key; our line, the listener's line
        yield "plain", ABC, [ABC], "open %s 0 2" % own, "served 2"
        yield "plain", LONG, [LONG], "open %s 0 2" % own, "served 2"
        yield "plain", EMPTY, [EMPTY], "open %s 0 2" % own, "served 2"
        yield "plain", ABC, [OTHER], OUR_EAUTH, wrong
        yield "plain", ABC, [EMPTY], OUR_EAUTH, wrong
        if is_old(python):
            yield "rhel", ABC, ["--rhel", ABC], "open rhel 0 2", "served 2"
            yield "rhel", ABC, [ABC], OUR_EAUTH, wrong
            yield "plain", ABC, ["--rhel", ABC], OUR_EAUTH, wrong
        else:
            yield "plain", ABC, ["--rhel", ABC], "open modern 0 2", "served 2"

    def test_every_version(self):
        for python in harness.interpreters():
            cases = list(self.cases(python))
            words = ["%s,%s" % case[:2] for case in cases]
            with Child(python.path, "-c", PEER, "listener", *words) as peer:
                for case in cases:
                    with self.subTest(python=python, case=case):
                        with Child(AUTH_TOOL, "dial", peer.port(), *case[2]) as ours:
                            self.assertEqual(ours.line(), case[3])
                        self.assertEqual(peer.line(), case[4])


if __name__ == "__main__":
    unittest.main()
