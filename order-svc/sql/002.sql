-- refusal: requests that were rejected in the last minute, written with their RequestRejected by the owner
-- of the lane. Who has sent one over HTTP and waits finds the answer here, whichever process decides it.
--
--   lane        of the order
--   at          when, by the database's clock
--   request_id  topic/partition/offset of the request; a request that is read again stands here again
--   reason      as RequestRejected has it
--   status      of the order then; NONE: there is no such order
create table refusal (
    lane       bigint      not null,
    at         timestamptz not null,
    request_id text        collate "C" not null,
    reason     text        not null,
    status     text        not null
);

create index refusal_request_id on refusal (request_id);

create index refusal_lane on refusal (lane, at);
