/* What runs inside Redis, each at one moment: nobody sees or changes anything in between. */
#include "cache_private.h"

/* clang-format off */

/* Nothing was there to read. KEYS value, lock, filter; ARGV generation, token or "", ms, bits...
 * -> the value, if another has filled it; "none": the filter says that there is no such SKU; "lead":
 * the lock is ours (if one was asked for); "wait": another has it */
struct saga_redis_script cache_miss = {
    "local v = redis.call('GET', KEYS[1])\n"
    "if v and v:match('^%d+ (%S+)') == ARGV[1] then return v end\n"
    "if ARGV[4] and redis.call('GETBIT', KEYS[3], 0) == 1 then\n"
    "  for i = 4, #ARGV do\n"
    "    if redis.call('GETBIT', KEYS[3], ARGV[i]) == 0 then return 'none' end\n"
    "  end\n"
    "end\n"
    "if ARGV[2] ~= '' and not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then\n"
    "  return 'wait'\n"
    "end\n"
    "return 'lead'\n", ""};

/* KEYS value, lock, generation; ARGV token or "", generation, version, the value's rest, ms (0: only
 * the lock is given back), "1": compare versions. -> 1: stored */
struct saga_redis_script cache_fill = {
    "if ARGV[1] ~= '' then\n"
    "  if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end\n"
    "  redis.call('DEL', KEYS[2])\n"
    "end\n"
    "if ARGV[5] == '0' or redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end\n"
    "local old = redis.call('GET', KEYS[1])\n"
    "if old and ARGV[6] == '1' then\n"
    "  local v, g = old:match('^(%d+) (%S+)')\n"
    "  if v and (g == 't' or g == ARGV[2]) and tonumber(v) > tonumber(ARGV[3]) then return 0 end\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[2] .. ' ' .. ARGV[4], 'PX', ARGV[5])\n"
    "return 1\n", ""};

/* Function bar(key, version, ms): a tombstone, unless what stands there is as new. */
#define BAR                                                                                          \
    "local g = redis.call('GET', KEYS[1])\n"                                                         \
    "local function bar(key, version, ms)\n"                                                         \
    "  local v, of = (redis.call('GET', key) or ''):match('^(%d+) (%S+)')\n"                         \
    "  if not (v and (of == 't' or of == g) and tonumber(v) >= tonumber(version)) then\n"            \
    "    redis.call('SET', key, version .. ' t', 'PX', ms)\n"                                        \
    "  elseif of == 't' then\n"                                                                      \
    "    redis.call('PEXPIRE', key, ms)\n" /* who reads now may be slow */                           \
    "  end\n"                                                                                        \
    "end\n"

/* What may be committed at any moment. KEYS generation, values...; ARGV ms, for each a version */
struct saga_redis_script cache_bar = {
    BAR
    "for i = 2, #KEYS do bar(KEYS[i], ARGV[i], ARGV[1]) end\n", ""};

/* KEYS generation, value, filter; ARGV ms, bits... : a SKU is made, with version 1 */
struct saga_redis_script cache_create = {
    BAR
    "for i = 2, #ARGV do redis.call('SETBIT', KEYS[3], ARGV[i], 1) end\n"
    "bar(KEYS[2], '1', ARGV[1])\n", ""};

/* What has come to its end. Who holds a lock may have read before it: he loses it, and stores nothing. A
 * value that stands there makes room for the new one, if that is known and of this generation; most SKUs
 * nobody reads, and have neither. KEYS generation, for each SKU its value and its lock; ARGV generation of
 * the new values' rows, for each a version and the value's rest or "" -> how many were values */
struct saga_redis_script cache_forget = {
    "local g = redis.call('GET', KEYS[1])\n"
    "local n, there = 0, redis.call('MGET', unpack(KEYS, 2))\n"
    "for i = 1, #there, 2 do\n"
    "  local old, key, version, rest = there[i], KEYS[i + 1], ARGV[i + 1], ARGV[i + 2]\n"
    "  if there[i + 1] then redis.call('DEL', KEYS[i + 2]) end\n"
    "  local v, of = (old or ''):match('^(%d+) (%S+)')\n"
    "  if old and of ~= 't' and not (of == g and tonumber(v) >= tonumber(version)) then\n"
    "    if of == g then n = n + 1 end\n"
    "    if of == g and rest ~= '' and ARGV[1] == g then\n"
    "      redis.call('SET', key, version .. ' ' .. g .. ' ' .. rest, 'KEEPTTL')\n"
    "    else\n"
    "      redis.call('DEL', key)\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return n\n", ""};

/* A lease that ends later than one of now would is of another clock: it is not in force, and ages from now
 * on. Who may write and never had one leaves a trace of an ended one, for the time when he is gone.
 * KEYS generation, writers, filter, builder, left: (of those that have ended well); ARGV our number, ms of a
 * lease, what we know ("first": the first beat; "doubt": something may be untold; "same"), how many ms ago it was known who may write (-1: not
 * known), the numbers of those... -> generation, how many may write and have no lease, whether the
 * filter is complete */
struct saga_redis_script cache_beat = {
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local g = redis.call('GET', KEYS[1])\n"
    "for _, w in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now + ARGV[2], '+inf')) do\n"
    "  redis.call('ZADD', KEYS[2], now - 1, w)\n"
    "end\n"
    "local mine = redis.call('ZSCORE', KEYS[2], ARGV[1])\n"
    "local new = not g or ARGV[3] == 'doubt'\n"
    "  or (ARGV[3] == 'same' and not (mine and tonumber(mine) >= now))\n"
    "  or (ARGV[3] == 'first' and redis.call('ZCOUNT', KEYS[2], now, '+inf') == 0)\n"
    "redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])\n"
    "local living, late = {}, 0\n"
    "for i = 5, #ARGV do\n"
    "  living[ARGV[i]] = true\n"
    "  local lease = redis.call('ZSCORE', KEYS[2], ARGV[i])\n"
    "  if (not lease or tonumber(lease) < now)\n"
    "    and redis.call('EXISTS', KEYS[5] .. ARGV[i]) == 0 then\n"
    "    redis.call('ZADD', KEYS[2], 'NX', now - 1, ARGV[i])\n"
    "    late = late + 1\n"
    "  end\n"
    "end\n"
    "for _, w in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now)) do\n"
    "  local age = tonumber(ARGV[4])\n"
    "  if not living[w] and age >= 0 and tonumber(redis.call('ZSCORE', KEYS[2], w)) < now - age then\n"
    "    redis.call('ZREM', KEYS[2], w)\n" /* it has ended, with all that it had begun */
    "    new = true\n"
    "  elseif not living[w] then\n"
    "    late = late + 1\n"
    "  end\n"
    "end\n"
    "if new then\n"
    "  local us = t[1] * 1000000 + t[2]\n"
    "  if g and tonumber(g) >= us then us = tonumber(g) + 1 end\n"
    "  g = string.format('%.0f', us)\n"
    "  redis.call('SET', KEYS[1], g)\n"
    "  redis.call('UNLINK', KEYS[3], KEYS[4])\n"
    "end\n"
    "return {g, late, redis.call('GETBIT', KEYS[3], 0)}\n", ""};

/* KEYS filter, builder, part; ARGV the builder's token, bytes of a whole part: what was built becomes part of
 * the filter -> 1: and makes it complete. 0: Redis had no room for the part, or has thrown the filter out
 * meanwhile, with the bits of SKUs that were being made (bit 1 stands since the building began). */
struct saga_redis_script cache_complete = {
    "local ours = redis.call('GET', KEYS[2]) == ARGV[1]\n"
    "local whole = ours and redis.call('GETBIT', KEYS[1], 1) == 1\n"
    "  and redis.call('STRLEN', KEYS[3]) == tonumber(ARGV[2])\n"
    "if ours then redis.call('UNLINK', KEYS[2]) end\n"
    "if whole then\n"
    "  redis.call('BITOP', 'OR', KEYS[1], KEYS[1], KEYS[3])\n"
    "  redis.call('SETBIT', KEYS[1], 0, 1)\n"
    "end\n"
    "redis.call('UNLINK', KEYS[3])\n"
    "return whole and 1 or 0\n", ""};
/* clang-format on */

struct saga_redis_script *const cache_scripts[] = {&cache_miss,     &cache_fill,   &cache_bar,
                                                   &cache_create,   &cache_forget, &cache_beat,
                                                   &cache_complete, NULL};
