-- stock_movement.reason: received: why, as the request says, or null. (Why stock was reserved, released or
-- shipped is its event.)
-- stock_movement.asked: received: the quantity that the request has set; a request with the same
-- idempotency_key that asks for another is refused. Null in rows that are older than this column: not known.
alter table stock_movement add reason text, add asked bigint;
