"""For the tests of keys and rights: a keys file that can be changed, and a master that serves with it."""
import base64
import collections
import os
import signal

import wire
from harness import ServerCase, TempDir, poll_until

As = collections.namedtuple('As', 'host port key kind')  # a server as somebody who has that key sees it

BOSS = 'the secret of the boss'
MAILER = 'the-secret-of-the-mailer'
SHOP = 'the-secret-of-the-shop'
EYE = 'the-secret-of-the-eye'


def b64(text):
    return 'base64:' + base64.b64encode(text.encode()).decode()


KEYS = ['# those of the tests',
        'boss admin ' + b64(BOSS),
        'mailer worker %s get=mail,mail-*  # one of its queues' % MAILER,
        'shop producer %s put=mail' % SHOP,
        'eye observer ' + EYE]
QUEUES = ['mail', 'mail-2', 'other']


class KeysCase(ServerCase):

    def setUp(self):
        folder = TempDir()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__)
        self.path = self.file('keys', KEYS)

    def file(self, name, content, mode=0o600):
        """A file of the test's folder, replaced at once and as a whole."""
        path = os.path.join(self.folder, name)
        if not isinstance(content, (str, bytes)):
            content = '\n'.join(content) + '\n'
        if isinstance(content, str):
            content = content.encode()
        with open(path + '.new', 'wb') as f:
            f.write(content)
        os.chmod(path + '.new', mode)
        os.rename(path + '.new', path)
        return path

    def serve(self, *options, queues=QUEUES, key=None, **kwargs):
        server = self.start_master('--keys-file', self.path, *options, queues=queues, key=key, **kwargs)
        server.key = BOSS
        return server

    def session(self, server, key, name='MainProcess', **kwargs):
        session = wire.Session(As(server.host, server.port, key, 'master'), name, **kwargs)
        self.addCleanup(session.close)
        return session

    def seen_as(self, server, key):
        return As(server.host, server.port, key, 'master')

    def admits(self, server, key):
        with wire.Wire(self.seen_as(server, key)) as conn:
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            return conn.receive() == wire.WELCOME

    def refuses(self, session, ident, method, *args):
        """The text of the PermissionError."""
        with self.assertRaises(PermissionError) as caught:
            session.call(ident, method, *args)
        self.assertIs(type(caught.exception), PermissionError)
        return str(caught.exception)

    def reload(self, server, content=None, line='RELOADED', name='keys'):
        """Other keys; returns what the master says of them."""
        before = server.stderr.count(' %s ' % line)
        if content is not None:
            self.file(name, content)
        server.signal(signal.SIGHUP)
        poll_until(lambda: server.stderr.count(' %s ' % line) > before, line)
        return [text for text in server.stderr.splitlines() if ' %s ' % line in text][before]
