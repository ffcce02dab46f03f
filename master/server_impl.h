/* What the server's files share. */
#ifndef MASTER_SERVER_IMPL_H
#define MASTER_SERVER_IMPL_H

#include "master/server.h"

/* Carries out what stands in server.effects. */
void server_run_effects(struct server *s);

/* server_queues.c */
/* A queue has gone, or is about to: Python does not find it any more. For broker_on_queue_gone. */
void server_forget_queue(void *ctx, struct broker_queue *queue);
/* Those that came out of the log, and those of the command line: Python finds them all. */
int server_open_queues(struct server *s, char err[TQ_OPT_ERROR_MAX]);

/* server_listen.c: listens on config.listen[i]; ret_text is the address that it got. */
int server_listen(struct server *s, unsigned i, char ret_text[80], char err[TQ_OPT_ERROR_MAX]);

/* banner.c */
void server_banner(const struct server *s, char texts[CONFIG_LISTEN_MAX][80]);
/* At the stop: what it did; what is lost by it, and what is not. */
void server_report(const struct server *s);
void server_report_items(const struct server *s);

#endif
