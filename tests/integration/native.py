"""A thin client of the native dialect: proto/PROTOCOL.md, section 5, with msgpack of Debian's python3-msgpack.

The tests may run under an interpreter that has no msgpack: then that of another python3 on the PATH is used,
in its pure Python form, which runs everywhere."""
import importlib.util
import os
import subprocess
import sys

import wire


def load_msgpack():
    try:
        import msgpack
        return msgpack
    except ImportError:
        pass
    os.environ['MSGPACK_PUREPYTHON'] = '1'
    for folder in os.environ.get('PATH', '').split(':'):
        python = os.path.join(folder, 'python3')
        if not os.access(python, os.X_OK):
            continue
        found = subprocess.run([python, '-c', 'import msgpack; print(msgpack.__file__)'],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        path = found.stdout.decode().strip()
        if found.returncode == 0 and path:
            spec = importlib.util.spec_from_file_location('msgpack', path,
                                                          submodule_search_locations=[os.path.dirname(path)])
            msgpack = importlib.util.module_from_spec(spec)
            sys.modules['msgpack'] = msgpack
            spec.loader.exec_module(msgpack)
            return msgpack
    raise ImportError('no python3 on the PATH has msgpack: install python3-msgpack')


msgpack = load_msgpack()


class NativeError(Exception):
    """An error reply: code, text."""

    @property
    def code(self):
        return self.args[0]


class Native(wire.Wire):
    """A connection that has said hello. Replies may come in any order; notifications are kept."""

    def __init__(self, server, worker=None, hello=True, **fields):
        super().__init__(server)
        self.last_msgid = 0
        self.replies = {}
        self.notices = []
        try:
            self.handshake()
            if hello:
                fields.update({'worker': worker} if worker else {})
                self.welcome = self.call('hello', version=1, client='integration tests', **fields)
        except BaseException:
            self.close()
            raise

    def pack(self, message):
        return msgpack.packb(message, use_bin_type=True)

    def start(self, method, **params):
        """Sends a request; its msgid."""
        self.last_msgid += 1
        self.send(self.pack([0, self.last_msgid, method, params]))
        return self.last_msgid

    def next_message(self):
        message = msgpack.unpackb(self.receive(), raw=False, strict_map_key=False)
        if message[0] == 1:
            self.replies[message[1]] = message[2:]
        else:
            self.notices.append(message[1:])

    def finish(self, msgid):
        """The result of a request; raises NativeError."""
        while msgid not in self.replies:
            self.next_message()
        error, result = self.replies.pop(msgid)
        if error is not None:
            raise NativeError(*error)
        return result

    def call(self, method, **params):
        return self.finish(self.start(method, **params))

    def notice(self):
        """The next notification."""
        while not self.notices:
            self.next_message()
        return self.notices.pop(0)

    def put(self, q, *bodies, **options):
        """The ids."""
        return self.call('put', q=q, tasks=[[body] for body in bodies], opts=options)['ids']

    def get(self, q, max=1, wait_ms=30000, **more):
        return self.call('get', q=q, max=max, wait_ms=wait_ms, **more)['tasks']

    def done(self, *leases, **more):
        return self.call('done', done=[list(lease) for lease in leases], **more)
