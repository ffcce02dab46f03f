"""The broker and Python's own queue module, the same random calls on both: same results, same order.

The interpreter's queue is the reference, as it is but for one thing: an item that a priority queue refuses
with a TypeError stays in Python's heap (or another one gets lost); here the heap is put back.
"""
import os
import queue
import random
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("TASKQ_BUILD", "build"))
BROKER_TOOL = os.path.join(BUILD, "bin", "broker_tool")


class Keyed:
    """Ordered by its number alone: equal ones can be told apart when they come out."""

    def __init__(self, text):
        self.text = text
        self.number = int(text[1:].split("#")[0])

    def __lt__(self, other):
        return self.number < other.number if isinstance(other, Keyed) else NotImplemented


class TidyPriorityQueue(queue.PriorityQueue):
    def _put(self, item):
        self._whole(super()._put, item)

    def _get(self):
        return self._whole(super()._get)

    def _whole(self, method, *args):
        before = list(self.queue)
        try:
            return method(*args)
        except TypeError:
            self.queue[:] = before
            raise


KINDS = {"fifo": queue.Queue, "lifo": queue.LifoQueue, "priority": TidyPriorityQueue}

if not hasattr(queue.Queue, "shutdown"):
    class ShutDown(Exception):
        pass

    class WithShutdown:
        """What 3.13 added, for calls that do not wait."""

        is_shutdown = False

        def put(self, item, block):
            if self.is_shutdown:
                raise ShutDown
            super().put(item, block)

        def get(self, block):
            if self.is_shutdown and not self._qsize():
                raise ShutDown
            return super().get(block)

        def shutdown(self, immediate=False):
            self.is_shutdown = True
            while immediate and self._qsize():
                self._get()
                if self.unfinished_tasks > 0:
                    self.unfinished_tasks -= 1

    KINDS = {name: type(kind.__name__, (WithShutdown, kind), {}) for name, kind in KINDS.items()}


def from_text(text):
    if text[0] == "i":
        return int(text[1:])
    return text if text[0] == "s" else Keyed(text)


def to_text(item):
    if isinstance(item, Keyed):
        return item.text
    return item if isinstance(item, str) else "i%d" % item


class Reference:
    def line(self, line):
        words = line.split()
        method, args = words[0], words[1:]
        if method == "new":
            self.queue = KINDS[args[0]](int(args[1]))
            return "ok"
        if method == "put":
            args = [from_text(args[0]), False]
        elif method == "get":
            args = [False]
        elif method == "shutdown":
            args = [args[0] == "1"]
        try:
            result = getattr(self.queue, method)(*args)
        except (ValueError, TypeError) as e:
            return "%s: %s" % (type(e).__name__, e)
        except Exception as e:
            return type(e).__name__
        return to_text(result) if method == "get" else repr(result)


def run_tool(lines):
    tool = subprocess.run([BROKER_TOOL], input="\n".join(lines) + "\n", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=120)
    if tool.returncode != 0:
        raise AssertionError("broker_tool: status %d, %s" % (tool.returncode, tool.stderr))
    return tool.stdout.splitlines()


class BrokerVsPython(unittest.TestCase):
    maxDiff = 2000

    def compare(self, seed, histories):
        """Histories are lists of lines, each starting with `new`."""
        lines = [line for history in histories for line in history]
        got = run_tool(lines)
        reference = Reference()
        want = [reference.line(line) for line in lines]
        self.assertEqual(len(got), len(want))
        start = 0
        for i, line in enumerate(lines):
            if line.startswith("new"):
                start = i
            if got[i] != want[i]:
                self.fail("seed %s, after %s:\nPython: %s\nbroker: %s" %
                          (seed, "; ".join(lines[start:i + 1]), want[i], got[i]))
        return want

    def history(self, rng, kind, maxsize, item, length=150):
        """Phases of mostly putting and mostly getting, so that queues run full and empty."""
        lines = ["new %s %d" % (kind, maxsize)]
        put_share = 0.5
        for n in range(length):
            if n % 25 == 0:
                put_share = rng.choice((0.2, 0.5, 0.8))
            what = rng.random()
            if what < 0.15:
                lines.append(rng.choice(("qsize", "empty", "full", "task_done", "task_done")))
            elif rng.random() < put_share:
                lines.append("put " + item(n))
            else:
                lines.append("get")
        return lines

    def random_histories(self, seed, item, count=300):
        rng = random.Random(seed)
        make = item(rng)
        return [self.history(rng, rng.choice(sorted(KINDS)), rng.choice((0, -1, 1, 2, 7, 40)), make)
                for _ in range(count)]

    def test_numbers(self):
        want = self.compare(1, self.random_histories(1, lambda rng: lambda n: "i%d" % rng.randrange(-50, 50)))
        for outcome in ("Empty", "Full", "True", "False", "ValueError: task_done() called too many times"):
            self.assertIn(outcome, want)

    def test_equal_keys_come_out_in_heapq_order(self):
        """Which of several equal items comes first is a matter of the exact algorithm."""
        def item(rng):
            return lambda n: "k%d#%d" % (rng.randrange(4), n)
        self.compare(2, self.random_histories(2, item))
        rng = random.Random(3)
        make = item(rng)
        big = ["new priority 0"] + ["put " + make(n) for n in range(3000)]
        for n in range(3000):
            big += ["get"] if rng.random() < 0.7 else ["get", "put " + make(10000 + n)]
        self.compare(3, [big + ["get"] * 4000])

    def test_items_without_an_order(self):
        want = self.compare(4, self.random_histories(
            4, lambda rng: lambda n: rng.choice(("i%d", "i%d", "i%d", "s%d", "k%d#1")) % rng.randrange(9)))
        self.assertTrue(any(line.startswith("TypeError: '<' not supported") for line in want))

    def test_shutdown(self):
        rng = random.Random(5)
        histories = []
        for _ in range(400):
            lines = self.history(rng, rng.choice(sorted(KINDS)), rng.choice((0, 2, 7)), lambda n: "i%d" % n, 60)
            for immediate in rng.choice(("0", "1", "01", "10")):
                lines.insert(rng.randrange(20, len(lines)), "shutdown " + immediate)
            histories.append(lines)
        self.assertIn("ShutDown", self.compare(5, histories))


if __name__ == "__main__":
    sys.exit(unittest.main())
