"""Python as Red Hat builds 3.6 to 3.11: HMAC-SHA256 without a prefix where upstream has HMAC-MD5. Does one
task of the example."""
import hmac
from multiprocessing import AuthenticationError, connection


def deliver_challenge(conn, authkey):
    import os
    message = os.urandom(connection.MESSAGE_LENGTH)
    conn.send_bytes(connection.CHALLENGE + message)
    digest = hmac.new(authkey, message, 'sha256').digest()
    if conn.recv_bytes(256) == digest:
        conn.send_bytes(connection.WELCOME)
    else:
        conn.send_bytes(connection.FAILURE)
        raise AuthenticationError('digest received was wrong')


def answer_challenge(conn, authkey):
    message = conn.recv_bytes(256)
    assert message.startswith(connection.CHALLENGE)
    conn.send_bytes(hmac.new(authkey, message[len(connection.CHALLENGE):], 'sha256').digest())
    if conn.recv_bytes(256) != connection.WELCOME:
        raise AuthenticationError('digest sent was rejected')


connection.deliver_challenge = deliver_challenge
connection.answer_challenge = answer_challenge

import common  # noqa: E402, with its connections made as above

m = common.connect('get_task_queue', 'get_result_queue')
n = m.get_task_queue().get(timeout=10)
m.get_result_queue().put('%d * %d = %d' % (n, n, n * n))
