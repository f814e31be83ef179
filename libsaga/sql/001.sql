-- The tables of libsaga in a service's schema (DESIGN.md section 4). Lanes make events and requests
-- sequences; the outbox is the log of what goes out.

-- One row per lane. term: raised by every new owner, fences the old one, stands in ids. last_seq:
-- number of the newest outbox row. last_id: newest event on the service's own topic. published: every
-- outbox row up to here is in Kafka; offset and id of the newest of them on the own topic.
create table lane (
    lane             int primary key,
    term             bigint not null default 0,
    last_seq         bigint not null default 0,
    last_id          text,
    published        bigint not null default 0,
    published_offset bigint,
    published_id     text
) with (fillfactor = 50);

-- One row per lane and topic read, and per source of forwards ('order.requests/7'). next_offset: where
-- to read on. screened: highest offset looked at. last_id: newest event applied; of requests a hash of
-- the record before next_offset.
create table lane_input (
    lane        int,
    topic       text,
    next_offset bigint not null,
    screened    bigint,
    last_id     text,
    primary key (lane, topic)
) with (fillfactor = 50);

-- What goes out, one row per batch, an array element per event. Two tables, used in turn: the one that
-- is not current is emptied by TRUNCATE once all in it is published.
create table outbox_0 (
    batch      bigint generated always as identity primary key,
    created_at timestamptz not null,
    lane       int[] not null,
    seq        bigint[] not null,
    topic      text[] not null,
    partition  int[] not null,
    key        bytea[] not null,
    value      bytea[] not null,
    headers    bytea[] not null
) with (autovacuum_enabled = false, toast.autovacuum_enabled = false); -- there is nothing to collect
do $$ -- lz4 takes what is like its neighbours to a third for less than writing it costs; pglz costs more
declare c text;
begin
    foreach c in array array['topic', 'key', 'value'] loop
        execute format('alter table outbox_0 alter column %I set compression lz4', c);
    end loop;
    foreach c in array array['lane', 'seq', 'partition', 'headers'] loop
        execute format('alter table outbox_0 alter column %I set storage external', c);
    end loop;
end $$;
create table outbox_1 (like outbox_0 including all);

-- One row: the table in use, and since when. marks: last_seq of each lane when the other table was
-- left, and its newest batch: once all lanes have published that far, it can be emptied.
create table outbox_current (
    slot  int not null,
    since timestamptz not null,
    marks bigint[] not null,
    batch bigint not null
);
insert into outbox_current values (0, now(), '{}', 0);

-- Both tables, event by event, for people.
create view outbox as
    select o.batch, o.created_at, u.*
      from (select * from outbox_0 union all select * from outbox_1) o,
           unnest(o.lane, o.seq, o.topic, o.partition, o.key, o.value, o.headers)
               u(lane, seq, topic, partition, key, value, headers);

-- One row: what this database belongs to. A difference refuses to run.
create table identity (
    service          text not null,
    lanes            int not null,
    topic_prefix     text not null,
    kafka_cluster_id text not null,
    history          uuid not null default gen_random_uuid()
);

-- Where to look for orders whose deadline has come: one row per lane and deadline of a batch. The
-- order's own row decides; rows go when nothing is found for them any more.
create table due (
    lane int not null,
    at   timestamptz not null,
    keys text[] not null
);
create index due_at on due (lane, at);

-- Inputs of orders that could not be applied, in order (DESIGN.md 4.7). input: its type. id, trace: of
-- the event or request; null for a deadline and for the answer of an outside call. value: its payload,
-- JSON. mark: what an operator has asked for; the owner of the lane does it.
create table parked (
    lane   int not null,
    key    text not null,
    n      bigint generated always as identity,
    at     timestamptz not null,
    input  text not null,
    id     text,
    trace  text,
    value  text,
    reason text not null,
    mark   text check (mark in ('redrive', 'drop')),
    primary key (key, n)
);
create index parked_lane on parked (lane, key, n);
