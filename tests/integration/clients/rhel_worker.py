"""Python as Red Hat builds 3.6 to 3.11: HMAC-SHA256 without a prefix where upstream has HMAC-MD5. Does one
task of the example."""
import hmac
import os
from multiprocessing import AuthenticationError, connection

CHALLENGE, WELCOME, FAILURE = b'#CHALLENGE#', b'#WELCOME#', b'#FAILURE#'


def deliver_challenge(conn, authkey):
    message = os.urandom(20)
    conn.send_bytes(CHALLENGE + message)
    if conn.recv_bytes(256) != hmac.new(authkey, message, 'sha256').digest():
        conn.send_bytes(FAILURE)
        raise AuthenticationError('digest received was wrong')
    conn.send_bytes(WELCOME)


def answer_challenge(conn, authkey):
    message = conn.recv_bytes(256)
    assert message.startswith(CHALLENGE)
    conn.send_bytes(hmac.new(authkey, message[len(CHALLENGE):], 'sha256').digest())
    if conn.recv_bytes(256) != WELCOME:
        raise AuthenticationError('digest sent was rejected')


connection.deliver_challenge = deliver_challenge
connection.answer_challenge = answer_challenge

import common  # noqa: E402, with its connections made as above

m = common.connect('get_task_queue', 'get_result_queue')
n = m.get_task_queue().get(timeout=10)
m.get_result_queue().put('%d * %d = %d' % (n, n, n * n))
