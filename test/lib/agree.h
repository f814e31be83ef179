/* The pull reader and jansson must agree whether a text is JSON, and on its value, but for four
 * differences, the first three meant: depth: we refuse more than 16 levels, jansson more than 2048;
 * integers beyond 64 bits: jansson refuses them anywhere, we only where an integer is read; reals
 * beyond a double (1e999): the same; NUL after a word or a number: we refuse it, jansson 2.14 loses
 * it and reads on. */
#ifndef AGREE_H
#define AGREE_H

#include <stdbool.h>
#include <stddef.h>

/* Reads text both ways; fails (test_fail) if they differ otherwise. -> it is JSON, as we see it */
bool agree(const char *text, size_t n);

#endif
