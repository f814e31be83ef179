-- payment.asked_at: when the provider was asked first, for the charge, or for the refund once it is wanted. A
-- provider that keeps keys for a limited time is asked to look up what is asked again later. Null in rows that
-- are older than this column: long ago.
alter table payment add asked_at timestamptz;
