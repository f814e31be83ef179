-- payment: one row per order whose payment was ever asked for, waited for or cancelled; written by the
-- owner of its lane only (payment.c, payment_store.c).
--
--   order_id      the key of every record about it
--   lane          murmur2(order_id) mod N
--   created_at    when the row was made
--   amount, currency
--                 to be paid, in minor units; null before the reservation was known
--   token         the customer's means of payment
--   payment_id    of the charge: the order's id
--   cancel        CHARGING: refund as soon as the charge is known to have succeeded
--   calls         how often the provider was asked for the charge, or for the refund once it is wanted
--   cause, trace  id and traceparent of the event that changed the row last
--   state         AWAITING, REQUESTED, CHARGING, COMPLETED, FAILED, REFUNDING, REFUNDED, VOIDED
--   due           when the provider is asked again
--   provider_ref  the provider's name of the charge
--   reason        why it failed, or was or will be voided or refunded
--   attempts      [{kind, at, outcome, ref or reason}], the provider's answers, oldest first, bounded:
--                 "skipped" tells how many were left out before one
--
-- What changes with the provider's answer stands last: with room left on its page the new version of
-- a row stays there, and WAL has only the bytes that differ.
create table payment (
    lane         int         not null,
    calls        int         not null,
    created_at   timestamptz not null,
    amount       bigint,
    cancel       boolean     not null,
    order_id     text        collate "C" primary key,
    currency     text,
    token        text,
    payment_id   text,
    cause        text,
    trace        text,
    state        text        not null,
    due          timestamptz,
    provider_ref text,
    reason       text,
    attempts     json
) with (fillfactor = 40, autovacuum_analyze_threshold = 1000000);

-- ledger: the books of the simulated provider (provider_simulated.c), which stand for another company's
-- database: nothing else of the service reads or writes them.
--
--   key       charge:<order> or refund:<order>; the same key moves money once
--   amount    moved, or refused to be, in minor units
--   refusals  of a refund: how often it will still be refused; null for a charge
--   reason    why it was declined or is refused; null: the money has moved
create table ledger (
    amount   bigint not null,
    refusals int,
    key      text   collate "C" primary key,
    reason   text
) with (autovacuum_analyze_threshold = 1000000);
