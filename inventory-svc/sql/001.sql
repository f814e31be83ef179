-- reservation: one row per order that inventory has decided on or heard the end of; written by the
-- owner of its lane only (inventory.c, inventory_store.c).
--
--   order_id  the key of every record about it
--   state     HELD, FAILED, RELEASED (also of an order cancelled before it was known), SHIPPED
--   lines     [{sku, quantity}] as held; null where nothing ever was
create table reservation (
    order_id text  collate "C" primary key,
    state    text  not null,
    lines    json
) with (autovacuum_analyze_threshold = 1000000);

-- stock: one row per SKU, shared by all lanes. Whoever writes it locks its rows in the order of sku,
-- which is bytewise for everybody: hence the collation.
--
--   sku        the article
--   available  pieces that can be ordered
--   reserved   pieces held for orders
--   shipped    pieces that have left
--   received   pieces that ever came in, less those taken out: available + reserved + shipped
--   version    of the row, for If-Match
--
-- Rewritten by every batch: half of each page is left for the next versions, so that they stay on it
-- and no index is touched.
create table stock (
    available bigint not null check (available >= 0),
    reserved  bigint not null default 0 check (reserved >= 0),
    shipped   bigint not null default 0,
    received  bigint not null,
    version   bigint not null default 1,
    sku       text   collate "C" primary key
) with (fillfactor = 50);

-- stock_movement: what happened to the stock, appended in the transaction that changed it.
--
--   sku              whose
--   kind             received (by POST; what came or, below 0, was taken out), reserved, released,
--                    shipped
--   quantity         pieces
--   order_id         the order, null for received
--   event_id         id of the event that caused it, null for received
--   by_whom          received: the From header of the request, or null
--   at               when, by the database's clock
--   idempotency_key  received: of the request, or null; a second request with it changes nothing
create table stock_movement (
    at              timestamptz not null,
    quantity        bigint      not null,
    sku             text        collate "C" not null,
    kind            text        not null,
    order_id        text,
    event_id        text,
    by_whom         text,
    idempotency_key text
) with (autovacuum_analyze_threshold = 1000000);

create index stock_movement_sku on stock_movement (sku, at);

create unique index stock_movement_idempotency_key on stock_movement (idempotency_key)
 where idempotency_key is not null;
