/* The worker as a whole, in one process, where nobody listens: every handle is closed and the loop with it
 * (agent_run asserts that), whichever allocation fails. What it does with a peer is tested in
 * tests/integration. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/digest.h"
#include "common/mem.h"
#include "worker/agent.h"

/* Bound, not listening: a connection to it is refused, and nobody else can take the port. */
static int reserve_port(uint16_t *ret_port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *ret_port = ntohs(addr.sin_port);
    return fd;
}

static struct agent_conf conf_for(uint16_t port, bool peer_python)
{
    return (struct agent_conf){
        .host = "127.0.0.1",
        .port = port,
        .key = tq_span_str("key"),
        .peer_python = peer_python,
        .client = "test",
        .worker_id = "w",
        .heartbeat_ms = 5000,
        .from = "task_queue",
        .to = "result_queue",
        .name = "MainProcess",
        .jobs = 3,
        .poll_timeout_ms = 1000,
        .frame_bytes = 1 << 20,
        .runner = runner_builtin_find("square"),
    };
}

static void test_nobody_listens(void **state)
{
    struct agent_conf conf;
    uint16_t port;
    int fd = reserve_port(&port);

    (void)state;
    for (int python = 0; python < 2; python++) {
        conf = conf_for(port, python);
        conf.no_retry = true;
        assert_int_equal(agent_run(&conf), 1);
        conf.no_retry = false;
        conf.connect_timeout_ms = 300; /* at least one pause and another try */
        assert_int_equal(agent_run(&conf), 1);
    }
    close(fd);
}

static void fail_each_allocation(bool peer_python)
{
    struct agent_conf conf;
    unsigned long used = 0;
    uint16_t port;
    int fd = reserve_port(&port);

    conf = conf_for(port, peer_python);
    conf.no_retry = true;
    /* As many as a run without failures makes, and one more. */
    for (long n = 0; n == 0 || (unsigned long)n <= used; n++) {
        unsigned long before = tq_mem_count();

        tq_mem_fail_after(n, 1);
        assert_int_equal(agent_run(&conf), 1);
        tq_mem_fail_after(-1, 0);
        used = tq_mem_count() - before > used ? tq_mem_count() - before : used;
        assert_true(n < 200);
    }
    assert_true(used > 2);
    close(fd);
}

static void test_each_allocation_failing(void **state)
{
    (void)state;
    fail_each_allocation(true);
    fail_each_allocation(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_each_allocation_failing),
    };
    int failed;

    signal(SIGPIPE, SIG_IGN);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    tq_digest_cleanup();
    return failed;
}
