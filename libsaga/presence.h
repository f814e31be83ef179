/* Which processes may still write to the database. Each session that writes holds the number of its
 * process as a shared advisory lock: the server takes it away when the session has ended, with all
 * that it had begun, however the process died. So others know from the database itself whether
 * something of a silent process may still be committed. */
#ifndef SAGA_PRESENCE_H
#define SAGA_PRESENCE_H

#include <stdint.h>

/* SQL: what the processes of one service have in common, of its schema; classid in pg_locks. objid is
 * the number. */
#define SAGA_PRESENCE "hashtext('presence ' || current_setting('search_path'))"

int32_t saga_presence(void); /* of this process: above 0, drawn at the first call. Any thread */
/* SQL for saga_pg_session(): first what is given, then the lock. Lives for ever. */
const char *saga_presence_sql(const char *first);

#endif
