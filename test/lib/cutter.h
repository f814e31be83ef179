/* A process between clients and a server that cuts connections at random, in the middle of what is said
 * in either direction. */
#ifndef CUTTER_H
#define CUTTER_H

#include <stdint.h>

struct cutter;

/* Forks; it ends with us. Each connection is cut (RST, both sides) after 1 to bytes bytes, counted in
 * both directions; which, the seed decides. */
struct cutter *cutter_start(int server_port, unsigned seed, int bytes);
int cutter_port(const struct cutter *c);
int64_t cutter_cuts(const struct cutter *c);
void cutter_stop(struct cutter *c);

#endif
