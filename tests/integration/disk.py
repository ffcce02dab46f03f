"""Disks for tests: one that fills up, one that fails, is slow, or ends the master (preload/disk_faults.c), and the
log's thread alone stopped (tools/stop_thread.c)."""
import functools
import mmap
import os
import signal

import harness
from durable import DurableCase

FAULTS = os.path.join(harness.BUILD, 'bin', 'disk_faults.so')
GATE = os.path.join(harness.BUILD, 'bin', 'sync_gate.so')
STOP_THREAD = os.path.join(harness.BUILD, 'bin', 'stop_thread')
SEGMENT_BYTES = 1 << 16  # the smallest there are

READ, WRITE, SYNC, SYNC_DIR, ALLOCATE, TRUNCATE, RENAME, REMOVE = KINDS = range(8)
ALL_KINDS = tuple(KINDS)


def preload(path, **env):
    """The environment of a program that has this preloaded, before its sanitizer."""
    return dict(env, LD_PRELOAD=path,
                ASAN_OPTIONS='verify_asan_link_order=0:' + os.environ.get('ASAN_OPTIONS', ''))


class BoundedCase(DurableCase):
    """Ends, whatever the master leaves unanswered."""

    LIMIT_S = int(harness.DEADLINE_S)

    def setUp(self):
        def late(*_):
            raise AssertionError('the test has not come to its end in time\n' +
                                 (self.master.describe() if self.master else ''))

        signal.signal(signal.SIGALRM, late)
        signal.alarm(self.LIMIT_S * (4 if harness.sanitized() else 1))
        self.addCleanup(signal.alarm, 0)
        super().setUp()


class Faults:
    """What the disk does wrong, from now on, in this life of the master and in later ones: struct faults of
    disk_faults.c by its fields' names."""

    FIELDS = ('budget_bytes', 'fail_kinds', 'fail_in', 'fail_errno', 'die_kinds', 'die_in', 'failed', 'full', 'sync_us',
              'pieces', 'ahead_s')

    def __init__(self, path):
        words = len(self.FIELDS) + len(KINDS)
        with open(path, 'w+b') as f:
            f.truncate(8 * words)
            self.__dict__['words'] = memoryview(mmap.mmap(f.fileno(), 8 * words)).cast('Q')
        self.__dict__['env'] = preload(FAULTS, DISK_FAULTS=path)

    def __getattr__(self, name):
        return self.words[self.FIELDS.index(name)]

    def __setattr__(self, name, value):
        self.words[self.FIELDS.index(name)] = value

    def calls(self, *kinds):
        """So many there were, in all lives."""
        return sum(self.words[len(self.FIELDS) + kind] for kind in kinds)

    @staticmethod
    def bits(kinds):
        return sum(1 << kind for kind in kinds)

    def fail(self, n, *kinds, error):
        """The n-th of these calls fails, and all that come after it."""
        self.fail_in = 0
        self.fail_kinds, self.fail_errno = self.bits(kinds), error
        self.fail_in = n

    def die(self, n, *kinds):
        """The n-th of these calls, done by half, is the last thing that the master does."""
        self.die_in = 0
        self.die_kinds = self.bits(kinds)
        self.die_in = n

    def nothing(self):
        for name in self.FIELDS:
            if name != 'ahead_s':
                setattr(self, name, 0)


class FaultyCase(BoundedCase):
    """self.faults is the disk's; the segments are small."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(os.path.join(self.temp, 'faults'))

    def start(self, *options, **kwargs):
        kwargs.setdefault('env', self.faults.env)
        return super().start('--log-segment-bytes', str(SEGMENT_BYTES), *options, **kwargs)


# ---- disks that fill up ----

class Mounted:
    """A real one: a tmpfs in a mount namespace of its own, which goes with the process that holds it."""

    env = {}

    def __init__(self, temp, n_bytes):
        self.where = where = os.path.join(temp, 'mount')
        os.mkdir(where)
        self.holder = harness.Process(
            ['unshare', '-m' if os.geteuid() == 0 else '-Urm', 'sh', '-c',
             'mount -t tmpfs -o size=$1,mode=700 none "$2" && echo mounted && exec cat', 'sh', str(n_bytes), where],
            stdin=True, name='small disk')
        try:
            self.holder.expect('^mounted$')
        except AssertionError:
            self.clear()
            raise
        self.path = '/proc/%d/root%s' % (self.holder.pid, where)
        self.folder = os.path.join(self.path, 'queues')
        self.filler = os.path.join(self.path, 'filler')

    def left(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_bsize

    def leave(self, n_bytes):
        """From now on there is so much room, and no more."""
        if os.path.exists(self.filler):
            os.remove(self.filler)
        more = self.left() - n_bytes
        if more > 0:
            with open(self.filler, 'wb') as f:
                os.posix_fallocate(f.fileno(), 0, more)

    def free(self):
        os.remove(self.filler)

    def inside(self, *command):
        """That command, where the disk is mounted."""
        user = [] if os.geteuid() == 0 else ['-U', '--preserve-credentials']
        return ['nsenter', '-t', str(self.holder.pid), '-m', *user, *command]

    def clear(self):
        self.holder.clear()


class Budgeted:
    """The same by the preloaded library, for where mounting is not allowed."""

    def __init__(self, temp, n_bytes):
        self.folder = os.path.join(temp, 'queues')
        self.faults = Faults(os.path.join(temp, 'faults'))
        self.faults.budget_bytes = self.n_bytes = n_bytes
        self.env = self.faults.env

    def left(self):
        sizes = [os.stat(os.path.join(self.folder, name)).st_size for name in os.listdir(self.folder)] \
            if os.path.exists(self.folder) else []
        return self.faults.budget_bytes - sum((size + 4095) // 4096 * 4096 for size in sizes)

    def leave(self, n_bytes):
        self.faults.budget_bytes += n_bytes - self.left()

    def free(self):
        self.faults.budget_bytes = self.n_bytes

    def clear(self):
        pass


@functools.lru_cache(maxsize=None)
def can_mount():
    with harness.TempDir() as temp:
        try:
            Mounted(temp, 1 << 20).clear()
        except AssertionError:
            return False
        return True


class SmallDiskCase(BoundedCase):
    """self.disk has so many bytes, and the data directory is on it."""

    Disk = None
    BYTES = 3 << 20
    LIMIT_S = 12

    def setUp(self):
        super().setUp()
        self.disk = self.Disk(self.temp, self.BYTES)
        self.addCleanup(self.disk.clear)
        self.folder = self.disk.folder

    def start(self, *options, **kwargs):
        return super().start('--log-segment-bytes', str(SEGMENT_BYTES), '--stop-timeout', '3', *options,
                             env=self.disk.env, **kwargs)


# ---- the log's thread ----

class Stopper:
    """Stops the log's thread of a master, and nothing else of it. Where tracing is not allowed its syncs wait at the
    gate (preload/sync_gate.c) instead: the master runs with self.env in any case."""

    def __init__(self, temp):
        self.folder = os.path.join(temp, 'gate')
        os.mkdir(self.folder)
        self.env = preload(GATE, SYNC_GATE=self.folder)
        self.closed = os.path.join(self.folder, 'closed')
        self.tracer = None

    def stop(self, master):
        self.tracer = harness.Process([STOP_THREAD, str(master.pid), 'taskq-log'], stdin=True)
        try:
            self.tracer.expect('^stopped ')
        except AssertionError:
            if self.tracer.wait() != 3:  # tracing is allowed, and something is wrong
                raise
            self.tracer = None
            with open(self.closed, 'w'):
                pass

    def go_on(self):
        if self.tracer is not None:
            self.tracer.clear()
            self.tracer = None
        elif os.path.exists(self.closed):
            os.remove(self.closed)


