"""For tests of a master with a data directory: its life after life, and what its files hold."""
import glob
import os
import struct

import harness
from native import msgpack  # noqa: F401  first: finds it for interpreters that have none
import taskq_native
import wire
from harness import ServerCase, TempDir

SEGMENT_HEADER_BYTES, RECORD_HEADER_BYTES = 128, 40


def crc32c(data, crc=0):
    """Castagnoli's; crc: of what stands before."""
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class DurableCase(ServerCase):
    """self.folder is the data directory of the test; start() begins the next life on it."""

    def setUp(self):
        temp = TempDir()
        self.temp = temp.__enter__()
        self.addCleanup(temp.__exit__)
        self.folder = os.path.join(self.temp, 'queues')
        self.master = None

    def start(self, *options, **kwargs):
        self.master = self.start_master('--data-dir', self.folder, *options, **kwargs)
        return self.master

    def kill(self):
        """kill -9."""
        self.master.stopped = True
        self.master.kill()

    def again(self, *options, **kwargs):
        """kill -9, and the next life."""
        self.kill()
        return self.start(*options, **kwargs)

    def stop(self):
        """SIGTERM, and all that ends well."""
        self.stop_master(self.master)

    def native(self, **kwargs):
        client = taskq_native.Client((self.master.host, self.master.port), self.master.key.encode(), **kwargs)
        self.addCleanup(client.close)
        return client

    def resume(self, client):
        client = client.resume((self.master.host, self.master.port))
        self.addCleanup(client.close)
        return client

    def python(self, name='MainProcess'):
        session = wire.Session(self.master, name)
        self.addCleanup(session.close)
        return session

    def queue(self, name):
        return wire.create(self.master, 'get_' + name)

    def recovered(self):
        """The words of the line RECOVERED of this life."""
        line = self.master.expect_stderr(' RECOVERED (.*)').group(1)
        return dict(word.split('=', 1) for word in line.split())

    def refused(self, *options, status=1, env=None):
        """A master that must not start with these; what it says."""
        process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', *options],
                                  env=harness.clean_env(**(env or {})), name='refused')
        self.addCleanup(process.clear)
        self.assertEqual(process.wait(), status, process.describe())
        self.assertEqual(process.stdout, '', process.describe())
        self.assertIsNone(harness.BROKEN.search(process.stderr), process.describe())
        return process.stderr

    # ---- files ----

    def segments(self):
        return sorted(glob.glob(os.path.join(self.folder, '*.log')))

    def records(self, path):
        """(offset, index, bytes) of each record of a segment, as far as they follow on each other."""
        with open(path, 'rb') as f:
            data = f.read()
        at, records = SEGMENT_HEADER_BYTES, []
        while at + RECORD_HEADER_BYTES <= len(data):
            length, _, index = struct.unpack_from('<IIQ', data, at)
            size = (RECORD_HEADER_BYTES + length + 7) // 8 * 8
            if index == 0 or (records and index != records[-1][1] + 1) or at + size > len(data):
                break
            records.append((at, index, size))
            at += size
        return records

    def overwrite(self, path, offset, data):
        with open(path, 'r+b') as f:
            f.seek(offset)
            f.write(data)

    def flip(self, path, offset):
        with open(path, 'rb') as f:
            f.seek(offset)
            byte = f.read(1)[0]
        self.overwrite(path, offset, bytes([byte ^ 0x10]))
