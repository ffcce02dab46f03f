"""For client scripts: a connected manager, the stock way."""
import os
import socket
import sys
from multiprocessing import connection
from multiprocessing.managers import BaseManager, RemoteError

HOST = os.environ.get('TASKQ_HOST')
PORT = int(os.environ.get('TASKQ_PORT', '0'))
KEY = os.environ.get('TASKQ_KEY', '').encode()
REFERENCE = os.environ.get('TASKQ_KIND') == 'reference'  # Python's own server is on the other side


if REFERENCE:  # where a stock connect() takes 40 ms for Nagle against delayed ACK, and the tests make hundreds
    def quick_client(address, original=connection.SocketClient):
        conn = original(address)
        sock = socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.close()
        return conn

    connection.SocketClient = quick_client


class QueueManager(BaseManager):
    pass


def connect(*typeids):
    for typeid in typeids:
        QueueManager.register(typeid)
    manager = QueueManager(address=(HOST, PORT), authkey=KEY)
    manager.connect()
    return manager


def say(*words):
    print(*words)
    sys.stdout.flush()


def hear():
    """One line of stdin; None at its end."""
    line = sys.stdin.readline()
    return line.rstrip('\n') if line else None
