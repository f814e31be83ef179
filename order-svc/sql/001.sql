-- orders: one row per order, written by the owner of its lane only (order.c, order_store.c).
--
--   order_id                  the key of every record about it
--   lane                      murmur2(order_id) mod N
--   created_at                when PlaceOrder was accepted
--   amount, customer_id, currency, payment_mode, payment_token, lines
--                             as placed; amount is the sum, in minor units of currency
--   state                     CREATED, PAID, CANCELLING, CANCELLED, SHIPPED, COMPLETED
--   requested                 payment_mode later: the customer has asked to pay
--   due                       deadline for the payment; null once it is no longer in force
--   cause, trace              id and traceparent of what changed the row last
--   reason                    why it is being cancelled or was
--   tracking                  of the parcel
--   history                   [{status, at, reason, cause}], oldest first
--
-- Fixed-width and never changing columns first, changing ones last: with room left on its page the
-- new version of a row stays there, and WAL has only the bytes that differ. Rows are asked for by their
-- keys, whatever the statistics say: those are seldom made.
create table orders (
    lane          bigint      not null,
    created_at    timestamptz not null,
    amount        bigint      not null,
    order_id      text        collate "C" primary key,
    customer_id   text        not null,
    currency      text        not null,
    payment_mode  text        not null,
    payment_token text,
    lines         json        not null,
    state         text        not null,
    requested     boolean     not null,
    due           timestamptz,
    cause         text,
    trace         text,
    reason        text,
    tracking      text,
    history       json        not null
) with (fillfactor = 40, autovacuum_analyze_threshold = 1000000);
