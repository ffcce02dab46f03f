/* The request `backup`: who may, what is refused, who waits for its end. */
#include "tests/unit/native_talk.h"

static void end_it(struct native_rig *r, const struct native_backup *b)
{
    native_backup_done(r->native, r->backup_token, b);
    native_rig_flush(r);
}

static void it_waits_for_its_end(void **state)
{
    struct native_backup end = {.index = 7, .bytes = 4096, .files = 2};
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    say(c, "[0,1,'backup',{dir:'/var/backups/a'}]");
    hear_nothing(c);
    assert_string_equal(r.backup_dir, "/var/backups/a");
    say(c, "[0,2,'ping',{}]"); /* others go on */
    hear(c, "[1,2,nil,{*}]");
    end_it(&r, &end);
    hear(c, "[1,1,nil,{index:7,bytes:4096,files:2}]");
    end_it(&r, &end); /* nobody waits for that any more */
    hear_nothing(c);
    teardown(&r);
}

static void what_is_wrong_is_said_by_name(void **state)
{
    static const struct {
        enum native_backup_end end;
        const char *code;
    } ends[] = {
        {NATIVE_BACKUP_IMPOSSIBLE, "refused"}, {NATIVE_BACKUP_BUSY, "refused"},
        {NATIVE_BACKUP_EXISTS, "exists"},      {NATIVE_BACKUP_PERMISSION, "permission"},
        {NATIVE_BACKUP_NO_SPACE, "no_space"},  {NATIVE_BACKUP_FAILED, "io"},
    };
    struct native_backup b = {.text = "the reason"};
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        b.end = ends[i].end;
        r.backup = b; /* at once */
        say(c, "[0,%u,'backup',{dir:'/a'}]", i);
        hear_error(c, i, ends[i].code, "the reason");
        r.backup = (struct native_backup){0}; /* or later */
        say(c, "[0,%u,'backup',{dir:'/a'}]", i);
        hear_nothing(c);
        end_it(&r, &b);
        hear_error(c, i, ends[i].code, "the reason");
    }
    teardown(&r);
}

static void the_path_is_absolute(void **state)
{
    struct native_rig r;
    struct native_client *c;
    char path[NATIVE_PATH_MAX + 2];

    (void)state;
    setup(&r);
    c = client(&r, "");
    r.backup_dir[0] = '-';
    say(c, "[0,1,'backup',{}]");
    hear_error(c, 1, "bad_request", "dir is missing");
    say(c, "[0,2,'backup',{dir:''}]");
    hear_error(c, 2, "bad_request", "dir must have 1 to 4000 bytes");
    say(c, "[0,3,'backup',{dir:'a/b'}]");
    hear_error(c, 3, "bad_request", "absolute");
    say(c, "[0,4,'backup',{dir:5}]");
    hear_error(c, 4, "bad_request", "dir must be a string");
    memset(path, '/', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    say(c, "[0,5,'backup',{dir:'%s'}]", path);
    hear_error(c, 5, "bad_request", "4000 bytes");
    assert_int_equal(r.backup_dir[0], '-'); /* none of them came through */
    say(c, "[0,6,'backup',{dir:'%s'}]", path + 1);
    hear_nothing(c);
    assert_int_equal(r.backup_dir[0], '/');
    teardown(&r);
}

static void only_an_administrator_may(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    r.rights[0] = KEY_ALL & ~KEY_STOP;
    c = client(&r, "");
    say(c, "[0,1,'backup',{dir:'/a'}]");
    hear_error(c, 1, "denied", "may not backup");
    r.rights[0] = KEY_ALL;
    say(c, "[0,2,'backup',{dir:'/a'}]");
    hear_nothing(c);
    native_rights_changed(&c->conn, false);
    native_rig_flush(&r); /* nothing that matters here */
    hear_nothing(c);
    r.rights[0] = KEY_ALL & ~KEY_STOP;
    native_rights_changed(&c->conn, false);
    native_rig_flush(&r);
    hear_error(c, 2, "denied", "may not backup");
    teardown(&r);
}

static void who_waits_may_cancel_or_go(void **state)
{
    struct native_backup end = {.index = 7};
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    say(c, "[0,1,'backup',{dir:'/a'}]");
    say(c, "[0,2,'cancel',{call:1}]");
    hear_error(c, 1, "canceled", "cancel");
    hear(c, "[1,2,nil,{found:true}]");
    end_it(&r, &end);
    hear_nothing(c);
    say(c, "[0,3,'backup',{dir:'/a'}]");
    native_rig_close(c, NATIVE_SOCKET_CLOSED);
    end_it(&r, &end);
    teardown(&r);
}

static void without_memory_it_is_refused(void **state)
{
    struct tq_buf frame = TQ_BUF_NULL(1000);
    struct native_rig r;
    struct native_client *c;
    bool begun = false;

    (void)state;
    assert_true(mptext_encode("[0,1,'backup',{dir:'/a'}]", &frame));
    for (long after = 0; !begun; after++) {
        struct tq_span payload;

        assert_true(after < 100);
        setup(&r);
        c = client(&r, "");
        tq_mem_fail_after(after, 1);
        native_rig_send(c, tq_buf_span(&frame));
        begun = tq_mem_count() > 0 && c->open && !native_rig_read(c, &payload);
        tq_mem_fail_after(-1, 0);
        end_it(&r, &(struct native_backup){0}); /* begun or not */
        if (begun)
            hear(c, "[1,1,nil,{index:0,bytes:0,files:0}]");
        teardown(&r);
    }
    tq_buf_deinit(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_for_its_end),       cmocka_unit_test(what_is_wrong_is_said_by_name),
        cmocka_unit_test(the_path_is_absolute),       cmocka_unit_test(only_an_administrator_may),
        cmocka_unit_test(who_waits_may_cancel_or_go), cmocka_unit_test(without_memory_it_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
